//! What every new pod answers before requests are switched to it.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    read::{Reader, dns_label},
    read_policy::seconds as read_seconds,
    rollout_policy::seconds,
};
use crate::core::yaml::{Data, Node};

/// The fields of `healthCheck`.
pub(super) const HEALTH_CHECK: &[&str] = &["path", "port", "expect", "timeoutSeconds"];
/// The longest that a pod may take for its answer, in seconds.
pub(super) const LONGEST: u32 = 60;
/// How long it may take where the policy does not say.
const TIMEOUT: u64 = 5;

/// What every new pod answers before requests are switched to it: a status between 200 and 299, and what is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// `/health`, a query included.
    pub path: String,
    /// Where the pods listen.
    pub port: Port,
    /// What the answer, which is JSON then, says at least; `None` where the status is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<BTreeMap<String, Value>>,
    /// How long the whole answer may take, in whole seconds.
    #[serde(with = "seconds")]
    pub timeout: Duration,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Port {
    /// By its number.
    Number(u16),
    /// By the name that a container gives it.
    Name(String),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl HealthCheck {
    /// Says what is wrong with an answer; `None` where nothing is.
    pub fn objection(&self, status: u16, body: &str) -> Option<String> {
        if !(200..300).contains(&status) {
            return Some(format!("it answers {status}"));
        }
        let expect = self.expect.as_ref()?;
        let Ok(said) = serde_json::from_str::<Value>(body) else {
            return Some(format!("it answers no JSON: {}", beginning(body)));
        };
        let (name, wanted) = expect.iter().find(|(name, wanted)| !says(said.get(name.as_str()), wanted))?;
        Some(format!("it answers {}, and `{name}` is to be {wanted}", beginning(body)))
    }
}

/// Returns whether what was said is what is wanted: of maps, at least that; of numbers, whatever way they are written.
fn says(said: Option<&Value>, wanted: &Value) -> bool {
    match (said, wanted) {
        (Some(Value::Object(said)), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| says(said.get(name), wanted))
        }
        (Some(Value::Number(said)), Value::Number(wanted)) => said == wanted || said.as_f64() == wanted.as_f64(),
        (said, wanted) => said == Some(wanted),
    }
}

/// The most of an answer that is told to people, in characters.
const MOST_TOLD: usize = 120;

fn beginning(body: &str) -> String {
    let mut line: String = body.trim().chars().take(MOST_TOLD).collect();
    if body.trim().chars().count() > MOST_TOLD {
        line.push('…');
    }
    line.escape_debug().to_string().replace("\\\"", "\"")
}

/// Reads `healthCheck`.
pub(super) fn health_check(reader: &mut Reader<'_>, node: &Node) -> Option<HealthCheck> {
    let fields = reader.fields(node, HEALTH_CHECK)?;
    let timeout = read_seconds(reader, fields.get("timeoutSeconds"), 1..=LONGEST, TIMEOUT);
    let (path, port) = (reader.required(&fields, "path"), reader.required(&fields, "port"));
    let path = path.and_then(|node| reader.checked(node, path_of_url));
    let port = port.and_then(|node| self::port(reader, node));
    let expect = fields.get("expect").map(|node| expected(reader, node));
    Some(HealthCheck { path: path?.to_owned(), port: port?, expect: expect.flatten(), timeout })
}

fn port(reader: &mut Reader<'_>, node: &Node) -> Option<Port> {
    match node.data {
        Data::Text(_) => reader.checked(node, dns_label).map(|name| Port::Name(name.to_owned())),
        _ => reader.integer(node, 1..=u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok()).map(Port::Number),
    }
}

fn expected(reader: &mut Reader<'_>, node: &Node) -> Option<BTreeMap<String, Value>> {
    let entries = reader.map(node)?;
    if entries.is_empty() {
        reader.problem(node.span, "nothing is expected").label =
            Some("write `expect: {healthy: true}`, or leave it out where the status is enough".to_owned());
    }
    Some(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect())
}

fn path_of_url(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not begin with `/`"));
    }
    match text.chars().any(|character| character.is_control() || character.is_whitespace() || character == '#') {
        true => Err(format!("`{}` is no path", text.escape_debug())),
        false => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(expect: Option<Value>) -> HealthCheck {
        let expect = expect.map(|expect| serde_json::from_value(expect).unwrap());
        HealthCheck { path: "/health".to_owned(), port: Port::Number(80), expect, timeout: Duration::from_secs(1) }
    }

    #[test]
    fn a_status_alone_is_enough_where_nothing_is_expected() {
        assert_eq!(check(None).objection(200, "whatever"), None);
        assert_eq!(check(None).objection(204, ""), None);
        assert_eq!(check(None).objection(503, "").as_deref(), Some("it answers 503"));
        // A redirect leads elsewhere, where nobody looks.
        assert_eq!(check(None).objection(302, "").as_deref(), Some("it answers 302"));
    }

    #[test]
    fn what_is_expected_is_said_at_least() {
        let healthy = check(Some(json!({"healthy": true})));
        assert_eq!(healthy.objection(200, r#"{"healthy": true, "load": 3}"#), None);
        let told = healthy.objection(200, "{\"healthy\": false}\n");
        assert_eq!(told.as_deref(), Some("it answers {\"healthy\": false}, and `healthy` is to be true"));
        for wrong in [r#"{"healthy": "true"}"#, r#"{}"#, "[]", "null", "true"] {
            assert!(healthy.objection(200, wrong).is_some(), "{wrong}");
        }
        assert_eq!(healthy.objection(200, "fine").as_deref(), Some("it answers no JSON: fine"));
        assert_eq!(healthy.objection(500, r#"{"healthy": true}"#).as_deref(), Some("it answers 500"));
        let deep = check(Some(json!({"parts": {"store": {"lag": 0}}})));
        assert_eq!(deep.objection(200, r#"{"parts": {"store": {"lag": 0.0, "since": 5}, "cache": {}}}"#), None);
        assert!(deep.objection(200, r#"{"parts": {"store": {"lag": 1}}}"#).is_some());
    }
}
