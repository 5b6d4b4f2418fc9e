//! The readiness gate of a pod that has one: open while its label says that it is in service, closed otherwise. So it leaves
//! every EndpointSlice, also those of Services that others made, and comes back to them.
//!
//! The label is what is decided, and what a restart goes on from; the gate follows, whatever the policy says by now. One that
//! nobody has set yet is closed for Kubernetes: a pod that is born comes into service by being seen here.

use jiff::Timestamp;
use serde_json::json;

use crate::core::{
    cluster::{PatchType, Write},
    rollout::{action::Action, labels, observe::Pod},
};

/// Sets the gate of a pod where it is not as the pod's label says.
pub(super) fn follow(pod: &Pod<'_>, now: Timestamp) -> Option<Action> {
    pod.gate.filter(|gate| gate.open != pod.labelled)?;
    let (status, done) = if pod.labelled { ("True", "opened") } else { ("False", "closed") };
    let condition = json!({ "type": labels::GATE, "status": status, "lastTransitionTime": now.to_string() });
    let body = json!({ "status": { "conditions": [condition] } });
    let why = format!("{}: its readiness gate is {done}", pod.object.name());
    let mut action = Action::patch(pod.object, PatchType::Strategic, body, why);
    if let Write::Patch { subresource, .. } = &mut action.write {
        *subresource = Some("status".to_owned());
    }
    Some(action)
}
