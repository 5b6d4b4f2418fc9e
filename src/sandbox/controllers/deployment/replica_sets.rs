//! The ReplicaSets of a Deployment: which is the new one, revisions, the hash of a template, history.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{max_surge, replicas, scale, status};
use crate::sandbox::{
    cache::Key,
    value,
    write::{Dependents, Write},
};

const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// One ReplicaSet of a Deployment.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) object: Arc<Value>,
    pub(super) replicas: i64,
}

impl Member {
    fn new(object: &Arc<Value>) -> Self {
        Self { object: object.clone(), replicas: value::number_or(object, &["spec", "replicas"], 1) }
    }

    pub(super) fn name(&self) -> &str {
        value::name(&self.object)
    }

    pub(super) fn status(&self, count: &str) -> i64 {
        value::number(&self.object, &["status", count])
    }

    fn revision(&self) -> i64 {
        self.annotated(REVISION).unwrap_or_default()
    }

    pub(super) fn desired_annotation(&self) -> Option<i64> {
        self.annotated(DESIRED)
    }

    pub(super) fn max_annotation(&self) -> Option<i64> {
        self.annotated(MAX)
    }

    fn annotated(&self, name: &str) -> Option<i64> {
        value::annotation(&self.object, name)?.parse().ok()
    }

    /// Returns the write that scales the set, with the annotations that say for what it was scaled.
    pub(super) fn scaled(&self, to: i64, deployment: &Value) -> Write {
        let mut object = Value::clone(&self.object);
        value::set(&mut object, &["spec", "replicas"], to);
        annotate_scale(&mut object, deployment);
        Write::Update(object)
    }

    /// Like [`Member::scaled`], where anything would change.
    pub(super) fn scaled_or_annotated(&self, to: i64, deployment: &Value) -> Option<Write> {
        let right = self.desired_annotation() == Some(replicas(deployment))
            && self.max_annotation() == Some(replicas(deployment) + max_surge(deployment));
        (self.replicas != to || !right).then(|| self.scaled(to, deployment))
    }
}

fn annotate_scale(set: &mut Value, deployment: &Value) {
    let annotations = value::object_mut(set, &["metadata", "annotations"]);
    annotations.insert(DESIRED.into(), replicas(deployment).to_string().into());
    annotations.insert(MAX.into(), (replicas(deployment) + max_surge(deployment)).to_string().into());
}

/// A Deployment's ReplicaSets: the one with its template, and the others, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) new: Option<Member>,
    pub(super) old: Vec<Member>,
}

impl Family {
    pub(super) fn new(deployment: &Value, sets: Vec<&Arc<Value>>) -> Self {
        let wanted = comparable(&deployment["spec"]["template"]);
        let mut old: Vec<Member> = sets.into_iter().map(Member::new).collect();
        old.sort_by(|a, b| {
            let order = |it: &Member| (value::created(&it.object), it.name().to_owned());
            order(a).cmp(&order(b))
        });
        let same = old.iter().position(|set| comparable(&set.object["spec"]["template"]) == wanted);
        let new = same.map(|at| old.remove(at));
        Self { new, old }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.old.iter().chain(&self.new)
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Member> {
        self.all().filter(|set| set.replicas > 0)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(Member::revision).max().unwrap_or_default() + 1
    }
}

/// A template without what differs between equal ones.
fn comparable(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    drop_empty(&mut template);
    template
}

fn drop_empty(value: &mut Value) {
    if let Value::Object(members) = value {
        members.values_mut().for_each(drop_empty);
        members.retain(|_, member| !member.is_null() && *member != json!({}));
    } else if let Value::Array(items) = value {
        items.iter_mut().filter(|item| item.is_object()).for_each(drop_empty_members);
    }
}

/// Members of list items count even when they are empty (`emptyDir: {}`), nulls never.
fn drop_empty_members(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
    }
}

/// Returns the stable hash of a template: the same for the same content, whatever order it was written in.
pub fn template_hash(template: &Value, collisions: i64) -> String {
    let mut text = comparable(template).to_string();
    if collisions > 0 {
        text.push_str(&collisions.to_string());
    }
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    // No vowels, and none of 0, 1 and 3: no bad words by accident.
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % 27])).collect()
}

fn hash_of(deployment: &Value) -> String {
    template_hash(&deployment["spec"]["template"], value::number(deployment, &["status", "collisionCount"]))
}

