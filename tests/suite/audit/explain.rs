//! Which record explains a write: design, section 5, invariant 6, from what the API server saw.
//!
//! Going forward the record was pushed before the write came in. Going back it was pushed or kept in the anchor. Sharing
//! the wanted total out over slices at an unchanged frontier needs none; nor do the anchor, Events, the lease, the namespace,
//! readiness gates, which follow their pods' labels, and notes for people on the handle, which follow records and are named as what they are.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use locktender::core::{
    ledger::{Event, Record},
    names::{AppName, Unit},
    rollout::{
        labels,
        state::{Outcome, Phase, State},
    },
};
use serde_json::Value;

use super::{
    history::{History, Rollouts},
    log::Request,
};
use crate::simulation::checker::allowed;

/// A write that was decided on may be this long on its way while the ledger moves on.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(2);

/// A write and what explains it: `checkout/0002 StageStarted batch-1`, `anchor`, or why nothing does.
#[derive(Clone, Debug)]
pub struct Explained<'a> {
    pub request: &'a Request,
    pub why: Result<String, String>,
}

/// A version of a workload in a unit, by its digest's label.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    app: AppName,
    workload: String,
    unit: Unit,
    version: String,
}

/// Resource, namespace and name.
type Key = (String, String, String);

fn key(request: &Request) -> Key {
    (request.resource.clone(), request.namespace.clone(), request.name.clone())
}

/// What is known of the cluster from the writes before.
#[derive(Default)]
struct Seen {
    /// What slices were told to be.
    slices: BTreeMap<Key, Place>,
    /// By pod: the version that it was last sent to.
    pods: BTreeMap<Key, Place>,
    /// Whose an object is, and what was last applied.
    applied: BTreeMap<Key, (AppName, Value)>,
}

/// Explains every write of ours that was carried out.
pub fn explain<'a>(requests: &'a [Request], history: &History) -> Vec<Explained<'a>> {
    let apps = history.apps();
    let mut seen = Seen::default();
    let mut explained = Vec::new();
    for request in requests.iter().filter(|request| request.is_done()) {
        if !request.is_ours() {
            seen.hear(request);
            continue;
        }
        let why =
            class(request, &seen).map_or_else(|| seen.explain(request, history, &apps), |class| Ok(class.to_owned()));
        seen.take(request);
        explained.push(Explained { request, why });
    }
    explained
}

fn label<'a>(body: &'a Value, name: &str) -> &'a str {
    body["metadata"]["labels"][name].as_str().unwrap_or_default()
}

/// Names what needs no record.
fn class(request: &Request, seen: &Seen) -> Option<&'static str> {
    let body = &request.body;
    match (request.resource.as_str(), request.verb.as_str()) {
        ("pods", "patch") if request.subresource == "status" && sets_only_the_gate(body) => Some("gate"),
        ("namespaces", "create") => Some("namespace"),
        ("events" | "events.events.k8s.io", _) => Some("event"),
        ("leases.coordination.k8s.io", _) => Some("lease"),
        ("configmaps", "apply") if !label(body, labels::ANCHOR).is_empty() => Some("anchor"),
        ("configmaps", "patch") if writes_only_an_abort(body) => Some("abort --now"),
        ("configmaps" | "secrets", "apply") if body["metadata"]["ownerReferences"].is_array() => Some("configuration"),
        ("deployments.apps" | "statefulsets.apps" | "daemonsets.apps", "apply") => {
            let (_, before) = seen.applied.get(&key(request))?;
            (without_notes(before) == without_notes(body)).then_some("notes")
        }
        _ => None,
    }
}

/// Whether it lets a pod's readiness gate follow its label, which is what a record explains.
fn sets_only_the_gate(body: &Value) -> bool {
    let conditions = body["status"]["conditions"].as_array();
    let only_it = |all: &Vec<Value>| all.len() == 1 && all[0]["type"] == labels::GATE;
    conditions.is_some_and(only_it) && body["status"].as_object().is_some_and(|status| status.len() == 1)
}

/// Whether it is how a person decides where Git is away: that is not the controller's.
fn writes_only_an_abort(body: &Value) -> bool {
    let names = |value: &Value| -> Vec<String> {
        value.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
    };
    names(&body["data"]) == [labels::ANCHOR_ABORT]
        && names(body).iter().all(|name| name == "data" || name == "metadata")
        && names(&body["metadata"]).iter().all(|name| name == "uid" || name == "resourceVersion")
}

/// An applied handle without what is noted on it for people, and without what it was decided on.
fn without_notes(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !matches!(name.as_str(), "uid" | "resourceVersion"));
        let mut annotations = metadata.remove("annotations").unwrap_or_default();
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.retain(|name, _| name != labels::ROLLOUT && name != labels::STAGE);
            if !annotations.is_empty() {
                metadata.insert("annotations".to_owned(), Value::Object(annotations.clone()));
            }
        }
    }
    body
}

