//! What the cluster should be, and the next writes towards it: the one path for going forward, back, resuming and
//! repairing alike.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    action::Action,
    handover,
    input::Admitted,
    labels,
    objects::{self, Means},
    observe::Observed,
    plan::{self, Method},
    quota::Counts,
    render::{Maker, Render, Workload},
    report::{Reason, UnitReport},
    services::{self, Services},
    sides::Former,
    strategy::{
        nodes,
        workload::{self, Task},
    },
    stray,
    view::View,
};
use crate::core::{
    ask::{Answers, Asking},
    cluster::{ObjectKey, PatchType},
    diff,
    ledger::Quota,
    manifest::Object,
    names::{AppName, RolloutId, Unit},
    policy::{Drift, RolloutPolicy},
    traffic::{Split, haproxy::Telling},
};

/// Where the cluster is to go.
pub struct Course<'a> {
    /// The rollout, which names slices.
    pub rollout: &'a RolloutId,
    /// The side that is gone to; `None` is nothing.
    pub new: Option<&'a Render>,
    /// The side that pods beyond the quota stay on.
    pub old: Option<&'a Render>,
    /// The policy that stages; `None` applies everything as it is.
    pub policy: Option<&'a RolloutPolicy>,
    /// The policy that pods were staged by, where they are given back.
    pub staged_by: Option<&'a RolloutPolicy>,
    /// The policies by which rollouts before told another router: it gives everything back first.
    pub former: Vec<Former<'a>>,
    /// How the plan changes each workload: what ran before there was a stable version stays as it is.
    pub methods: Option<&'a BTreeMap<String, Method>>,
    /// How many pods may be at `new`, by workload and unit; `None` is all.
    pub quota: Option<&'a Quota>,
    /// The units' totals that were recorded, by workload.
    pub totals: &'a Quota,
    /// The share of the traffic that goes to `new`, where traffic is shared otherwise than by the number of pods.
    pub split: Option<Split>,
    /// Whether everything is to end at `new`.
    pub last: bool,
    /// Going back: pods before objects, and drains end after this long.
    pub drain_at_most: Option<SignedDuration>,
    /// Whether no pod may start to move.
    pub still: bool,
    /// The stage, for people who look at the handle.
    pub stage: Option<String>,
    /// The application that was renamed to this one: its pods are taken over first.
    pub inherits: Option<&'a AppName>,
    /// Whether another application renders an object at HEAD.
    pub handed_over: &'a dyn Fn(&ObjectKey) -> bool,
    /// Objects that the API server refused for what they are, and its words. Going back, they are not waited for.
    pub refused: &'a BTreeMap<ObjectKey, String>,
    /// Objects of which the API server made something else when they were last sent.
    pub admitted: &'a BTreeMap<ObjectKey, Admitted>,
    /// What the outside answered to what was asked.
    pub answers: &'a Answers,
    /// Since when the stage runs.
    pub since: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// What comes next.
#[derive(Debug, Default)]
pub struct Steered {
    /// What may be done now.
    pub actions: Vec<Action>,
    /// What puts back what somebody changed in the middle of a rollout, and is recorded first.
    pub corrections: Vec<Action>,
    /// What only the outside can tell, and when to ask it.
    pub questions: Vec<Asking>,
    /// Why not more.
    pub reasons: Vec<Reason>,
    /// Whether the cluster is where it is to be.
    pub done: bool,
    /// How far each workload is.
    pub units: BTreeMap<String, BTreeMap<Unit, UnitReport>>,
    /// When something is due without an event.
    pub wake: Option<Timestamp>,
    /// When the cluster last moved.
    pub progress: Option<Timestamp>,
    /// What proxies are told now.
    pub tells: Vec<Telling>,
}

impl Steered {
    /// Puts traffic before pods.
    fn take_services(&mut self, services: &mut Services) {
        self.actions.splice(0..0, services.actions.drain(..));
        self.reasons.append(&mut services.reasons);
        self.questions.append(&mut services.questions);
        self.tells.append(&mut services.tells);
        self.wake = [self.wake, services.wake].into_iter().flatten().min();
        self.done &= !services.pending;
    }
}

