//! A Gateway API `HTTPRoute`: weights of its backends, rules for headers, mirrored requests.

mod parents;
mod rules;

use serde_json::{Value, json};

use super::{
    Split,
    route::{Answer, Backends, Misfit, Route, Target, find, list},
};
use crate::core::{cluster::Kind, manifest::Object, policy::Percent};

/// Notes on a route which rules in it are Locktender's: the header matches of each, as JSON.
const RULES: &str = "locktender.dev/header-routes";
/// `metadata.annotations` and the note in it.
const NOTE: [&str; 3] = ["metadata", "annotations", RULES];

/// An `HTTPRoute` that sends requests to the Service of the side that serves.
///
/// In every rule that names this Service, the other side's Service gets a reference beside it, with filters and port
/// the same, and the weight is shared out. A header route is a rule before the others: a copy of each such rule, with
/// the headers added to its matches, so it is always the more specific one. Rules have names only in newer versions of
/// the API, and older ones drop them without a word: so ours are told by a note on the route of what they match.
/// Session affinity is a header route by cookie, and a filter that sets this cookie in the other side's answers.
///
/// It is taken when every parent that the route names says of its generation, or a later one, that it is accepted and
/// that its references are resolved. What a gateway's own proxies have heard is not in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The two Services.
    pub backends: Backends,
}

impl HttpRoute {
    fn target(&self) -> Target {
        Target::new(Kind::new("gateway.networking.k8s.io", "v1", "HTTPRoute"), &self.namespace, &self.name)
    }

    fn misfit(&self, why: impl std::fmt::Display) -> Misfit {
        Misfit(format!("{}: {why}", self.target()))
    }

    fn split_into(&self, route: &Object, split: &Split) -> Result<Object, Misfit> {
        let headers = split.header_routes().iter().map(rules::headers).collect::<Result<Vec<_>, _>>();
        let headers = headers.map_err(|why| self.misfit(why))?;
        let mut route = self.cleared(route, &headers);
        let Some(rules) = route.at(&["spec", "rules"]).and_then(Value::as_array).cloned() else {
            return Err(self.misfit("it has no rules"));
        };
        let references = rules::References { route: self, affinity: split.affinity.as_ref() };
        let rules = references.split(rules, split, &headers).map_err(|why| self.misfit(why))?;
        route.set(&["spec", "rules"], Value::Array(rules));
        if !headers.is_empty() {
            route.set(&NOTE, json!(json!(headers).to_string()));
        }
        Ok(route)
    }

    /// Takes out what is ours: what the note names, and rules as they would be added with `headers`.
    fn cleared(&self, route: &Object, headers: &[Vec<Value>]) -> Object {
        let mut route = route.clone();
        let noted = route.remove(&NOTE).and_then(|note| serde_json::from_str::<Vec<Vec<Value>>>(note.as_str()?).ok());
        if noted.is_some() && route.at(&NOTE[..2]).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
            route.remove(&NOTE[..2]);
        }
        let mut known = noted.unwrap_or_default();
        known.extend_from_slice(headers);
        if let Some(Value::Array(rules)) = route.at(&["spec", "rules"]) {
            let references = rules::References { route: self, affinity: None };
            let rules = references.clear(rules.clone(), &known);
            route.set(&["spec", "rules"], Value::Array(rules));
        }
        route
    }
}

/// Checks that there are rules for a split.
pub(super) fn carries(split: &Split) -> Result<(), Misfit> {
    split.header_routes().iter().try_for_each(|route| rules::headers(route).map(drop))
}

impl Route for HttpRoute {
    fn reads(&self) -> Vec<Target> {
        vec![self.target()]
    }

    fn set(&self, objects: &[Object], split: &Split) -> Result<Vec<Object>, Misfit> {
        Ok(vec![self.split_into(find(objects, &self.target())?, split)?])
    }

    fn clear(&self, objects: &[Object]) -> Vec<Object> {
        find(objects, &self.target()).map(|route| self.cleared(route, &[])).into_iter().collect()
    }

    fn share(&self, live: &[Object]) -> Percent {
        let Ok(route) = find(live, &self.target()) else { return Percent::default() };
        rules::References { route: self, affinity: None }.shared(list(&route.0["spec"], "rules"))
    }

    fn said(&self, live: &[Object]) -> Answer {
        find(live, &self.target()).map_or_else(|missing| Answer::NotYet(missing.0), parents::answer)
    }
}