impl Seen {
    /// The slice that a pod is in: its name begins with the slice's.
    fn slice_of(&self, pod: &Request) -> Option<&Place> {
        let (slice, _) = pod.name.rsplit_once('-')?;
        self.slices.get(&("replicasets.apps".to_owned(), pod.namespace.clone(), slice.to_owned()))
    }

    /// Where a write takes pods, if it names a version.
    fn towards(&self, request: &Request) -> Option<Place> {
        let body = &request.body;
        match request.resource.as_str() {
            "pods" => {
                let version = match body["metadata"]["annotations"][labels::MOVING].as_str() {
                    Some(moving) => moving,
                    None => label(body, labels::DIGEST),
                };
                let known = self.slice_of(request).or_else(|| self.pods.get(&key(request)));
                known
                    .filter(|_| !version.is_empty())
                    .map(|place| Place { version: version.to_owned(), ..place.clone() })
            }
            "replicasets.apps" if request.verb == "create" || !label(body, labels::DIGEST).is_empty() => {
                let known = self.slices.get(&key(request));
                let own = |name: &str, known: Option<&str>| match label(body, name) {
                    "" => known.unwrap_or_default().to_owned(),
                    text => text.to_owned(),
                };
                Some(Place {
                    app: AppName::new(own(labels::APP, known.map(|it| it.app.as_str()))),
                    workload: own(labels::WORKLOAD, known.map(|it| it.workload.as_str())),
                    unit: Unit::new(own(labels::UNIT, known.map(|it| it.unit.as_str()))),
                    version: label(body, labels::DIGEST).to_owned(),
                })
            }
            "replicasets.apps" => self.slices.get(&key(request)).cloned(),
            _ => None,
        }
    }

    /// Others, too, take pods away.
    fn hear(&mut self, request: &Request) {
        if request.resource == "pods" && request.verb == "delete" {
            self.pods.remove(&key(request));
        }
    }

    fn take(&mut self, request: &Request) {
        let place = self.towards(request);
        match (request.resource.as_str(), request.verb.as_str(), place) {
            (_, "delete", _) => drop(self.slices.remove(&key(request))),
            ("pods", _, Some(place)) => drop(self.pods.insert(key(request), place)),
            ("replicasets.apps", _, Some(place)) => drop(self.slices.insert(key(request), place)),
            (_, "apply", _) => {
                let app = AppName::new(label(&request.body, labels::APP));
                self.applied.insert(key(request), (app, request.body.clone()));
            }
            _ => {}
        }
    }

    /// Whose write it is, where that can be told.
    fn app(&self, request: &Request) -> Option<AppName> {
        match label(&request.body, labels::APP) {
            "" => {}
            app => return Some(AppName::new(app)),
        }
        if let Some(place) = self.towards(request) {
            return Some(place.app);
        }
        let pod = self.slice_of(request).filter(|_| request.resource == "pods");
        let applied = || self.applied.get(&key(request)).map(|(app, _)| app);
        pod.map(|place| &place.app).or_else(applied).cloned()
    }

    fn explain(&self, request: &Request, history: &History, apps: &[AppName]) -> Result<String, String> {
        let owner = self.app(request);
        // Who takes over what another application had explains what becomes of it; of what is nobody's, anybody may.
        let heirs = apps.iter().filter(|app| match &owner {
            Some(owner) => *app != owner && history.takes_over(app, owner),
            None => true,
        });
        let candidates: Vec<&AppName> = owner.iter().chain(heirs).collect();
        let mut first = None;
        for app in candidates {
            // What was decided on an earlier state may still have been on its way.
            for time in [request.came, request.came - ON_ITS_WAY] {
                match self.explained_by(request, app, history, time) {
                    Ok(why) => return Ok(why),
                    Err(why) => drop(first.get_or_insert(why)),
                }
            }
        }
        Err(first.unwrap_or_else(|| "there is no ledger".to_owned()))
    }

    fn explained_by(
        &self,
        request: &Request,
        app: &AppName,
        history: &History,
        time: Timestamp,
    ) -> Result<String, String> {
        let (pushed, known) = (history.pushed(app, time), history.known(app, time));
        if let Some(why) = goes_back(&known) {
            let target = self.towards(request).filter(|place| is_target(&known, place));
            // Nothing goes to the refused target any more, but fewer pods may.
            let fewer = request.resource == "replicasets.apps" && request.verb != "create";
            if target.is_none() || fewer {
                return Ok(why);
            }
        }
        let Some(state) = pushed.values().next_back() else { return Err(format!("nothing of {app} is pushed")) };
        let at = format!("{} {}", state.plan.rollout, phase(state));
        match self.towards(request) {
            _ if state.is_over() => self.at_rest(request, state, &history.pushed(app, Timestamp::MAX)),
            Some(place) if is_target(&pushed, &place) => self.forward(request, state, &place),
            // Pods of a version that is neither wait to be what the stage asks for; the others are fewer, or as many.
            _ => last_of(state, MOVES).ok_or_else(|| format!("{at}: no stage was started")),
        }
    }