/// Returns how many pods a workload is to have: Git's number, else what the handle says.
pub fn wanted(workload: &Workload, view: &View) -> u32 {
    let live = || {
        let handle = view.by_key(&workload.key)?;
        u32::try_from(handle.number(&["spec", "replicas"])?).ok()
    };
    workload.replicas.or_else(live).unwrap_or(1)
}

/// Returns a workload's totals by unit: what was recorded while it still adds up, else shared out anew.
pub fn totals(workload: &Workload, policy: &RolloutPolicy, recorded: &Quota, view: &View) -> Option<Counts> {
    if workload.maker() == Maker::Nodes {
        return Some(nodes::totals(workload, policy.strategy.pods(), recorded.get(&workload.id), view));
    }
    let wanted = wanted(workload, view);
    let units = workload.maker().units(policy.strategy.pods());
    let kept = recorded.get(&workload.id).filter(|counts| {
        counts.values().sum::<u32>() == wanted && counts.keys().eq(units.iter().collect::<BTreeSet<_>>())
    });
    match kept {
        Some(counts) => Some(counts.clone()),
        None => plan::totals_of(workload, wanted, policy.strategy.pods()).ok(),
    }
}

/// Says what comes next on a course. Total and pure.
pub fn steer(course: &Course<'_>, app: &AppName, view: &View) -> Steered {
    let mut steered = Steered { done: true, ..Steered::default() };
    // Services are narrowed to pods in service by objects, so every pod is labelled before.
    if handover::next(course, app, view, &mut steered) {
        return steered;
    }
    let mut services = services::next(course, app, view);
    let back = course.drain_at_most.is_some();
    if back {
        // Pods first: an object that cannot be put back must not keep a broken version running.
        steer_workloads(course, app, view, &services, &mut steered);
        if steered.done && !services.pending {
            steer_objects(course, app, view, &services, &mut steered);
        }
    } else {
        steer_objects(course, app, view, &services, &mut steered);
        if steered.done {
            steer_workloads(course, app, view, &services, &mut steered);
        } else {
            report_workloads(course, app, view, &services, &mut steered);
        }
    }
    steered.take_services(&mut services);
    steered
}

/// The same, of pods and the Services that follow them alone, once they are in the slices that the policy asks for.
pub(super) fn steer_pods(course: &Course<'_>, app: &AppName, view: &View, steered: &mut Steered) {
    if handover::next(course, app, view, steered) {
        return;
    }
    let mut services = services::next(course, app, view);
    steer_workloads(course, app, view, &services, steered);
    steered.take_services(&mut services);
}

fn steer_objects(course: &Course<'_>, app: &AppName, view: &View, services: &Services, steered: &mut Steered) {
    let Some(render) = course.new else { return };
    let rest: Vec<&Object> = render.objects.iter().filter(|object| !services.managed.contains(&object.key())).collect();
    let force = course.policy.is_none_or(|policy| policy.drift == Drift::Correct);
    let staged = course.policy.is_some();
    // Staged pods have gates of their own; only what they cannot be made without is waited for.
    let gate = |object: &Object| !staged || matches!(object.text(&["kind"]), "CustomResourceDefinition" | "Namespace");
    let namespace = render.application.namespace.as_deref();
    let means = Means {
        force,
        gate: &gate,
        refused: course.refused,
        back: course.drain_at_most.is_some(),
        admitted: course.admitted,
    };
    let outcome = objects::converge(&rest, app, namespace, view, &means);
    steered.actions.extend(outcome.actions);
    steered.reasons.extend(outcome.reasons);
    steered.done &= outcome.done;
}

/// Tells how far the workloads are without doing anything: while objects that come first are not there.
fn report_workloads(course: &Course<'_>, app: &AppName, view: &View, services: &Services, steered: &mut Steered) {
    let mut aside = Steered { done: true, ..Steered::default() };
    steer_workloads(course, app, view, services, &mut aside);
    steered.units = aside.units;
    steered.progress = aside.progress;
}

