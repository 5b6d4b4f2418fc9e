//! What is to be done to the cluster, decided and ready to be sent.

use serde::Serialize;
use serde_json::{Value, json};

use crate::core::{
    cluster::{PatchType, Write},
    manifest::Object,
    names::Digest,
};

/// One write, with the reason for it. The executor makes no choices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Action {
    /// What is sent.
    pub write: Write,
    /// Why, for logs: `checkout-dca-x2x9k: taken out of service`.
    pub why: String,
    /// At rest: the object that somebody changed and the state it was seen in, `Kind/name@state`. `None` for what
    /// needs no record of its own there.
    pub drift: Option<String>,
}

impl Action {
    /// Applies an object; `live` is what it was decided on.
    pub fn apply(mut object: Object, live: Option<&Object>, force: bool, why: impl Into<String>) -> Self {
        if let Some(live) = live {
            object.set(&["metadata", "resourceVersion"], json!(live.resource_version()));
            object.set(&["metadata", "uid"], json!(live.uid()));
        }
        let drift = Some(seen(&object, live));
        Self { write: Write::Apply { object, force, manager: None }, why: why.into(), drift }
    }

    /// Creates an object.
    pub fn create(object: Object, why: impl Into<String>) -> Self {
        Self { write: Write::Create { object }, why: why.into(), drift: None }
    }

    /// Patches what was seen, by a JSON merge patch.
    pub fn merge(live: &Object, body: Value, why: impl Into<String>) -> Self {
        Self::patch(live, PatchType::Merge, body, why)
    }

    /// Patches what was seen.
    pub fn patch(live: &Object, patch: PatchType, body: Value, why: impl Into<String>) -> Self {
        let write = Write::Patch {
            kind: live.kind(),
            key: live.key(),
            uid: live.uid().to_owned(),
            resource_version: Some(live.resource_version().to_owned()),
            patch,
            body,
            subresource: None,
        };
        Self { write, why: why.into(), drift: None }
    }

    /// Deletes what was seen.
    pub fn delete(live: &Object, orphan: bool, why: impl Into<String>) -> Self {
        let write = Write::Delete {
            kind: live.kind(),
            key: live.key(),
            uid: live.uid().to_owned(),
            resource_version: Some(live.resource_version().to_owned()),
            orphan,
        };
        Self { write, why: why.into(), drift: None }
    }

    /// Marks the action as putting back what somebody changed, in the state that does not change meanwhile.
    #[must_use]
    pub fn putting_back(mut self, object: &Object) -> Self {
        self.drift = Some(format!("{}/{}@{}", object.key().kind, object.name(), object.uid()));
        self
    }
}

/// Names an object and the state it was seen in.
pub(super) fn seen(object: &Object, live: Option<&Object>) -> String {
    let at = live.map_or_else(|| "absent".to_owned(), state);
    format!("{}/{}@{at}", object.key().kind, object.name())
}

/// Names the state of an object. What is covered by a record must be the same when it is done, and between the two the
/// object's controller writes a status, and a revision: neither makes another state. So where generations are counted
/// it is the generation, which every change of a spec raises, with labels and annotations.
fn state(live: &Object) -> String {
    let Some(generation) = live.number(&["metadata", "generation"]) else {
        return live.resource_version().to_owned();
    };
    let mut annotations = live.at(&["metadata", "annotations"]).and_then(Value::as_object).cloned().unwrap_or_default();
    annotations.retain(|name, _| !name.starts_with("deployment.kubernetes.io/"));
    let noted = json!([live.uid(), live.labels(), annotations]).to_string();
    format!("{generation}-{}", Digest::of(noted.as_bytes()).short())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(change: Value) -> Object {
        let mut object = Object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "checkout", "namespace": "shop", "uid": "u", "resourceVersion": "5", "generation": 2},
            "spec": {"replicas": 3},
        }));
        for (path, value) in change.as_object().into_iter().flatten() {
            let path: Vec<&str> = path.split('/').collect();
            object.set(&path, value.clone());
        }
        object
    }

    #[test]
    fn a_status_or_revision_written_meanwhile_is_no_other_state() {
        let state = |change| seen(&deployment(json!({})), Some(&deployment(change)));
        let before = state(json!({}));
        let noted = json!({"deployment.kubernetes.io/revision": "2"});
        assert_eq!(state(json!({"metadata/resourceVersion": "6", "status": {"replicas": 3}})), before);
        assert_eq!(state(json!({"metadata/resourceVersion": "6", "metadata/annotations": noted})), before);
        assert_ne!(state(json!({"metadata/generation": 3})), before);
        assert_ne!(state(json!({"metadata/labels": {"a": "b"}})), before);
        assert_ne!(state(json!({"metadata/uid": "v"})), before);
    }
}
