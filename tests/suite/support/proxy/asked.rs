//! A request to the API server, in the words of Kubernetes.

use http::{Method, header, request::Parts};
use locktender::adapter::kube::Verb;
use serde_json::Value;
use tokio::time::Instant;

/// What the controller asked for, and what became of it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: Verb,
    /// `deployments.apps`, `pods`; empty for what is no resource.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
    /// What was sent; `null` where nothing was.
    pub body: Value,
    pub at: Instant,
    /// The status with which the server itself answered; `None` where it was not asked.
    pub answered: Option<u16>,
}

impl Asked {
    pub fn is_write(&self) -> bool {
        matches!(self.verb, Verb::Create | Verb::Apply | Verb::Patch | Verb::Delete)
    }

    /// Whether the server carried it out.
    pub fn is_done(&self) -> bool {
        self.answered.is_some_and(|status| status < 300)
    }

    /// Whether it gives a pod other images.
    pub fn sets_images(&self) -> bool {
        self.verb == Verb::Patch && self.resource == "pods" && self.body.to_string().contains("\"containers\"")
    }

    pub fn read(parts: &Parts, body: &[u8]) -> Self {
        let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match path.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => ("", &path[path.len()..]),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default();
        let resource = match (part(0), group) {
            ("", _) => String::new(),
            (plural, "") => plural.to_owned(),
            (plural, group) => format!("{plural}.{group}"),
        };
        let content = parts.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let watches = parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let verb = match parts.method {
            Method::POST => Verb::Create,
            Method::PATCH if content.starts_with("application/apply-patch") => Verb::Apply,
            Method::PATCH | Method::PUT => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ if resource.is_empty() => Verb::Discover,
            _ if watches => Verb::Watch,
            _ if part(1).is_empty() => Verb::List,
            _ => Verb::Get,
        };
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = match (part(1), verb) {
            // A creation says it only inside.
            ("", Verb::Create) => body["metadata"]["name"].as_str().unwrap_or_default(),
            (name, _) => name,
        };
        Self {
            verb,
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: part(2).to_owned(),
            body,
            at: Instant::now(),
            answered: None,
        }
    }
}
