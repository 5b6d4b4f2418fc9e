//! What is measured, and how it is asked.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{JsonPath, Rule};
use crate::core::{
    ask::{Metric as Asked, Query, Question},
    policy::seconds,
    traffic::{Router, nginx},
};

/// How long an answer to a metric's question is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Something that is measured of the new version, and judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metric {
    /// How steps name it.
    pub name: String,
    /// Whom to ask what.
    pub provider: Provider,
    /// How the answers are judged.
    pub rule: Rule,
}

/// Whom to ask what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Provider {
    /// A server that speaks Prometheus' HTTP API.
    #[serde(rename_all = "camelCase")]
    Prometheus {
        /// `http://prometheus.monitoring:9090`; absent is the one of `locktender.yaml`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// PromQL.
        query: Template,
        /// Asks for the points of a time until now instead of one value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<Range>,
    },
    /// An endpoint that answers with JSON.
    #[serde(rename_all = "camelCase")]
    Web {
        /// The whole address.
        url: Template,
        /// Where in the answer the measurement is.
        json_path: JsonPath,
    },
    /// A Job of the person's, run once a sample.
    Job {
        /// Its `spec`, with arguments in its texts.
        spec: Value,
    },
}

/// A time until now, and how far apart its points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Range {
    /// How far back.
    #[serde(with = "seconds")]
    pub window: Duration,
    /// Between two points.
    #[serde(with = "seconds")]
    pub step: Duration,
}

/// What can be named in a query as `{{ app }}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The application.
    App,
    /// Its namespace.
    Namespace,
    /// `canary` or `stable`.
    Variant,
    /// The value of the pods' label `locktender.dev/digest`; several workloads': a regular expression of all.
    Digest,
    /// A regular expression that the pods' names match.
    Pods,
    /// The value of the pods' label `locktender.dev/unit`, the same; empty where there are no units.
    Unit,
    /// A regular expression of the Ingress of the policy's `traffic` and of its canary's.
    Ingress,
    /// HAProxy's backend of the policy's `traffic`.
    Backend,
}

impl Argument {
    /// All of them, by name.
    pub const ALL: &[(&str, Self)] = &[
        ("app", Self::App),
        ("namespace", Self::Namespace),
        ("variant", Self::Variant),
        ("digest", Self::Digest),
        ("pods", Self::Pods),
        ("unit", Self::Unit),
        ("ingress", Self::Ingress),
        ("backend", Self::Backend),
    ];

    /// Returns whether it has a value where traffic goes through this router.
    pub fn has(self, router: Option<&Router>) -> bool {
        match self {
            Self::Ingress => matches!(router, Some(Router::Nginx { .. })),
            Self::Backend => matches!(router, Some(Router::Haproxy { .. })),
            Self::App | Self::Namespace | Self::Variant | Self::Digest | Self::Pods | Self::Unit => true,
        }
    }

    /// Returns which router must be the policy's for the argument to have a value: a field of `traffic`.
    pub fn router(self) -> Option<&'static str> {
        match self {
            Self::Ingress => Some("nginx"),
            Self::Backend => Some("haproxy"),
            Self::App | Self::Namespace | Self::Variant | Self::Digest | Self::Pods | Self::Unit => None,
        }
    }

    /// Returns whether it tells the two versions apart.
    fn is_of_a_side(self) -> bool {
        matches!(self, Self::Variant | Self::Digest | Self::Pods)
    }
}

/// One version of an application, as queries name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The application.
    pub app: String,
    /// Its namespace.
    pub namespace: String,
    /// `canary` or `stable`.
    pub variant: &'static str,
    /// See [`Argument::Digest`].
    pub digest: String,
    /// See [`Argument::Pods`].
    pub pods: String,
    /// See [`Argument::Unit`].
    pub unit: String,
    /// What the policy's traffic goes through.
    pub router: Option<Router>,
}

impl Side {
    fn get(&self, argument: Argument) -> Cow<'_, str> {
        match (argument, &self.router) {
            (Argument::App, _) => Cow::from(&self.app),
            (Argument::Namespace, _) => Cow::from(&self.namespace),
            (Argument::Variant, _) => Cow::from(self.variant),
            (Argument::Digest, _) => Cow::from(&self.digest),
            (Argument::Pods, _) => Cow::from(&self.pods),
            (Argument::Unit, _) => Cow::from(&self.unit),
            (Argument::Ingress, Some(Router::Nginx { ingress })) => {
                let both = [ingress.clone(), nginx::canary_of(ingress)].map(|name| literal(&name));
                Cow::from(format!("({})", both.join("|")))
            }
            (Argument::Backend, Some(Router::Haproxy { backend, .. })) => Cow::from(backend),
            // Refused when the policy was read.
            (Argument::Ingress | Argument::Backend, _) => Cow::from(""),
        }
    }
}

/// Returns a regular expression that only a name matches. No backslash: in PromQL's texts it is another thing.
pub fn literal(name: &str) -> String {
    name.replace('.', "[.]")
}

