//! Desired against live: what sending an object by server-side apply would change, and how a person sees it.
//!
//! The comparison is in memory and of owned fields only: an unchanged object costs the API server nothing.

mod owned;
mod quantity;
mod show;

pub use owned::{FieldChange, is_applied_by, owned_differs};
use serde_json::{Value, json};
pub use show::text_diff;

use super::{cluster::FIELD_MANAGER, manifest::Object};

/// Returns whether an object has to be applied: it differs in what we own, or we do not own it yet.
pub fn differs(desired: &Object, live: &Object) -> bool {
    !is_applied_by(live, FIELD_MANAGER) || !owned_differs(desired, live, FIELD_MANAGER).is_empty()
}

/// Returns whether a pod template that was written, not applied, is another than the live one.
pub fn template_differs(desired: &Value, live: &Value) -> bool {
    let wrap = |template: &Value| Object(json!({ "kind": "ReplicaSet", "spec": { "template": template } }));
    !owned_differs(&wrap(desired), &wrap(live), "").is_empty()
}
