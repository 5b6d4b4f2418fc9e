//! Workloads, the configuration that their pods read, and what a change of a pod template means for running pods.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Object, canonical_digest};
use crate::core::{
    cluster::{Kind, ObjectKey},
    names::Digest,
};

/// A ConfigMap or Secret that a pod template reads; in the workload's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigReference {
    /// `ConfigMap` or `Secret`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// A render, taken apart into what goes stage by stage and what is applied at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    /// Workloads whose pods go stage by stage.
    pub workloads: Vec<StagedWorkload>,
    /// Everything else, in the render's order: without the configuration that only staged workloads read.
    pub others: Vec<Object>,
}

/// One workload whose pods go stage by stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StagedWorkload {
    /// The workload, its template reading the versioned configuration.
    pub object: Object,
    /// The configuration that its template reads, under its versioned names.
    pub configuration: Vec<Object>,
    /// The SHA-256 of template and configuration: what is staged, and what a slice carries.
    pub digest: Digest,
}

impl StagedWorkload {
    /// Returns what identifies the workload.
    pub fn key(&self) -> ObjectKey {
        self.object.key()
    }

    /// Returns the pod template, reading the versioned configuration.
    pub fn template(&self) -> &Value {
        self.object.at(&["spec", "template"]).unwrap_or(&Value::Null)
    }
}

/// Returns whether an object is a workload whose pods go in slices, which are placed unit by unit.
pub fn is_sliced(object: &Object) -> bool {
    object.kind() == Kind::new("apps", "v1", "Deployment")
}

/// Returns the pod template of a workload of any kind, and a Pod itself.
pub fn pod_template(object: &Object) -> Option<&Value> {
    let path: &[&str] = match object.text(&["kind"]) {
        "Pod" => &[],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            &["spec", "template"]
        }
        _ => return None,
    };
    object.at(path)
}

/// Takes a render apart: `is_staged` says which workloads' pods go stage by stage. Configuration that a staged template
/// reads and that is in the render gets a name that holds its content's hash, so that it moves with the pods;
/// configuration from elsewhere is read as it is.
pub fn stage(objects: &[Object], is_staged: &dyn Fn(&Object) -> bool) -> Staged {
    let configuration: BTreeMap<(ConfigReference, &str), &Object> =
        objects.iter().filter_map(|object| Some(((configuration_name(object)?, object.namespace()), object))).collect();
    let read_elsewhere: BTreeSet<(ConfigReference, &str)> = objects
        .iter()
        .filter(|object| !is_staged(object))
        .flat_map(|object| {
            let references = pod_template(object).map(config_references).unwrap_or_default();
            references.into_iter().map(|reference| (reference, object.namespace()))
        })
        .collect();
    let mut moved: BTreeSet<(ConfigReference, &str)> = BTreeSet::new();
    let mut workloads = Vec::new();
    for object in objects.iter().filter(|object| is_staged(object)) {
        let references = pod_template(object).map(config_references).unwrap_or_default();
        let known = references.into_iter().map(|reference| (reference, object.namespace()));
        let read: BTreeMap<ConfigReference, Versioned> = known
            .filter_map(|key| {
                let versioned = versioned(configuration.get(&key)?);
                let reference = key.0.clone();
                moved.insert(key);
                Some((reference, versioned))
            })
            .collect();
        workloads.push(staged_workload(object, &read));
    }
    let is_moved = |object: &&Object| {
        configuration_name(object).is_some_and(|reference| {
            let key = (reference, object.namespace());
            moved.contains(&key) && !read_elsewhere.contains(&key)
        })
    };
    let others = objects.iter().filter(|object| !is_staged(object) && !is_moved(object)).cloned().collect();
    Staged { workloads, others }
}

/// A ConfigMap or Secret under its versioned name.
struct Versioned {
    object: Object,
    /// The SHA-256 of what pods can read of it: not of its labels.
    content: Digest,
}

fn staged_workload(object: &Object, read: &BTreeMap<ConfigReference, Versioned>) -> StagedWorkload {
    let mut object = object.clone();
    if let Some(template) = object.0.pointer_mut("/spec/template") {
        visit_references(template, &mut |kind, name| {
            let reference = ConfigReference { kind, name: name.clone() };
            if let Some(versioned) = read.get(&reference) {
                versioned.object.name().clone_into(name);
            }
        });
    }
    let template = object.at(&["spec", "template"]).unwrap_or(&Value::Null);
    let contents: Vec<&Digest> = read.values().map(|versioned| &versioned.content).collect();
    let digest = canonical_digest(&json!({"template": template, "configuration": contents}));
    let configuration = read.values().map(|versioned| versioned.object.clone()).collect();
    StagedWorkload { object, configuration, digest }
}

