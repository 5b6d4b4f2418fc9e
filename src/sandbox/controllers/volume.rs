//! PersistentVolumeClaims: every one is bound at once; nothing is stored.

use serde_json::json;

use super::{Change, Controller, Outcome, View};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

/// Binds volume claims.
#[derive(Debug, Default)]
pub struct VolumeController;

impl Controller for VolumeController {
    fn concerns(&mut self, change: &Change<'_>, _: &Cache) -> Vec<Key> {
        if change.is("persistentvolumeclaims") { change.key().into_iter().collect() } else { Vec::new() }
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(claim) = view.cache.at(key) else { return Outcome::default() };
        if value::is_terminating(claim) || value::text(claim, &["status", "phase"]) == "Bound" {
            return Outcome::default();
        }
        let status = json!({
            "phase": "Bound",
            "accessModes": claim["spec"]["accessModes"],
            "capacity": claim["spec"]["resources"]["requests"],
        });
        Write::status(claim, status).into_iter().collect()
    }
}
