//! What is asked of the API server before anything of a HEAD is put in place, so that what it would refuse half-way is
//! refused as a whole.
//!
//! Two things are known to be refused late: what the account in whose name an application is written may not do, and a
//! change of what cannot be changed once it is there. Everything else costs no request: an object that comes new is
//! asked about only as far as an account is named, and one that is there only where it differs in such a place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{action::Action, labels, objects::labelled, render::Render, view::View};
use crate::core::{
    cluster::{Access, Kind, ObjectKey, Write},
    diff,
    manifest::Object,
    names::AppName,
};

/// What the API server is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Questions {
    /// What the application's account must be allowed.
    pub rights: BTreeSet<Access>,
    /// Writes to try without doing them.
    pub trials: Vec<Trial>,
}

/// A write to try without doing it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The object.
    pub key: ObjectKey,
    /// Applies it.
    pub apply: Write,
    /// Makes it anew, where that is allowed: refused because it exists, or for what is wrong with it.
    pub anew: Option<Write>,
}

impl Questions {
    /// Returns whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.rights.is_empty() && self.trials.is_empty()
    }
}

/// Lists what is to be asked before `target` is put in place, and `gone` is removed.
pub fn questions(app: &AppName, target: &Render, gone: &BTreeSet<ObjectKey>, view: &View) -> Questions {
    let mut questions = Questions::default();
    let staged = target.workloads.values();
    // What is staged is never replaced: that would be every pod at once.
    let trials = target.objects.iter().map(|object| (object, is_replaceable(object)));
    for (object, replaceable) in trials.chain(staged.clone().map(|workload| (&workload.object, false))) {
        let wanted = labelled(object, app);
        if let Some(live) = view.by_key(&object.key()).filter(|live| may_be_refused(&wanted, live)) {
            let anew = replaceable.then(|| Write::Create { object: wanted.clone() });
            let apply = Action::apply(wanted, Some(live), true, "").write;
            questions.trials.push(Trial { key: object.key(), apply, anew });
        }
    }
    if target.application.service_account_name.is_none() {
        return questions;
    }
    let config = staged.clone().flat_map(|workload| &workload.config);
    for object in target.objects.iter().chain(staged.clone().map(|workload| &workload.object)).chain(config) {
        let is_there = view.by_key(&object.key()).is_some();
        let mut verbs = vec!["get", "patch"];
        verbs.extend((!is_there).then_some("create"));
        verbs.extend((is_there && is_replaceable(object)).then_some("delete"));
        questions.rights.extend(verbs.into_iter().map(|verb| to(verb, &object.kind(), &object.key())));
    }
    for workload in staged {
        let namespace = &workload.key.namespace;
        for (kind, verbs) in [
            (Kind::new("apps", "v1", "ReplicaSet"), &["create", "patch", "delete"][..]),
            (Kind::new("", "v1", "Pod"), &["patch", "delete"][..]),
        ] {
            questions.rights.extend(verbs.iter().map(|verb| Access {
                verb,
                kind: kind.clone(),
                namespace: namespace.clone(),
                name: None,
            }));
        }
    }
    for live in
        gone.iter().filter_map(|key| view.by_key(key)).filter(|live| live.label(labels::APP) == Some(app.as_str()))
    {
        questions.rights.insert(to("delete", &live.kind(), &live.key()));
    }
    let namespace = target.application.namespace.as_deref().unwrap_or("default");
    if view.get("", "Namespace", "", namespace).is_none() {
        let name = Some(namespace.to_owned());
        let kind = Kind::new("", "v1", "Namespace");
        questions.rights.insert(Access { verb: "create", kind, namespace: String::new(), name });
    }
    questions
}

fn to(verb: &'static str, kind: &Kind, key: &ObjectKey) -> Access {
    Access { verb, kind: kind.clone(), namespace: key.namespace.clone(), name: Some(key.name.clone()) }
}

/// Returns whether an object that was refused is deleted and made anew: it may hold what cannot be changed, and Git
/// allows it, or allowed it for what is there now.
pub(super) fn is_replaced(wanted: &Object, live: &Object) -> bool {
    (is_replaceable(wanted) || is_replaceable(live)) && may_be_refused(wanted, live)
}

fn is_replaceable(object: &Object) -> bool {
    object.at(&["metadata", "annotations", labels::REPLACE]).and_then(Value::as_str) == Some("true")
}