/// A text with arguments in it: `up{namespace="{{ namespace }}"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Argument(Argument),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// The first argument that there is not: what is written between the braces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else { break };
            let known = Argument::ALL.iter().find(|(known, _)| *known == name.trim());
            let (_, argument) = known.ok_or_else(|| name.trim().to_owned())?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Argument(*argument));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Returns whether it asks something else of each side.
    pub fn tells_sides_apart(&self) -> bool {
        self.arguments().any(Argument::is_of_a_side)
    }

    /// Returns the arguments in it.
    pub fn arguments(&self) -> impl Iterator<Item = Argument> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Argument(argument) => Some(*argument),
        })
    }

    /// Fills in the arguments.
    pub fn of(&self, side: &Side) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => Cow::from(text),
            Part::Argument(argument) => side.get(*argument),
        });
        parts.collect()
    }
}

/// Fills in the arguments in every text of a JSON value.
fn filled(value: &Value, side: &Side) -> Value {
    match value {
        Value::String(text) => match Template::parse(text) {
            Ok(template) => Value::String(template.of(side)),
            // Read from a policy, so it parses.
            Err(_) => value.clone(),
        },
        Value::Array(items) => items.iter().map(|item| filled(item, side)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), filled(value, side))).collect(),
        other => other.clone(),
    }
}

/// Returns the arguments in every text of a JSON value.
fn arguments(value: &Value) -> Vec<Argument> {
    match value {
        Value::String(text) => Template::parse(text).iter().flat_map(Template::arguments).collect(),
        Value::Array(items) => items.iter().flat_map(arguments).collect(),
        Value::Object(fields) => fields.values().flat_map(arguments).collect(),
        _ => Vec::new(),
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|name| format!("there is no argument `{name}`"))
    }
}

impl Metric {
    /// Returns whether the stable version is measured, too.
    pub fn compares(&self) -> bool {
        let conditions = [&self.rule.success_condition, &self.rule.failure_condition];
        conditions.into_iter().flatten().any(super::Condition::names_baseline)
    }

    /// Returns the question, about `new` and, where it is compared, `stable`. `server`: the Prometheus of
    /// `locktender.yaml`. `None` where nobody says whom to ask, and for a Job, which nobody is asked about.
    pub fn question(&self, new: &Side, stable: &Side, server: Option<&str>) -> Option<Question> {
        let both = |template: &Template| (template.of(new), self.compares().then(|| template.of(stable)));
        let query = match &self.provider {
            Provider::Prometheus { address, query, range } => {
                let (query, baseline) = both(query);
                let address = address.as_deref().or(server)?.trim_end_matches('/').to_owned();
                Query::Prometheus { address, query, baseline, range: *range }
            }
            Provider::Web { url, json_path } => {
                let (url, baseline) = both(url);
                Query::Web { url, baseline, path: json_path.clone() }
            }
            Provider::Job { .. } => return None,
        };
        Some(Question::Metric(Asked { query, timeout: TIMEOUT }))
    }

    /// Returns the `spec` of the Job that measures `new`, where one does.
    pub fn job(&self, new: &Side) -> Option<Value> {
        match &self.provider {
            Provider::Job { spec } => Some(filled(spec, new)),
            Provider::Prometheus { .. } | Provider::Web { .. } => None,
        }
    }

    /// Returns whether Jobs measure it.
    pub fn is_job(&self) -> bool {
        matches!(self.provider, Provider::Job { .. })
    }

    /// Returns the arguments in its texts.
    pub fn arguments(&self) -> Vec<Argument> {
        match &self.provider {
            Provider::Prometheus { query, .. } => query.arguments().collect(),
            Provider::Web { url, .. } => url.arguments().collect(),
            Provider::Job { spec } => arguments(spec),
        }
    }

    /// Returns whether it needs the Prometheus of `locktender.yaml`.
    pub fn needs_server(&self) -> bool {
        matches!(self.provider, Provider::Prometheus { address: None, .. })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_filled_in_and_unknown_ones_are_told() {
        let side = Side {
            app: "checkout".to_owned(),
            namespace: "shop".to_owned(),
            variant: "canary",
            digest: "0123".to_owned(),
            pods: "checkout-1-.+".to_owned(),
            unit: String::new(),
            router: Some(Router::Nginx { ingress: "shop.example".to_owned() }),
        };
        let template = Template::parse("up{ns=\"{{ namespace }}\", pod=~\"{{pods}}\"} or {{}").unwrap();
        assert_eq!(template.of(&side), "up{ns=\"shop\", pod=~\"checkout-1-.+\"} or {{}");
        assert!(template.tells_sides_apart());
        assert!(!Template::parse("up{app=\"{{ app }}\"}").unwrap().tells_sides_apart());
        assert_eq!(Template::parse("{{ apq }}"), Err("apq".to_owned()));
        let filled = |text: &str| Template::parse(text).unwrap().of(&side);
        assert_eq!(filled("ingress=~\"{{ ingress }}\""), "ingress=~\"(shop[.]example|shop[.]example-canary)\"");
        assert_eq!(filled("unit=\"{{ unit }}\""), "unit=\"\"", "there are none");
    }
}
