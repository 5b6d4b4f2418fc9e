//! Label and field selectors, as they are written in queries and in objects.

use serde_json::{Map, Value};

use super::{resources::Resource, status::Status};

/// A parsed label selector: all of its requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Labels {
    /// Reads a query's `labelSelector`, `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    ///
    /// 400 where it cannot be read.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let wrong = |part: &str| {
            Status::bad_request(format!("unable to parse requirement: found '{}', in selector {text:?}", part.trim()))
        };
        let mut requirements = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let one = |value: &str| vec![value.trim().to_owned()];
            let (key, operator) = if let Some(key) = part.strip_prefix('!') {
                (key, Operator::DoesNotExist)
            } else if let Some((head, list)) = part.split_once('(') {
                let list = list.strip_suffix(')').ok_or_else(|| wrong(part))?;
                let values = list.split(',').map(|value| value.trim().to_owned()).collect();
                let mut words = head.split_whitespace();
                match (words.next(), words.next()) {
                    (Some(key), Some("in")) => (key, Operator::In(values)),
                    (Some(key), Some("notin")) => (key, Operator::NotIn(values)),
                    _ => return Err(wrong(part)),
                }
            } else if let Some((key, value)) = part.split_once("!=") {
                (key, Operator::NotIn(one(value)))
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (key, Operator::In(one(value)))
            } else {
                (part, Operator::Exists)
            };
            let key = key.trim();
            if key.is_empty() || key.contains(|c: char| c.is_whitespace() || matches!(c, '=' | '!' | '(' | ')')) {
                return Err(wrong(part));
            }
            requirements.push(Requirement { key: key.to_owned(), operator });
        }
        Ok(Self(requirements))
    }

    /// Reads a `LabelSelector` of an object (`matchLabels`, `matchExpressions`), or a plain map of labels as a Service
    /// and a replication controller have it. `None` where an operator is not known.
    pub fn of(selector: &Value) -> Option<Self> {
        let expressions = selector["matchExpressions"].as_array();
        let is_structured = selector.get("matchLabels").is_some() || expressions.is_some();
        let plain = if is_structured { selector["matchLabels"].as_object() } else { selector.as_object() };
        let equal = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In(vec![value.as_str().unwrap_or_default().to_owned()]),
        };
        let mut requirements: Vec<_> = plain.into_iter().flatten().map(equal).collect();
        for expression in expressions.into_iter().flatten() {
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                operator: match expression["operator"].as_str() {
                    Some("In") => Operator::In(values),
                    Some("NotIn") => Operator::NotIn(values),
                    Some("Exists") => Operator::Exists,
                    Some("DoesNotExist") => Operator::DoesNotExist,
                    _ => return None,
                },
            });
        }
        Some(Self(requirements))
    }

    /// Returns whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `metadata.labels` of `object` satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.match_labels(object["metadata"]["labels"].as_object())
    }

    /// Returns whether labels satisfy every requirement.
    pub fn match_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.0.iter().all(|requirement| {
            let found = labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str);
            match &requirement.operator {
                Operator::In(values) => found.is_some_and(|found| values.iter().any(|value| value == found)),
                Operator::NotIn(values) => found.is_none_or(|found| values.iter().all(|value| value != found)),
                Operator::Exists => found.is_some(),
                Operator::DoesNotExist => found.is_none(),
            }
        })
    }
}

impl std::fmt::Display for Labels {
    /// Writes it as a query has it; `Scale.status.selector` is this.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Requirement { key, operator }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) => match values.as_slice() {
                    [one] => write!(f, "{key}={one}")?,
                    many => write!(f, "{key} in ({})", many.join(","))?,
                },
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// Splits at the commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String, bool)>);

impl Fields {
    /// Reads a query's `fieldSelector`, `spec.nodeName=a,status.phase!=Running`.
    ///
    /// # Errors
    ///
    /// 400 where it cannot be read, or where the resource cannot be selected by a field.
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, Status> {
        let mut made = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                return Err(Status::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            if !is_selectable(resource, field) {
                // Kinds that nobody registered fields for are refused in other words.
                let message = if resource.custom.is_some() || !selectable(resource).is_empty() {
                    format!("field label not supported: {field}")
                } else {
                    format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                };
                return Err(Status::bad_request(message));
            }
            made.push((field.to_owned(), value.to_owned(), equal));
        }
        Ok(Self(made))
    }

    /// Returns whether the object's fields are as wanted. A field that is absent is "".
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, value, equal)| {
            let found = field.split('.').try_fold(object, |value, name| value.get(name));
            let is = match found {
                Some(Value::String(text)) => text == value,
                Some(Value::Bool(yes)) => yes.to_string() == *value,
                Some(Value::Number(number)) => number.to_string() == *value,
                _ => value.is_empty() || (value == "false" && field == "spec.unschedulable"),
            };
            is == *equal
        })
    }

    /// Returns the name that is selected, where it is just one.
    pub fn name(&self) -> Option<&str> {
        self.0.iter().find(|(field, _, equal)| field == "metadata.name" && *equal).map(|(_, value, _)| value.as_str())
    }
}

/// Per kind, as the conversions of Kubernetes register them.
fn is_selectable(resource: &Resource, field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace") || selectable(resource).contains(&field)
}

/// Returns the fields besides name and namespace.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match &*resource.key {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "namespaces" => &["status.phase"],
        "nodes" => &["spec.unschedulable"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "replicasets.apps" | "replicationcontrollers" => &["status.replicas"],
        "jobs.batch" => &["status.successful"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::Labels;

    #[test]
    fn every_operator_of_a_label_selector_holds() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "a"}}});
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=x",
            "tier in (a, b)",
            "tier notin (b)",
            "app",
            "!old",
            "gone!=x",
            "app=web,tier",
        ] {
            assert!(Labels::parse(yes).unwrap().matches(&pod), "{yes}");
        }
        for no in ["app=x", "app!=web", "tier in (b)", "tier notin (a,b)", "old", "!app", "app=web,old"] {
            assert!(!Labels::parse(no).unwrap().matches(&pod), "{no}");
        }
        for wrong in ["a in b)", "a in (b", "a b", "=x"] {
            assert!(Labels::parse(wrong).is_err(), "{wrong}");
        }
    }
}