/// Returns whether applying `wanted` changes what may not be changed. Which fields those are the API server says; here
/// only what certainly can be changed is told from the rest, by `k8s.io/kubernetes/pkg/apis/*/validation`.
fn may_be_refused(wanted: &Object, live: &Object) -> bool {
    let kind = wanted.kind();
    let differs = |paths: &[&[&str]]| {
        let part = |object: &Object| {
            let mut part = Object(json!({ "kind": kind.kind, "apiVersion": kind.api_version() }));
            for path in paths {
                if let Some(value) = object.at(path) {
                    part.set(path, value.clone());
                }
            }
            part
        };
        !diff::owned_differs(&part(wanted), &part(live), "").is_empty()
    };
    let without = |fields: &[&str]| {
        let spec = |object: &Object| {
            let mut spec = object.0["spec"].clone();
            if let Some(spec) = spec.as_object_mut() {
                spec.retain(|name, _| !fields.contains(&name.as_str()));
            }
            Object(json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "spec": spec }))
        };
        !diff::owned_differs(&spec(wanted), &spec(live), "").is_empty()
    };
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "ConfigMap" | "Secret") => {
            live.0["immutable"] == true && diff::differs(wanted, live) || differs(&[&["type"]])
        }
        ("", "Service") => {
            differs(&[&["spec", "clusterIP"], &["spec", "clusterIPs"], &["spec", "ipFamilies"]])
                || differs(&[&["spec", "type"]])
                || differs(&[&["spec", "healthCheckNodePort"], &["spec", "loadBalancerClass"]])
        }
        ("apps", "Deployment" | "DaemonSet" | "ReplicaSet") => {
            wanted.at(&["spec", "selector"]) != live.at(&["spec", "selector"])
        }
        ("apps", "StatefulSet") => without(&[
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ]),
        ("batch", "Job") => without(&["parallelism", "suspend", "ttlSecondsAfterFinished", "activeDeadlineSeconds"]),
        ("", "PersistentVolumeClaim" | "PersistentVolume") => without(&[]),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            wanted.at(&["roleRef"]) != live.at(&["roleRef"])
        }
        ("" | "apps" | "batch" | "autoscaling" | "policy" | "networking.k8s.io" | "rbac.authorization.k8s.io", _) => {
            false
        }
        _ => diff::differs(wanted, live),
    }
}

/// Says what an account lacks, an object a line: `Secret/db in billing: ACCOUNT lacks create, patch`.
pub fn lacking(account: &str, refused: &[Access]) -> Vec<String> {
    let mut verbs: BTreeMap<(&Kind, &str, Option<&String>), Vec<&str>> = BTreeMap::new();
    for access in refused {
        verbs.entry((&access.kind, &access.namespace, access.name.as_ref())).or_default().push(access.verb);
    }
    let said = verbs.into_iter().map(|((kind, namespace, name), verbs)| {
        let what = match name {
            Some(name) => format!("{}/{name}", kind.kind),
            None => format!("its {}s", kind.kind),
        };
        let place = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
        format!("{what}{place}: {account} lacks {}", verbs.join(", "))
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, api: &str, rest: Value) -> Object {
        let mut object = Object(rest);
        object.set(&["kind"], json!(kind));
        object.set(&["apiVersion"], json!(api));
        object.set(&["metadata"], json!({"name": "checkout", "namespace": "shop"}));
        object
    }

    fn asks(kind: &str, api: &str, wanted: Value, live: Value) -> bool {
        may_be_refused(&object(kind, api, wanted), &object(kind, api, live))
    }

    #[test]
    fn what_can_always_be_changed_is_not_asked_about() {
        let image = |tag: &str| json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": {"spec": {"containers": [{"name": "a", "image": tag}]}}}});
        assert!(!asks("Deployment", "apps/v1", image("1"), image("2")));
        assert!(!asks("StatefulSet", "apps/v1", image("1"), image("2")));
        assert!(!asks("ConfigMap", "v1", json!({"data": {"a": "1"}}), json!({"data": {"a": "2"}})));
        let port =
            |port: u32| json!({"spec": {"ports": [{"port": port}], "clusterIP": "10.0.0.7", "type": "ClusterIP"}});
        assert!(!asks("Service", "v1", json!({"spec": {"ports": [{"port": 80}]}}), port(81)));
        assert!(!asks("NetworkPolicy", "networking.k8s.io/v1", json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}})));
    }

    #[test]
    fn what_may_be_immutable_is() {
        let selects = |app: &str| json!({"spec": {"selector": {"matchLabels": {"app": app}}}});
        assert!(asks("Deployment", "apps/v1", selects("a"), selects("b")));
        assert!(asks(
            "Service",
            "v1",
            json!({"spec": {"clusterIP": "None"}}),
            json!({"spec": {"clusterIP": "10.0.0.7"}})
        ));
        let claims = |size: &str| json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}}]}});
        assert!(asks("StatefulSet", "apps/v1", claims("1Gi"), claims("2Gi")));
        let job =
            |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}});
        assert!(asks("Job", "batch/v1", job("1"), job("2")));
        let binds = |role: &str| json!({"roleRef": {"kind": "Role", "name": role}});
        assert!(asks("RoleBinding", "rbac.authorization.k8s.io/v1", binds("a"), binds("b")));
        assert!(asks("ConfigMap", "v1", json!({"data": {"a": "1"}}), json!({"data": {"a": "2"}, "immutable": true})));
        assert!(
            asks("Widget", "example.com/v1", json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}})),
            "a rule of its own"
        );
    }

    #[test]
    fn what_an_account_lacks_is_told_an_object_a_line() {
        let secret = Kind::new("", "v1", "Secret");
        let access = |verb, name: Option<&str>| Access {
            verb,
            kind: secret.clone(),
            namespace: "billing".to_owned(),
            name: name.map(str::to_owned),
        };
        let refused = [access("create", Some("db")), access("patch", Some("db")), access("delete", None)];
        assert_eq!(
            lacking("system:serviceaccount:shop:deployer", &refused),
            [
                "its Secrets in billing: system:serviceaccount:shop:deployer lacks delete",
                "Secret/db in billing: system:serviceaccount:shop:deployer lacks create, patch",
            ]
        );
    }
}