fn configuration_name(object: &Object) -> Option<ConfigReference> {
    let kind = match (object.text(&["apiVersion"]), object.text(&["kind"])) {
        ("v1", "ConfigMap") => "ConfigMap",
        ("v1", "Secret") => "Secret",
        _ => return None,
    };
    Some(ConfigReference { kind, name: object.name().to_owned() })
}

/// Returns a ConfigMap or Secret under a name that ends in eight digits of its content's hash.
fn versioned(object: &Object) -> Versioned {
    /// An object's name has at most 253 characters; nine are ours.
    const LONGEST: usize = 253 - 9;
    let content: BTreeMap<&str, &Value> = ["type", "data", "binaryData", "stringData"]
        .into_iter()
        .filter_map(|field| Some((field, object.at(&[field])?)))
        .collect();
    let content = canonical_digest(&json!(content));
    let name = object.name();
    let name = format!("{}-{}", name.get(..LONGEST).unwrap_or(name), content.short());
    let mut object = object.clone();
    object.set(&["metadata", "name"], Value::String(name));
    Versioned { object, content }
}

/// Returns a staged pod template as it is without stages: reading configuration by its plain names.
pub fn plain_names(template: &Value, configuration: &[Object]) -> Value {
    let mut template = template.clone();
    visit_references(&mut template, &mut |kind, name| {
        let is_it = |object: &&Object| object.text(&["kind"]) == kind && object.name() == name.as_str();
        if configuration.iter().any(|object| is_it(&object)) {
            name.truncate(plain_name(name).len());
        }
    });
    template
}

/// Returns a versioned name without the hyphen and eight digits of its content's hash.
fn plain_name(versioned: &str) -> &str {
    versioned.get(..versioned.len().saturating_sub(9)).unwrap_or(versioned)
}

/// Says why pods of one staged template cannot become those of another in place, each with the configuration that it
/// reads; `None` when they can. Configuration is called by the name that a person gave it: the path at which a template
/// reads it is as it was.
pub fn obstacle_to_in_place(before: (&Value, &[Object]), after: (&Value, &[Object])) -> Option<String> {
    let PodChange::Recreate(paths) = pod_change(before.0, after.0) else { return None };
    let mut why = configuration_changes(before.1, after.1);
    match pod_change(&plain_names(before.0, before.1), &plain_names(after.0, after.1)) {
        PodChange::Recreate(paths) => why.extend(paths),
        PodChange::None | PodChange::InPlace(_) if why.is_empty() => why = paths,
        PodChange::None | PodChange::InPlace(_) => {}
    }
    Some(why.join(", "))
}

