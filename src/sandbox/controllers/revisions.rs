//! ControllerRevisions: the templates that StatefulSets and DaemonSets have had.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{deployment::template_hash, pods};
use crate::sandbox::{cache::Cache, value, write::Write};

/// The label by which a pod names its revision.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// Returns the name of the revision of the workload's present template.
pub fn name_of_update(owner: &Value) -> String {
    format!("{}-{}", value::name(owner), hash_of_update(owner))
}

/// Returns the hash of the workload's present template.
pub fn hash_of_update(owner: &Value) -> String {
    let collisions = value::number(owner, &["status", "collisionCount"]);
    template_hash(&owner["spec"]["template"], collisions)
}

/// Returns the write that keeps the present template as a revision, where it is not kept yet.
pub fn keep(owner: &Value, cache: &Cache) -> Option<Write> {
    let name = name_of_update(owner);
    let namespace = value::namespace(owner);
    if cache.get("controllerrevisions.apps", namespace, &name).is_some() {
        return None;
    }
    let owned = cache.dependents(value::uid(owner)).filter_map(|key| cache.at(key));
    let revisions = owned.filter(|it| it["kind"] == "ControllerRevision");
    let last = revisions.map(|it| value::number(it, &["revision"])).max().unwrap_or_default();
    let mut template = owner["spec"]["template"].clone();
    let mut labels = value::texts(&template, &["metadata", "labels"]);
    labels.insert(HASH_LABEL.to_owned(), hash_of_update(owner));
    value::set(&mut template, &["$patch"], "replace");
    Some(Write::Create(json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name, "namespace": namespace, "labels": labels,
            "ownerReferences": [value::controller_reference(owner)],
        },
        "data": {"spec": {"template": template}},
        "revision": last + 1,
    })))
}

/// Builds a pod of the revision with a name; of the present template where that revision is not kept.
pub fn pod_of(owner: &Value, revision: &str, cache: &Cache) -> Value {
    let kept = cache.get("controllerrevisions.apps", value::namespace(owner), revision);
    let kept = kept.filter(|_| revision != name_of_update(owner));
    let template = kept.and_then(|it: &Arc<Value>| value::at(it, &["data", "spec", "template"]));
    let mut pod = pods::from_template(owner, template.unwrap_or(&owner["spec"]["template"]));
    let hash = revision.strip_prefix(&format!("{}-", value::name(owner))).unwrap_or(revision);
    value::set(&mut pod, &["metadata", "labels", HASH_LABEL], hash);
    pod
}