    /// Going to the target: within the quota of the stage that was started.
    fn forward(&self, request: &Request, state: &State, place: &Place) -> Result<String, String> {
        let why = last_of(state, MOVES).ok_or_else(|| format!("{}: no stage was started", state.plan.rollout))?;
        let ids = state.plan.to.workloads.keys();
        let id = ids.into_iter().find(|id| labels::label_value(id.rsplit('/').next().unwrap_or(id)) == place.workload);
        let Some(allowed) = id.and_then(|id| allowed(state, id, &place.unit)) else { return Ok(why) };
        let count = match request.resource.as_str() {
            "replicasets.apps" => request.body["spec"]["replicas"].as_u64().unwrap_or(0),
            _ => {
                let there = self.pods.iter().filter(|(_, other)| *other == place).map(|(key, _)| key.clone());
                there.chain([key(request)]).collect::<BTreeSet<_>>().len() as u64
            }
        };
        if count > allowed {
            let unit = &place.unit;
            return Err(format!("{why} lets {allowed} pods of `{unit}` go to the target, and this is number {count}"));
        }
        Ok(why)
    }

    /// At rest what was changed or put back is named by a record; the wanted total is shared out without one. What is put back
    /// may be written first: then it says itself in which state it was seen, and in the `end` a record says so too.
    fn at_rest(&self, request: &Request, state: &State, end: &Rollouts) -> Result<String, String> {
        let shares = match request.resource.as_str() {
            "replicasets.apps" => true,
            "pods" => request.body.pointer("/spec/containers").is_none(),
            _ => false,
        };
        if let Some(record) = names(state, request) {
            return Ok(told(state, record));
        }
        if let Some((state, record)) = put_back(request, end) {
            return Ok(told(state, record));
        }
        if shares {
            return Ok(format!("{} shared out", state.plan.rollout));
        }
        Err(format!("{} is at rest, and no record names it", state.plan.rollout))
    }
}

/// What lets pods move.
const MOVES: &[Event] = &[Event::StageStarted, Event::StageReverted];

fn told(state: &State, record: &Record) -> String {
    let stage = record.stage.as_ref().map(|stage| format!(" {stage}")).unwrap_or_default();
    format!("{} {:?}{stage}", state.plan.rollout, record.event)
}

fn phase(state: &State) -> String {
    let last: Vec<String> = state.records.iter().rev().take(3).map(|record| told(state, record)).collect();
    format!("({:?} after {})", state.phase, last.join(", "))
}

/// The last record of these events.
fn last_of(state: &State, events: &[Event]) -> Option<String> {
    let found = state.records.iter().rev().find(|record| events.contains(&record.event));
    found.map(|record| told(state, record))
}

/// Whether a version is the one that the last rollout goes to.
fn is_target(rollouts: &Rollouts, place: &Place) -> bool {
    let Some(state) = rollouts.values().next_back() else { return false };
    let is_it = |id: &str| labels::label_value(id.rsplit('/').next().unwrap_or(id)) == place.workload;
    let digests = state.plan.to.workloads.iter().filter(|(id, _)| is_it(id));
    digests.into_iter().any(|(_, digest)| labels::digest_label(digest) == place.version)
}

/// The record that lets the last rollout go back, where one does.
fn goes_back(known: &Rollouts) -> Option<String> {
    let state = known.values().next_back()?;
    match state.phase {
        Phase::Aborting(_) => last_of(state, &[Event::Aborting]),
        Phase::Ended(Outcome::Aborted) => None,
        _ => {
            let last = state.records.iter().rev().find(|record| MOVES.contains(&record.event))?;
            (last.event == Event::StageReverted).then(|| told(state, last))
        }
    }
}

/// The last record that puts a change in place or a drift back and names an object.
fn names<'a>(state: &'a State, request: &Request) -> Option<&'a Record> {
    let named = |record: &&Record| {
        let objects = record.evidence.objects.iter();
        matches!(record.event, Event::Applied | Event::DriftCorrected)
            && objects.into_iter().any(|object| is_named(object, request))
    };
    state.records.iter().rev().find(named)
}

/// The record of what a write says that it puts back.
fn put_back<'a>(request: &Request, end: &'a Rollouts) -> Option<(&'a State, &'a Record)> {
    let note = request.body["metadata"]["annotations"][labels::PUT_BACK].as_str()?;
    let (_, seen) = note.split_once(' ').filter(|(_, seen)| is_named(seen, request))?;
    let is_it = |record: &&Record| {
        record.event == Event::DriftCorrected && record.evidence.objects.iter().any(|object| object == seen)
    };
    end.values().rev().find_map(|state| Some((&**state, state.records.iter().rev().find(is_it)?)))
}

/// Whether `Deployment/checkout@7` is what a request is about.
fn is_named(object: &str, request: &Request) -> bool {
    let Some((kind, name)) = object.split('@').next().and_then(|object| object.split_once('/')) else { return false };
    let plural = request.resource.split('.').next().unwrap_or_default();
    let kind = kind.to_lowercase();
    let plurals = [format!("{kind}s"), format!("{kind}es"), format!("{}ies", kind.trim_end_matches('y'))];
    name == request.name && plurals.iter().any(|one| one == plural)
}
