//! Which requests a rule of a route takes, and which rule goes first.

use std::cmp::Reverse;

use regex::Regex;
use serde_json::Value;

use crate::sandbox::{message::Head, value};

/// What a request must be like.
#[derive(Clone, Debug)]
pub struct Matching {
    path: Path,
    method: Option<String>,
    headers: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
}

#[derive(Clone, Debug)]
enum Path {
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

#[derive(Clone, Debug)]
enum Text {
    Exact(String),
    Regex(Regex),
}

impl Text {
    fn is(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Regex(wanted) => wanted.is_match(text),
        }
    }
}

/// Compiles an expression that must take all of a text.
fn whole(expression: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{expression})$")).map_err(|error| format!("`{expression}`: {error}"))
}

impl Matching {
    /// Reads one entry of `matches`; `Null` takes everything.
    ///
    /// # Errors
    ///
    /// Where an expression is none, or a kind is not known.
    pub fn read(entry: &Value) -> Result<Self, String> {
        let text = |one: &Value| -> Result<(String, Text), String> {
            let (name, wanted) = (value::text(one, &["name"]).to_owned(), value::text(one, &["value"]));
            match one["type"].as_str().unwrap_or("Exact") {
                "Exact" => Ok((name, Text::Exact(wanted.to_owned()))),
                "RegularExpression" => Ok((name, Text::Regex(whole(wanted)?))),
                other => Err(format!("the match type {other} is not known")),
            }
        };
        let texts = |name: &str| value::items(entry, &[name]).iter().map(text).collect::<Result<Vec<_>, _>>();
        let path = entry["path"]["value"].as_str().unwrap_or("/");
        let path = match entry["path"]["type"].as_str().unwrap_or("PathPrefix") {
            "Exact" => Path::Exact(path.to_owned()),
            "PathPrefix" => Path::Prefix(path.trim_end_matches('/').to_owned()),
            "RegularExpression" => Path::Regex(whole(path)?),
            other => return Err(format!("the path type {other} is not known")),
        };
        let method = entry["method"].as_str().map(str::to_owned);
        Ok(Self { path, method, headers: texts("headers")?, query: texts("queryParams")? })
    }

    /// Returns whether a request is taken.
    pub fn takes(&self, request: &Head) -> bool {
        let (path, query) = request.word(1).split_once('?').unwrap_or((request.word(1), ""));
        let path = match &self.path {
            Path::Exact(wanted) => wanted == path,
            // By whole elements: /a takes /a/b, and not /ab.
            Path::Prefix(wanted) => {
                path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Path::Regex(wanted) => wanted.is_match(path),
        };
        let parameter =
            |name: &str| query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
        path && self.method.as_deref().is_none_or(|method| method == request.word(0))
            && self.headers.iter().all(|(name, wanted)| request.header(name).is_some_and(|value| wanted.is(value)))
            && self.query.iter().all(|(name, wanted)| parameter(name).is_some_and(|(_, value)| wanted.is(value)))
    }

    /// Returns what rules are ordered by, the first to be asked first: exact paths, then longer ones, then those that
    /// look at the method, then those that look at more headers, at more parameters.
    pub fn order(&self) -> impl Ord + use<> {
        let (exact, length) = match &self.path {
            Path::Exact(path) => (true, path.len()),
            Path::Prefix(path) => (false, path.len()),
            Path::Regex(path) => (false, path.as_str().len()),
        };
        Reverse((exact, length, self.method.is_some(), self.headers.len(), self.query.len()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(first: &str, headers: &[(&str, &str)]) -> Head {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Head { first: first.to_owned(), headers }
    }

    #[test]
    fn a_prefix_is_of_whole_elements() {
        let prefix = Matching::read(&json!({"path": {"type": "PathPrefix", "value": "/a"}})).unwrap();
        let takes = |path: &str| prefix.takes(&request(&format!("GET {path} HTTP/1.1"), &[]));
        assert_eq!([takes("/a"), takes("/a/b?c=d"), takes("/ab"), takes("/")], [true, true, false, false]);
        assert!(Matching::read(&Value::Null).unwrap().takes(&request("GET /any HTTP/1.1", &[])));
    }

    #[test]
    fn more_headers_go_first_at_the_same_path() {
        let header = json!({"type": "RegularExpression", "name": "X-User", "value": "staff-.*"});
        let narrow = Matching::read(&json!({"headers": [header]})).unwrap();
        assert!(narrow.takes(&request("GET / HTTP/1.1", &[("x-user", "staff-1")])));
        assert!(!narrow.takes(&request("GET / HTTP/1.1", &[("x-user", "a-staff-1")])));
        assert!(narrow.order() < Matching::read(&Value::Null).unwrap().order());
        assert!(Matching::read(&json!({"headers": [{"type": "RegularExpression", "value": "("}]})).is_err());
    }
}
