//! Where in an endpoint's JSON the measurement is: `{$.data.rate}`, `$.pods[0]["error rate"]`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A path of keys and indexes from the root. Nothing that chooses between several places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

impl JsonPath {
    /// Reads a path; `$` is everything. Braces around it are allowed, as other tools want them.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let mut rest = inner.strip_prefix('$').ok_or_else(|| format!("`{text}` does not begin with `$`"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) =
                step(rest).ok_or_else(|| format!("`{rest}` is neither `.name`, `[0]` nor `[\"name\"]`"))?;
            steps.push(step);
            rest = after;
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// Finds what is at the path.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
    }
}

fn step(rest: &str) -> Option<(Step, &str)> {
    if let Some(name) = rest.strip_prefix('.') {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (key, after) = name.split_at(end);
        return (!key.is_empty()).then(|| (Step::Key(key.to_owned()), after));
    }
    let inside = rest.strip_prefix('[')?;
    if let Some(quote) = inside.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        let (key, after) = inside[1..].split_once(quote)?;
        return Some((Step::Key(key.to_owned()), after.strip_prefix(']')?));
    }
    let (index, after) = inside.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), after))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<JsonPath> for String {
    fn from(path: JsonPath) -> Self {
        path.text
    }
}

impl TryFrom<String> for JsonPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_one_place() {
        let value = json!({"data": {"error rate": 0.5, "pods": [{"ok": true}]}});
        let at = |path: &str| JsonPath::parse(path).unwrap().find(&value).cloned();
        assert_eq!(at("$"), Some(value.clone()));
        assert_eq!(at("{$.data[\"error rate\"]}"), Some(json!(0.5)));
        assert_eq!(at("$.data.pods[0].ok"), Some(json!(true)));
        assert_eq!(at("$.data.pods[1].ok"), None);
        assert_eq!(at("$.data.pods.ok"), None);
        for wrong in ["data", "$.", "$..a", "$[*]", "$[-1]", "$['a", "$a", "{$.a"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }
}
