//! The Service beside one that people know: it sends to the other side, and is there only while there are two.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Services, Sided, Switch, narrowed, route::Routed};
use crate::core::{
    cluster::ObjectKey,
    manifest::Object,
    names::AppName,
    rollout::{labels, report::Reason, view::View},
};

/// Lists the Services that were made for another side.
pub(super) fn previews_of<'a>(app: &AppName, view: &'a View) -> impl Iterator<Item = &'a Object> {
    view.of_app(app, "Service").filter(|service| service.label(labels::PREVIEW_OF).is_some())
}

impl Switch<'_> {
    /// Returns whether the Services beside that another strategy made are gone: one route cannot share requests out between
    /// two pairs.
    pub(super) fn is_alone(&self) -> bool {
        let name = |preview: &Object| self.preview_name(preview.label(labels::PREVIEW_OF).unwrap_or_default());
        previews_of(self.app, self.view).all(|preview| preview.name() == name(preview))
    }

    /// Returns whether the Service of the other side may send to another version than until now: no router sends there.
    pub(super) fn may_change_sides(&self, preview: &Object, outcome: &mut Services) -> bool {
        let live = self.view.by_key(&preview.key());
        let changes = live.is_some_and(|live| live.label(labels::DIGEST) != preview.label(labels::DIGEST));
        let stable =
            ObjectKey { name: preview.label(labels::PREVIEW_OF).unwrap_or_default().to_owned(), ..preview.key() };
        !changes || self.clear && Routed::new(self, &stable, preview.name()).is_none_or(|routed| routed.clear(outcome))
    }

    /// Lists the Services of a side that is gone that a router may still send to.
    pub(super) fn still_routed(&self, wanted: &BTreeSet<ObjectKey>, outcome: &mut Services) -> Vec<ObjectKey> {
        let left = previews_of(self.app, self.view).filter(|preview| !wanted.contains(&preview.key()));
        let routed = left.filter(|preview| {
            let name = preview.label(labels::PREVIEW_OF).unwrap_or_default().to_owned();
            let stable = ObjectKey { name, ..preview.key() };
            Routed::new(self, &stable, preview.name()).is_some_and(|routed| !routed.clear(outcome))
        });
        routed.map(Object::key).collect()
    }

    /// Names the Service of the other side of a Service.
    pub(super) fn preview_name(&self, service: &str) -> String {
        match self.beside.preview_service {
            Some(name) => name.to_owned(),
            None => format!("{}-{}", service.get(..55).unwrap_or(service).trim_end_matches('-'), self.beside.suffix),
        }
    }

    /// Builds the Service by which people look at the new side.
    pub(super) fn preview(&self, one: &Sided<'_>, service: &Object) -> Object {
        let name = self.preview_name(service.name());
        let mut ports = service.at(&["spec", "ports"]).cloned().unwrap_or_default();
        for port in ports.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
        let preview = Object(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": service.namespace(),
                "labels": { labels::PREVIEW_OF: service.name() },
            },
            "spec": { "ports": ports, "selector": service.at(&["spec", "selector"]) },
        }));
        narrowed(&preview, self.app, &one.new_label())
    }

    pub(super) fn put_preview(&self, preview: Object, outcome: &mut Services) {
        let key = preview.key();
        let is_ours = |live: &Object| {
            live.label(labels::APP) == Some(self.app.as_str()) && live.label(labels::PREVIEW_OF).is_some()
        };
        if self.view.by_key(&key).is_some_and(|live| !is_ours(live)) {
            outcome.pending = true;
            let why = "it is somebody else's: name another previewService".to_owned();
            outcome.reasons.push(Reason::NotHealthy { object: format!("Service/{}", key.name), why });
            return;
        }
        self.put(preview, outcome);
    }
}
