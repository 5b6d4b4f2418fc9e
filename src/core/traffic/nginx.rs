//! ingress-nginx: a second Ingress with canary annotations.

use serde_json::{Map, Value, json};

use super::{
    Split,
    route::{Answer, Backends, Misfit, Route, Target, find, list},
    split::{Matcher, Subject},
};
use crate::core::{cluster::Kind, manifest::Object, policy::Percent};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const CLASS: &str = "kubernetes.io/ingress.class";

/// An Ingress whose paths go to the Service of the side that serves.
///
/// It stays as it is: beside it stands `<name>-canary`, the same paths to the other side's Service, with the canary
/// annotations that ingress-nginx reads: a weight, and one header route at most.
///
/// Nothing in the API says what ingress-nginx has read: objects as they should be are taken for a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryIngress {
    /// Its namespace.
    pub namespace: String,
    /// The name of the people's Ingress.
    pub name: String,
    /// The two Services.
    pub backends: Backends,
}

/// Returns the name of the Ingress that stands beside the people's.
pub fn canary_of(ingress: &str) -> String {
    format!("{ingress}-canary")
}

impl CanaryIngress {
    fn own(&self) -> Target {
        self.target(&self.name)
    }

    fn beside(&self) -> Target {
        self.target(&canary_of(&self.name))
    }

    fn target(&self, name: &str) -> Target {
        Target::new(Kind::new("networking.k8s.io", "v1", "Ingress"), &self.namespace, name)
    }

    fn is_stable(&self, backend: &Value) -> bool {
        self.namespace == self.backends.namespace && backend["service"]["name"] == json!(self.backends.stable)
    }

    fn canary(&self, ingress: &Object, split: &Split) -> Result<Object, Misfit> {
        let mut spec = json!({});
        if let Some(class) = ingress.at(&["spec", "ingressClassName"]) {
            spec["ingressClassName"] = class.clone();
        }
        let rules: Vec<Value> = list(&ingress.0["spec"], "rules").iter().filter_map(|rule| self.rule(rule)).collect();
        if rules.is_empty() {
            return Err(Misfit(format!("no path goes to the Service {}", self.backends.stable)));
        }
        spec["rules"] = Value::Array(rules);
        // Those of other controllers (certificates, names) are about the host, which has its Ingress already.
        let kept =
            |name: &str| name == CLASS || name.starts_with(PREFIX) && !name[PREFIX.len()..].starts_with("canary");
        let annotations = ingress.at(&["metadata", "annotations"]).and_then(Value::as_object);
        let mut annotations: Map<String, Value> =
            annotations.cloned().unwrap_or_default().into_iter().filter(|(name, _)| kept(name)).collect();
        for (name, value) in told(split)? {
            annotations.insert(format!("{PREFIX}{name}"), json!(value));
        }
        Ok(Object(json!({
            "apiVersion": ingress.0["apiVersion"],
            "kind": "Ingress",
            "metadata": {
                "name": canary_of(&self.name),
                "namespace": self.namespace,
                "annotations": annotations,
            },
            "spec": spec,
        })))
    }

    /// Returns a rule's paths that go to the side that serves, as paths to the other side; `None` without any.
    fn rule(&self, rule: &Value) -> Option<Value> {
        let serving = list(&rule["http"], "paths").iter().filter(|path| self.is_stable(&path["backend"]));
        let paths: Vec<Value> = serving
            .map(|path| {
                let mut path = path.clone();
                path["backend"]["service"]["name"] = json!(self.backends.canary);
                path
            })
            .collect();
        let mut rule = rule.clone();
        rule["http"]["paths"] = json!(paths);
        (!paths.is_empty()).then_some(rule)
    }
}

/// Checks that there are annotations for a split.
pub(super) fn carries(split: &Split) -> Result<(), Misfit> {
    told(split).map(drop)
}

/// Returns the canary annotations of a split. Fails where ingress-nginx has none for it.
fn told(split: &Split) -> Result<Vec<(&'static str, String)>, Misfit> {
    let cannot = |what: &str| Err(Misfit(format!("ingress-nginx {what}")));
    if split.mirror.is_some_and(|share| share.get() > 0) {
        return cannot("copies requests to an address, not to a Service: `setMirror` needs another router");
    }
    if split.affinity.is_some() {
        return cannot("keeps clients by its own `affinity` annotations: `sessionAffinity` needs another router");
    }
    let mut told = vec![("canary", "true".to_owned()), ("canary-weight", split.weight.get().to_string())];
    let one = match split.headers.as_slice() {
        [] => return Ok(told),
        [route] => match route.matches.as_slice() {
            [one] => one,
            _ => return cannot("looks at one header or cookie, not at several"),
        },
        _ => return cannot("has one header route at most"),
    };
    match (&one.subject, &one.value) {
        (Subject::Header(name), Matcher::Exact(text)) => {
            told.extend([("canary-by-header", name.clone()), ("canary-by-header-value", text.clone())]);
        }
        (Subject::Header(name), value) => {
            told.extend([("canary-by-header", name.clone()), ("canary-by-header-pattern", value.anchored())]);
        }
        (Subject::Cookie(name), Matcher::Exact(text)) if text == "always" => {
            told.push(("canary-by-cookie", name.clone()));
        }
        (Subject::Cookie(_), _) => return cannot("takes a cookie for a yes when its value is `always`, and no other"),
    }
    Ok(told)
}

impl Route for CanaryIngress {
    fn reads(&self) -> Vec<Target> {
        vec![self.own()]
    }

    fn makes(&self) -> Vec<Target> {
        vec![self.beside()]
    }

    fn set(&self, objects: &[Object], split: &Split) -> Result<Vec<Object>, Misfit> {
        let ingress = find(objects, &self.own())?;
        let canary = self.canary(ingress, split);
        Ok(vec![ingress.clone(), canary.map_err(|why| Misfit(format!("{}: {why}", self.own())))?])
    }

    fn clear(&self, objects: &[Object]) -> Vec<Object> {
        find(objects, &self.own()).into_iter().cloned().collect()
    }

    fn share(&self, live: &[Object]) -> Percent {
        let weight = find(live, &self.beside()).ok().and_then(|canary| {
            canary.annotation(&format!("{PREFIX}canary-weight"))?.parse::<u8>().ok().and_then(Percent::new)
        });
        weight.unwrap_or_default()
    }

    fn said(&self, _live: &[Object]) -> Answer {
        Answer::Yes
    }
}
