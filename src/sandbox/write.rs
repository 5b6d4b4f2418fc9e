//! What controllers and kubelet ask of an API server, as values.

use serde_json::Value;

use super::{cache::Key, value};

/// One request. Whole objects carry the resource version that they were decided on, so a stale one is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates an object.
    Create(Value),
    /// Replaces an object.
    Update(Value),
    /// Replaces an object's status.
    Status(Value),
    /// Binds a pod to a node.
    Bind {
        /// The pod.
        pod: Key,
        /// The pod's UID.
        uid: String,
        /// The node's name.
        node: String,
    },
    /// Deletes an object that was seen.
    Delete {
        /// Which object.
        key: Key,
        /// The UID that was seen.
        uid: String,
        /// What becomes of the dependents.
        dependents: Dependents,
        /// True for a pod whose containers have ended: it goes at once.
        now: bool,
    },
    /// Tells that a namespace is empty.
    Finalize(Value),
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// They go after it.
    After,
    /// They go before it.
    Before,
}

impl Write {
    /// Deletes an object, its dependents after it.
    pub fn delete(key: Key, object: &Value) -> Self {
        Self::Delete { key, uid: value::uid(object).to_owned(), dependents: Dependents::After, now: false }
    }

    /// Deletes a pod whose containers have ended.
    pub fn remove_pod(key: Key, object: &Value) -> Self {
        Self::Delete { key, uid: value::uid(object).to_owned(), dependents: Dependents::After, now: true }
    }

    /// Replaces an object's status by `status` where it differs.
    pub fn status(object: &Value, status: Value) -> Option<Self> {
        if object.get("status") == Some(&status) {
            return None;
        }
        let mut object = object.clone();
        value::set(&mut object, &["status"], status);
        Some(Self::Status(object))
    }
}