/// Brings the workloads to where they are to be, under a policy, and their configuration with them.
pub(super) fn steer_workloads(
    course: &Course<'_>,
    app: &AppName,
    view: &View,
    services: &Services,
    steered: &mut Steered,
) {
    let Some(policy) = course.policy else { return };
    let new_ones = course.new.map(|render| &render.workloads);
    let old_ones = course.old.map(|render| &render.workloads);
    let mut configuration = Configuration::new();
    let ids: BTreeSet<&String> = new_ones.into_iter().chain(old_ones).flat_map(BTreeMap::keys).collect();
    for id in ids {
        let (new, old) = (new_ones.and_then(|all| all.get(id)), old_ones.and_then(|all| all.get(id)));
        // A workload that goes away goes last.
        let is_handed_over = || old.is_some_and(|old| (course.handed_over)(&old.key));
        // Under another strategy it may be applied as it is: it stays, and its own controller goes on with it.
        let goes_on = || {
            let objects = course.new.into_iter().flat_map(|render| &render.objects);
            old.is_some_and(|old| objects.into_iter().any(|object| object.key() == old.key))
        };
        if new.is_none() && (!course.last || is_handed_over() || goes_on()) {
            continue;
        }
        steer_workload(course, id, (new, old), policy, app, view, services, &mut configuration, steered);
    }
    steer_configuration(course, &configuration, app, view, steered);
}

#[allow(clippy::too_many_arguments)]
fn steer_workload<'a>(
    course: &Course<'a>,
    id: &str,
    (new, old): (Option<&'a Workload>, Option<&'a Workload>),
    policy: &RolloutPolicy,
    app: &AppName,
    view: &View,
    services: &Services,
    configuration: &mut Configuration<'a>,
    steered: &mut Steered,
) {
    let Some(key) = new.or(old).map(|workload| &workload.key) else { return };
    let pods = policy.strategy.pods();
    let totals = match new.map(|new| self::totals(new, policy, course.totals, view)) {
        None => Counts::new(),
        Some(Some(totals)) => totals,
        Some(None) => {
            steered.done = false;
            let why = format!("{id}: unitReplicas does not fit its replicas");
            steered.reasons.push(Reason::Refused { why });
            return;
        }
    };
    let method = match (new, old) {
        (None, _) => Method::Remove,
        (Some(new), Some(old)) => plan::method_of(new, Some(old), pods).unwrap_or(Method::Recreate),
        // What is handed over runs already: only its label changes.
        (Some(_), None) if course.quota.is_none() || course.inherits.is_some() => Method::Rebalance,
        (Some(_), None) if course.methods.and_then(|methods| methods.get(id)) == Some(&Method::Rebalance) => {
            Method::Rebalance
        }
        (Some(_), None) => Method::Install,
    };
    let quota = match course.quota {
        // Where a DaemonSet's pods are nobody decides but its controller: the first come all at once.
        Some(_) if method == Method::Install && Maker::of(key) == Maker::Nodes => totals.clone(),
        Some(quotas) if method != Method::Rebalance => quotas.get(id).cloned().unwrap_or_default(),
        _ => totals.clone(),
    };
    if let Some(from) = course.inherits {
        let taken = take_over(from, app, key, view);
        if !taken.is_empty() {
            steered.done = false;
            steered.actions.extend(taken);
            return;
        }
    }
    let observed = Observed::read(view, app, key);
    if let Some(pod) = observed.stray {
        // Slices that are not seen would be made a second time, and their pods counted for nothing.
        steered.done = false;
        steered.reasons.push(Reason::Following { what: format!("the slice of {} is seen", pod.name()) });
        return;
    }
    let units = Maker::of(key).units(pods);
    let mut notes = vec![(labels::ROLLOUT, course.rollout.to_string())];
    if let Some(stage) = &course.stage {
        notes.push((labels::STAGE, stage.clone()));
    }
    let seed = course.new.map_or("", |render| render.revision.as_str());
    let task = Task {
        rollout: course.rollout,
        id,
        new,
        old,
        method,
        policy: pods,
        units: &units,
        totals: &totals,
        quota: &quota,
        last: course.last,
        traffic: services.traffic.get(id),
        proxied: services.proxied.get(id),
        drain_at_most: course.drain_at_most,
        still: course.still,
        notes,
        seed,
        now: course.now,
    };
    let outcome = workload::next(&task, &observed, view);
    steered.actions.extend(outcome.actions);
    steered.reasons.extend(outcome.reasons);
    steered.done &= outcome.done;
    let strays = stray::next(&task, &observed);
    steered.done &= observed.natives.is_empty();
    steered.actions.extend(strays.actions);
    steered.corrections.extend(strays.corrections);
    steered.reasons.extend(strays.reasons);
    steered.units.insert(id.to_owned(), outcome.units);
    steered.wake = [steered.wake, outcome.wake].into_iter().flatten().min();
    steered.progress = steered.progress.max(outcome.progress);
    let read_by = owners(&[new, old], &observed, app, view);
    for (key, (object, slices)) in read_by {
        configuration.entry(key).or_insert_with(|| (object, Vec::new())).1.extend(slices);
    }
}