/// Returns the name that the new ReplicaSet will have.
pub(super) fn new_name(deployment: &Value) -> String {
    format!("{}-{}", value::name(deployment), hash_of(deployment))
}

/// Builds the ReplicaSet for the Deployment's template.
pub(super) fn new_set(deployment: &Value, family: &Family) -> Value {
    let hash = hash_of(deployment);
    let mut template = deployment["spec"]["template"].clone();
    value::set(&mut template, &["metadata", "labels", HASH_LABEL], hash.as_str());
    let mut selector = deployment["spec"]["selector"].clone();
    value::set(&mut selector, &["matchLabels", HASH_LABEL], hash.as_str());
    let mut annotations = copied_annotations(deployment);
    annotations.insert(REVISION.into(), family.next_revision().to_string());
    let mut set = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": new_name(deployment),
            "namespace": value::namespace(deployment),
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [value::controller_reference(deployment)],
        },
        "spec": {
            "replicas": scale::size_of_new(deployment, family, 0),
            "minReadySeconds": value::number(deployment, &["spec", "minReadySeconds"]),
            "selector": selector,
            "template": template,
        },
    });
    annotate_scale(&mut set, deployment);
    set
}

fn copied_annotations(deployment: &Value) -> BTreeMap<String, String> {
    let mut annotations = value::texts(deployment, &["metadata", "annotations"]);
    annotations.retain(|name, _| !NOT_COPIED.contains(&name.as_str()));
    annotations
}

/// Brings annotations, revision and `minReadySeconds` of the new ReplicaSet, then the Deployment's own revision, up to
/// date: the first write that is missing.
pub(super) fn sync_new(deployment: &Value, family: &Family, now: Timestamp) -> Option<Write> {
    let new = family.new.as_ref()?;
    let mut object = Value::clone(&new.object);
    let annotations = value::object_mut(&mut object, &["metadata", "annotations"]);
    annotations.extend(copied_annotations(deployment).into_iter().map(|(name, text)| (name, text.into())));
    let next = family.next_revision();
    if new.revision() < next {
        if new.revision() > 0 {
            let history = value::annotation(&new.object, REVISION_HISTORY);
            let history = history.map_or(new.revision().to_string(), |past| format!("{past},{}", new.revision()));
            annotations.insert(REVISION_HISTORY.into(), history.into());
        }
        annotations.insert(REVISION.into(), next.to_string().into());
    }
    if annotations.is_empty() {
        value::object_mut(&mut object, &["metadata"]).remove("annotations");
    }
    let min_ready = value::number(deployment, &["spec", "minReadySeconds"]);
    if value::number(&object, &["spec", "minReadySeconds"]) != min_ready {
        value::set(&mut object, &["spec", "minReadySeconds"], min_ready);
    }
    if object != *new.object {
        return Some(Write::Update(object));
    }
    let revision = value::annotation(&new.object, REVISION)?;
    if value::annotation(deployment, REVISION) != Some(revision) {
        let mut deployment = deployment.clone();
        value::set(&mut deployment, &["metadata", "annotations", REVISION], revision);
        // Through the status, as Kubernetes does it: this is no new generation.
        return Some(Write::Status(deployment));
    }
    status::found_condition(deployment, new.name(), now)
}

/// Deletes the oldest ReplicaSets without pods that go beyond `revisionHistoryLimit`.
pub(super) fn clean_up(deployment: &Value, family: &Family) -> Vec<Write> {
    let Some(limit) = value::at(deployment, &["spec", "revisionHistoryLimit"]).and_then(Value::as_u64) else {
        return Vec::new();
    };
    let mut sets: Vec<&Member> = family.old.iter().filter(|set| !value::is_terminating(&set.object)).collect();
    sets.sort_by_key(|set| set.revision());
    let surplus = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    let settled = |set: &&Member| {
        let seen = value::number(&set.object, &["status", "observedGeneration"]);
        set.replicas == 0
            && set.status("replicas") == 0
            && value::number(&set.object, &["metadata", "generation"]) <= seen
    };
    let gone = sets.into_iter().take(surplus).filter(settled);
    let delete = |set: &Member| Write::Delete {
        key: Key::of(&Arc::from("replicasets.apps"), &set.object),
        uid: value::uid(&set.object).to_owned(),
        dependents: Dependents::After,
        now: false,
    };
    gone.map(delete).collect()
}