/// Names what of the configuration of a workload differs, never how: `Secret keys changed`.
fn configuration_changes(before: &[Object], after: &[Object]) -> Vec<String> {
    let named = |all: &[Object]| -> BTreeMap<String, String> {
        let name = |object: &Object| format!("{} {}", object.key().kind, plain_name(object.name()));
        all.iter().map(|object| (name(object), object.name().to_owned())).collect()
    };
    let (before, after) = (named(before), named(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let change = |name: &String| match (before.get(name), after.get(name)) {
        (Some(before), Some(after)) => (before != after).then(|| format!("{name} changed")),
        (Some(_), None) => Some(format!("{name} taken away")),
        (None, _) => Some(format!("{name} added")),
    };
    names.into_iter().filter_map(change).collect()
}

/// Returns the ConfigMaps and Secrets that a pod template reads: from `envFrom`, `env`, volumes and projected volumes.
/// Pull secrets are read by the node, not by the pod.
pub fn config_references(template: &Value) -> BTreeSet<ConfigReference> {
    let mut found = BTreeSet::new();
    // Visiting in place needs a copy; templates are small and this runs once a render.
    visit_references(&mut template.clone(), &mut |kind, name| {
        found.insert(ConfigReference { kind, name: name.clone() });
    });
    found
}

/// Calls `visit` with the kind and name of every reference to a ConfigMap or Secret.
fn visit_references(template: &mut Value, visit: &mut impl FnMut(&'static str, &mut String)) {
    let Some(spec) = template.get_mut("spec") else { return };
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec.get_mut(list)) {
            for source in items(container.get_mut("envFrom")) {
                visit_named(source.get_mut("configMapRef"), "ConfigMap", "name", visit);
                visit_named(source.get_mut("secretRef"), "Secret", "name", visit);
            }
            for variable in items(container.get_mut("env")) {
                let Some(source) = variable.get_mut("valueFrom") else { continue };
                visit_named(source.get_mut("configMapKeyRef"), "ConfigMap", "name", visit);
                visit_named(source.get_mut("secretKeyRef"), "Secret", "name", visit);
            }
        }
    }
    for volume in items(spec.get_mut("volumes")) {
        visit_named(volume.get_mut("configMap"), "ConfigMap", "name", visit);
        visit_named(volume.get_mut("secret"), "Secret", "secretName", visit);
        for source in items(volume.get_mut("projected").and_then(|projected| projected.get_mut("sources"))) {
            visit_named(source.get_mut("configMap"), "ConfigMap", "name", visit);
            visit_named(source.get_mut("secret"), "Secret", "name", visit);
        }
    }
}

fn items(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

fn visit_named(
    source: Option<&mut Value>,
    kind: &'static str,
    field: &str,
    visit: &mut impl FnMut(&'static str, &mut String),
) {
    if let Some(Value::String(name)) = source.and_then(|source| source.get_mut(field)) {
        visit(kind, name);
    }
}

/// What going from one pod template to another means for a running pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodChange {
    /// Nothing: the templates are the same.
    None,
    /// Only images of containers and sidecars differ: they can be patched on the live pod.
    InPlace(Vec<ImageChange>),
    /// Something else differs too: the pod is recreated. Says what, as paths and words for a person.
    Recreate(Vec<String>),
}

/// One image that changes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImageChange {
    /// Which list the container is in: `containers` or, for sidecars, `initContainers`.
    pub list: &'static str,
    /// The container's name.
    pub container: String,
    /// The image now.
    pub from: String,
    /// The image that is wanted.
    pub to: String,
}

/// Compares two pod templates. A running pod takes new images of its containers and sidecars; ordinary init containers
/// do not run again, and everything else it refuses or would not notice.
pub fn pod_change(from: &Value, to: &Value) -> PodChange {
    if from == to {
        return PodChange::None;
    }
    let mut images = Vec::new();
    let mut why = Vec::new();
    differences(from, to, &[], "spec", &mut why);
    let (from, to) = (&from["spec"], &to["spec"]);
    differences(from, to, &["containers", "initContainers"], "", &mut why);
    for list in ["containers", "initContainers"] {
        compare_containers(list, &from[list], &to[list], &mut images, &mut why);
    }
    if why.is_empty() { PodChange::InPlace(images) } else { PodChange::Recreate(why) }
}

/// Notes the members that differ, but for some; `skip` names one more, which is compared on its own.
fn differences(from: &Value, to: &Value, but: &[&str], skip: &str, why: &mut Vec<String>) {
    let empty = serde_json::Map::new();
    let (from, to) = (from.as_object().unwrap_or(&empty), to.as_object().unwrap_or(&empty));
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let changed = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    why.extend(changed.filter(|name| *name != skip && !but.contains(&name.as_str())).cloned());
}

fn compare_containers(
    list: &'static str,
    from: &Value,
    to: &Value,
    images: &mut Vec<ImageChange>,
    why: &mut Vec<String>,
) {
    let empty = Vec::new();
    let (from, to) = (from.as_array().unwrap_or(&empty), to.as_array().unwrap_or(&empty));
    let names = |list: &[Value]| list.iter().map(|container| container["name"].clone()).collect::<Vec<_>>();
    if names(from) != names(to) {
        why.push(list.to_owned());
        return;
    }
    for (from, to) in from.iter().zip(to) {
        let name = to["name"].as_str().unwrap_or_default();
        let mut changed = Vec::new();
        differences(from, to, &["image"], "", &mut changed);
        why.extend(changed.into_iter().map(|field| format!("{list}/{name}/{field}")));
        let (old, new) = (from["image"].as_str().unwrap_or_default(), to["image"].as_str().unwrap_or_default());
        if old == new {
            continue;
        }
        if list == "initContainers" && to["restartPolicy"] != "Always" {
            why.push(format!("{list}/{name}/image"));
        } else if pull_policy(from) != pull_policy(to) && from["imagePullPolicy"] == to["imagePullPolicy"] {
            why.push(format!("{list}/{name}/imagePullPolicy (defaulted from the image's tag)"));
        } else {
            images.push(ImageChange { list, container: name.to_owned(), from: old.to_owned(), to: new.to_owned() });
        }
    }
}

/// Returns the pull policy that the API server gives a container: `Always` for `:latest` and for no tag.
fn pull_policy(container: &Value) -> &str {
    if let Some(policy) = container["imagePullPolicy"].as_str() {
        return policy;
    }
    let image = container["image"].as_str().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or(image);
    let is_latest = !last.contains('@') && last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    if is_latest { "Always" } else { "IfNotPresent" }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn deployment(name: &str, template: Value) -> Object {
        Object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"template": {"spec": template}},
        }))
    }

    fn config(kind: &str, name: &str, value: &str) -> Object {
        let data = json!({"key": value});
        let metadata = json!({"name": name, "namespace": "shop"});
        Object(json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}))
    }

    fn reads_all() -> Value {
        json!({
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "init", "envFrom": [{"secretRef": {"name": "a"}}]}],
            "containers": [{
                "name": "app",
                "envFrom": [{"configMapRef": {"name": "b"}}],
                "env": [
                    {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "key"}}},
                    {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "key"}}},
                    {"name": "Z", "value": "1"},
                ],
            }],
            "volumes": [
                {"name": "e", "configMap": {"name": "e"}},
                {"name": "f", "secret": {"secretName": "f"}},
                {"name": "g", "projected": {"sources": [{"configMap": {"name": "g"}}, {"secret": {"name": "h"}}]}},
                {"name": "i", "emptyDir": {}},
            ],
        })
    }

    #[test]
    fn everything_that_a_pod_reads_is_found() {
        let found: Vec<String> = config_references(&json!({"spec": reads_all()}))
            .into_iter()
            .map(|reference| format!("{}/{}", reference.kind, reference.name))
            .collect();
        let expected = [
            "ConfigMap/b",
            "ConfigMap/c",
            "ConfigMap/e",
            "ConfigMap/g",
            "Secret/a",
            "Secret/d",
            "Secret/f",
            "Secret/h",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn configuration_moves_with_the_pods() {
        let template = json!({"containers": [{"name": "app", "envFrom": [{"configMapRef": {"name": "settings"}}]}]});
        let web = deployment("web", template.clone());
        let before = stage(&[config("ConfigMap", "settings", "1"), web.clone()], &is_sliced);
        let after = stage(&[config("ConfigMap", "settings", "2"), web], &is_sliced);
        assert_eq!(before.others, []);
        let (before, after) = (&before.workloads[0], &after.workloads[0]);
        assert_ne!(before.digest, after.digest);
        let name = before.configuration[0].name().to_owned();
        assert_eq!(name.len(), "settings-".len() + 8);
        assert_eq!(before.template()["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"], name);
        assert_ne!(name, after.configuration[0].name());
        assert_eq!(
            pod_change(before.template(), after.template()),
            PodChange::Recreate(vec!["containers/app/envFrom".to_owned()])
        );
        assert_eq!(why_not(before, after).unwrap(), "ConfigMap settings changed");
    }

    /// Why pods of one staged workload cannot become those of another in place.
    fn why_not(before: &StagedWorkload, after: &StagedWorkload) -> Option<String> {
        obstacle_to_in_place((before.template(), &before.configuration), (after.template(), &after.configuration))
    }

    #[test]
    fn who_changes_configuration_is_told_its_name_and_never_what_is_in_it() {
        let reads = |image: &str, keys: &str| {
            let container = json!({"name": "app", "image": image, "envFrom": [{"configMapRef": {"name": "settings"}}]});
            deployment(
                "web",
                json!({"containers": [container], "volumes": [{"name": "v", "secret": {"secretName": keys}}]}),
            )
        };
        let staged = |web: &Object, settings: &str, keys: &[(&str, &str)]| {
            let mut all = vec![web.clone(), config("ConfigMap", "settings", settings)];
            all.extend(keys.iter().map(|(name, value)| config("Secret", name, value)));
            stage(&all, &is_sliced).workloads.remove(0)
        };
        let web = reads("web:1", "keys");
        let before = staged(&web, "1", &[("keys", "old")]);
        let why = |after: &StagedWorkload| why_not(&before, after);
        assert_eq!(why(&before), None);
        assert_eq!(why(&staged(&reads("web:2", "keys"), "1", &[("keys", "old")])), None);
        assert_eq!(why(&staged(&web, "1", &[("keys", "new")])).unwrap(), "Secret keys changed");
        let both = staged(&reads("web:2", "keys"), "2", &[("keys", "new")]);
        assert_eq!(why(&both).unwrap(), "ConfigMap settings changed, Secret keys changed");
        let another = staged(&reads("web:1", "others"), "1", &[("keys", "old"), ("others", "old")]);
        assert_eq!(why(&another).unwrap(), "Secret keys taken away, Secret others added, volumes");
        assert_eq!(why(&staged(&web, "1", &[])).unwrap(), "Secret keys taken away");
    }

    #[test]
    fn configuration_that_others_read_too_also_stays() {
        let template = json!({"volumes": [{"name": "v", "secret": {"secretName": "keys"}}]});
        let job = Object(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "shop"},
            "spec": {"template": {"spec": template}},
        }));
        let staged = stage(&[config("Secret", "keys", "x"), job.clone(), deployment("web", template)], &is_sliced);
        assert_eq!(staged.others, [config("Secret", "keys", "x"), job]);
        assert_eq!(staged.workloads[0].configuration.len(), 1);
    }

    #[test]
    fn what_does_not_reach_the_pods_leaves_the_digest() {
        let template = json!({"containers": [{"name": "app", "image": "web:1"}]});
        let web = deployment("web", template);
        let digest = |object: &Object| stage(std::slice::from_ref(object), &is_sliced).workloads[0].digest;
        let mut changed = web.clone();
        changed.set(&["spec", "replicas"], json!(20));
        changed.set(&["metadata", "labels"], json!({"a": "b"}));
        assert_eq!(digest(&web), digest(&changed));
        changed.set(&["spec", "template", "metadata", "labels"], json!({"a": "b"}));
        assert_ne!(digest(&web), digest(&changed));
    }

    #[test]
    fn only_images_of_containers_and_sidecars_change_in_place() {
        let template = |image: &str, init: &str, sidecar: &str| {
            json!({"spec": {
                "containers": [{"name": "app", "image": image}],
                "initContainers": [
                    {"name": "init", "image": init},
                    {"name": "proxy", "image": sidecar, "restartPolicy": "Always"},
                ],
            }})
        };
        let from = template("web:1", "init:1", "proxy:1");
        assert_eq!(pod_change(&from, &from), PodChange::None);
        let PodChange::InPlace(images) = pod_change(&from, &template("web:2", "init:1", "proxy:2")) else {
            unreachable!("two images changed")
        };
        let changed: Vec<(&str, &str)> = images.iter().map(|image| (image.list, image.to.as_str())).collect();
        assert_eq!(changed, [("containers", "web:2"), ("initContainers", "proxy:2")]);

        let recreate = |to: &Value| match pod_change(&from, to) {
            PodChange::Recreate(why) => why.join(", "),
            other => unreachable!("{other:?}"),
        };
        assert_eq!(recreate(&template("web:1", "init:2", "proxy:1")), "initContainers/init/image");
        assert_eq!(
            recreate(&template("web:latest", "init:1", "proxy:1")),
            "containers/app/imagePullPolicy (defaulted from the image's tag)"
        );
        let mut to = from.clone();
        to["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "b"}]);
        to["metadata"] = json!({"labels": {"a": "b"}});
        to["spec"]["nodeSelector"] = json!({"a": "b"});
        assert_eq!(recreate(&to), "metadata, nodeSelector, containers/app/env");
        let mut to = from.clone();
        to["spec"]["containers"] = json!([]);
        assert_eq!(recreate(&to), "containers");
    }

    #[test]
    fn a_pull_policy_is_defaulted_as_the_api_server_does() {
        for (image, expected) in [
            ("web", "Always"),
            ("web:latest", "Always"),
            ("host:5000/web", "Always"),
            ("host:5000/web:1", "IfNotPresent"),
            ("web@sha256:00", "IfNotPresent"),
            ("web:latest@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(&json!({"image": image})), expected, "{image}");
        }
    }
}