/// Takes over the slices and pods of an application that was renamed: only their label changes.
fn take_over(from: &AppName, app: &AppName, workload: &ObjectKey, view: &View) -> Vec<Action> {
    let name = labels::label_value(&workload.name);
    let of_it = |object: &&Object| {
        object.namespace() == workload.namespace && object.label(labels::WORKLOAD) == Some(name.as_str())
    };
    let path = format!("/metadata/labels/{}", labels::APP.replace('/', "~1"));
    let slices = view.of_app(from, "ReplicaSet").filter(of_it).map(|slice| {
        let body = json!([
            { "op": "replace", "path": path, "value": app },
            { "op": "replace", "path": format!("/spec/template{path}"), "value": app },
        ]);
        Action::patch(slice, PatchType::Json, body, format!("{} is handed over from {from}", slice.name()))
    });
    let pods = view.of_app(from, "Pod").filter(of_it).map(|pod| {
        let body = json!({ "metadata": { "labels": { labels::APP: app } } });
        Action::merge(pod, body, format!("{} is handed over from {from}", pod.name()))
    });
    slices.chain(pods).collect()
}

/// Configuration by its key: what it is, and the owner references of what keeps the pods that read it.
type Configuration<'a> = BTreeMap<ObjectKey, (&'a Object, Vec<Value>)>;

fn owners<'a>(
    versions: &[Option<&'a Workload>],
    observed: &Observed<'_>,
    app: &AppName,
    view: &View,
) -> Configuration<'a> {
    let mut read: Configuration<'a> = BTreeMap::new();
    for workload in versions.iter().copied().flatten() {
        let digest = labels::digest_label(&workload.digest);
        let keepers = observed.keepers(view, app, &digest);
        let owners: Vec<Value> = keepers
            .iter()
            .map(|keeper| {
                json!({
                    "apiVersion": "apps/v1",
                    "kind": keeper.key().kind,
                    "name": keeper.name(),
                    "uid": keeper.uid(),
                })
            })
            .collect();
        if owners.is_empty() {
            continue;
        }
        for object in &workload.config {
            read.insert(object.key(), (object, owners.clone()));
        }
    }
    read
}

/// Applies the configuration that slices read, owned by them, so that it goes with the last pod that reads it.
fn steer_configuration(
    course: &Course<'_>,
    configuration: &Configuration<'_>,
    app: &AppName,
    view: &View,
    steered: &mut Steered,
) {
    for (key, (object, owners)) in configuration {
        let mut wanted = objects::labelled(object, app);
        wanted.set(&["metadata", "ownerReferences"], json!(owners));
        let live = view.by_key(key);
        if let Some(live) = live {
            if !diff::differs(&wanted, live) {
                continue;
            }
            if let Some(reason) = objects::made_into(&wanted, live, course.admitted) {
                steered.reasons.push(reason);
                continue;
            }
        }
        steered.done = false;
        steered.actions.push(Action::apply(wanted, live, true, format!("{key} is read by pods of {app}")));
    }
}
