//! What is to be regrouped, as the cluster shows it: ReplicaSets that are no fitting slices, and pods that nothing owns.

use std::collections::BTreeMap;

use crate::core::{
    cluster::ObjectKey,
    manifest::{Object, strings},
    names::{AppName, Unit},
    rollout::{
        labels,
        observe::{is_finished, is_owned_by},
        view::View,
    },
};

/// Returns whether a handle was last written by a rollout that staged: it is paused while it owns nothing, and carries
/// notes. Without a policy it is a Deployment like any other.
pub(super) fn is_handle(deployment: &Object) -> bool {
    deployment.annotation(labels::ROLLOUT).is_some()
}

/// Returns whether a Deployment's pods are being regrouped.
pub(super) fn is_marked(deployment: &Object) -> bool {
    deployment.annotation(labels::REGROUPING).is_some()
}

/// Returns `spec.replicas`.
pub(super) fn replicas(set: &Object) -> u32 {
    set.number(&["spec", "replicas"]).and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

/// Returns whether a ReplicaSet is a slice as the topology wants it: told apart as a slice, and pinned to its unit.
pub(super) fn fits(set: &Object, unit_type: Option<&str>) -> bool {
    let unit = set.label(labels::UNIT);
    set.label(labels::SLICE).is_some()
        && match unit_type {
            None => unit.is_none(),
            Some(unit_type) => {
                let pinned = set.at(&["spec", "template", "spec", "nodeSelector", unit_type]);
                unit.is_some() && pinned.and_then(|pinned| pinned.as_str()) == unit
            }
        }
}

/// A pod, and the unit of the node that it is on.
#[derive(Clone)]
pub(super) struct Placed<'a> {
    pub object: &'a Object,
    pub unit: Unit,
}

/// What is to be regrouped.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// ReplicaSets with pods, or that are to make some, that do not fit.
    pub misfits: Vec<&'a Object>,
    /// ReplicaSets without pods beside them that the Deployment would scale up once it owned nothing else.
    pub empty: Vec<&'a Object>,
    /// ReplicaSets that fit.
    pub slices: Vec<&'a Object>,
    /// The misfits' pods.
    pub pods: Vec<Placed<'a>>,
    /// Pods that nothing owns any more.
    pub loose: Vec<Placed<'a>>,
    /// A pod whose node is not known.
    pub unplaced: Option<&'a Object>,
    /// A pod whose owner is not there: it was seen last before that went.
    pub astray: Option<&'a Object>,
}

impl<'a> Found<'a> {
    /// Looks at a workload's ReplicaSets, and where any is to be regrouped at its pods. Only where the Deployment is no
    /// handle yet, or is being regrouped, the namespace is searched for what carries no label of ours.
    pub fn read(view: &'a View, app: &AppName, handle: &'a Object, unit_type: Option<&str>) -> Self {
        let mut found = Self::default();
        let name = labels::label_value(handle.name());
        let is_ours = |object: &Object| {
            object.label(labels::APP) == Some(app.as_str()) && object.label(labels::WORKLOAD) == Some(name.as_str())
        };
        let everywhere = !is_handle(handle) || is_marked(handle);
        let here = |kind: &'static str, group: &'static str| -> Vec<&'a Object> {
            match everywhere {
                true => view.in_namespace(group, kind, handle.namespace()).collect(),
                false => view.of_app(app, kind).filter(|one| one.namespace() == handle.namespace()).collect(),
            }
        };
        let mut own: Vec<&Object> = Vec::new();
        for set in here("ReplicaSet", "apps").into_iter().filter(|set| is_ours(set) || is_owned_by(set, handle)) {
            if fits(set, unit_type) {
                found.slices.push(set);
            } else if set.label(labels::SLICE).is_some() || everywhere {
                // Beside the slices of a handle, such a one is somebody's doing and no group of pods to keep.
                own.push(set);
            }
        }
        if own.is_empty() && !is_marked(handle) {
            return found;
        }
        let selector = strings(handle.at(&["spec", "selector", "matchLabels"]));
        let selected = |pod: &Object| {
            let labels = pod.labels();
            selector.iter().all(|(name, value)| labels.get(name) == Some(value))
                && labels.contains_key(labels::TEMPLATE_HASH)
        };
        let mut by_owner: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
        for pod in here("Pod", "").into_iter().filter(|pod| !pod.is_terminating() && !is_finished(pod)) {
            match pod.controller() {
                Some((_, _, owner)) => by_owner.entry(owner).or_default().push(pod),
                None if is_marked(handle) && (is_ours(pod) || selected(pod)) => {
                    let placed = found.placed(pod, view, unit_type);
                    found.loose.extend(placed);
                }
                None => {}
            }
        }
        for set in own {
            let pods = by_owner.remove(set.uid()).unwrap_or_default();
            if replicas(set) == 0 && pods.is_empty() {
                found.empty.push(set);
                continue;
            }
            found.misfits.push(set);
            for pod in pods {
                let placed = found.placed(pod, view, unit_type);
                found.pods.extend(placed);
            }
        }
        found.slices.iter().for_each(|set| drop(by_owner.remove(set.uid())));
        let left = by_owner.into_values().flatten();
        found.astray = left.into_iter().find(|pod| is_marked(handle) && is_ours(pod));
        found
    }

    /// Returns whether there is anything to do.
    pub fn is_nothing(&self) -> bool {
        self.misfits.is_empty() && self.empty.is_empty() && self.loose.is_empty()
    }

    fn placed(&mut self, pod: &'a Object, view: &View, unit_type: Option<&str>) -> Option<Placed<'a>> {
        let node = pod.text(&["spec", "nodeName"]);
        let unit = match unit_type {
            None => "",
            // It goes with those that are in no unit, and to one of the policy's from there.
            Some(_) if node.is_empty() => "",
            Some(unit_type) => {
                let key = ObjectKey {
                    group: String::new(),
                    kind: "Node".to_owned(),
                    namespace: String::new(),
                    name: node.to_owned(),
                };
                match view.by_key(&key) {
                    Some(node) => node.label(unit_type).unwrap_or_default(),
                    None => {
                        self.unplaced = Some(pod);
                        return None;
                    }
                }
            }
        };
        Some(Placed { object: pod, unit: Unit::new(unit) })
    }
}
