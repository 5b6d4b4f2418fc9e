//! An application of a thousand pods, made by deciding for it: its decisions carried out on the sandbox's world, its
//! records taken as pushed at once.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use locktender::{
    core::{
        ask::Answers,
        cluster::{ClusterEvent, FIELD_MANAGER, Kind, ObjectKey, PatchType, Write},
        ledger::{Draft, Event, Record},
        manifest::{Object, builtin_scope, parse},
        names::{AppName, BlobId, Digest, Revision},
        policy::{RolloutPolicy, read_application, read_policy},
        rollout::{
            self,
            build::build,
            input::{Decision, GitState, Head, HeadContent, Input, Neighbours},
            plan::Inputs,
            render::Render,
            state::State,
            view::View,
        },
    },
    sandbox::{
        api::{DeleteOptions, EventKind, PatchKind, PatchRequest, WriteOptions},
        nodes::NodeSpec,
        pace::Pace,
        world::{World, WorldOptions},
    },
};
use serde_json::{Value, json};

const POLICY: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: halves}
spec:
  strategy:
    batched:
      topology: {unitType: topology.kubernetes.io/zone, units: [dca, dcb]}
      batchSize: 50%
      confirm: none
      maxUnavailable: 25%
";
const APP: &str = "\
apiVersion: locktender.dev/v1alpha1
kind: Application
metadata: {name: big}
spec: {namespace: default, policy: halves}
";
const WATCHED: &[(&str, &str, &str, &str)] = &[
    ("namespaces", "", "v1", "Namespace"),
    ("configmaps", "", "v1", "ConfigMap"),
    ("services", "", "v1", "Service"),
    ("pods", "", "v1", "Pod"),
    ("deployments.apps", "apps", "v1", "Deployment"),
    ("replicasets.apps", "apps", "v1", "ReplicaSet"),
    ("endpointslices.discovery.k8s.io", "discovery.k8s.io", "v1", "EndpointSlice"),
];

fn manifest(pods: u32, tag: &str) -> String {
    format!(
        "\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: big}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: big}}}}
  template:
    metadata: {{labels: {{app: big}}}}
    spec:
      containers: [{{name: app, image: 'registry.example/big:{tag}', ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: big}}
spec: {{selector: {{app: big}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

fn render(pods: u32, tag: &str) -> Arc<Render> {
    let application = read_application("apps/big/app.yaml", APP.as_bytes()).unwrap().value;
    let policy: RolloutPolicy = read_policy("policies/halves.yaml", POLICY.as_bytes()).unwrap().value;
    let text = manifest(pods, tag);
    let file = "apps/big/deployment.yaml".to_owned();
    let files = BTreeMap::from([(file.clone(), text.clone().into())]);
    let manifests = parse(&files, "default", |kind: &Kind| Some(builtin_scope(kind))).unwrap();
    let objects = manifests.into_iter().map(|manifest| manifest.object).collect();
    let blob = BlobId::new(&Digest::of(text.as_bytes()).hex()[..40]);
    let inputs = Inputs { renderer: "plain/1".to_owned(), files: BTreeMap::from([(file, blob)]) };
    let revision = Revision::new(&Digest::of(tag.as_bytes()).hex()[..40]);
    Arc::new(build(revision, inputs, application, Some(policy), objects))
}

/// Everything that a decision is a function of.
pub struct Big {
    pub app: AppName,
    pub view: View,
    head: Head,
    rollouts: Vec<State>,
    renders: BTreeMap<Revision, Arc<Render>>,
    git: GitState,
    now: Timestamp,
    world: World,
    seen: u64,
}

impl Big {
    /// With `pods` pods of 1.9, at rest.
    pub fn installed(pods: u32) -> Self {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let nodes = NodeSpec::of_units([("dca", 5), ("dcb", 5)], pods / 10 + 10);
        let world = World::new(WorldOptions { seed: 7, now, nodes, pace: Pace::simulated() });
        let mut big = Self {
            app: AppName::new("big"),
            view: View::default(),
            head: Head {
                revision: Revision::new(""),
                content: HeadContent::Removed,
                decisions: Vec::new(),
                in_advance: Vec::new(),
                late: BTreeMap::new(),
                astray: Vec::new(),
                frozen: None,
                copies_intact: true,
                prometheus: None,
            },
            rollouts: Vec::new(),
            renders: BTreeMap::new(),
            git: GitState::default(),
            now,
            world,
            seen: 0,
        };
        for (resource, group, version, kind) in WATCHED {
            let kind = Kind::new(group, version, kind);
            let objects = big.world.api.list(resource).map(|object| typed(object, &kind)).collect();
            let resource_version = big.world.api.revision().to_string();
            big.view.take(ClusterEvent::Listed { kind, objects, resource_version });
        }
        big.seen = big.world.api.revision();
        big.go_to(&render(pods, "1.9"), Event::Completed);
        big
    }

    /// Releases another image, as far as its last batch: `pods / 2` are to move now.
    pub fn releasing(mut self, pods: u32) -> Self {
        self.go_to(&render(pods, "2.0"), Event::StageStarted);
        self
    }

    /// Decides and does until HEAD's rollout records `until`; for `StageStarted`, the last stage's.
    fn go_to(&mut self, target: &Arc<Render>, until: Event) {
        self.renders.insert(target.revision.clone(), target.clone());
        self.head.revision = target.revision.clone();
        self.head.content = HeadContent::Rendered(target.clone());
        let number = self.rollouts.len() + 1;
        for _ in 0..10_000 {
            let decision = self.decide();
            let idle = !decision.has_records() && decision.actions.is_empty();
            self.record(&decision);
            let reached = self.rollouts.get(number - 1).is_some_and(|state| {
                let said = state.records.iter().any(|record| record.event == until);
                said && (until != Event::StageStarted || state.at_last_stage())
            });
            if reached {
                return;
            }
            for action in &decision.actions {
                self.carry_out(&action.write);
            }
            self.follow(if idle { decision.wake } else { None }, idle);
        }
        panic!("the rollout never comes to {until:?}: {:#?}", self.decide().report);
    }

    /// Decides once. The same every time.
    pub fn decide(&self) -> Decision {
        let nobody = |_: &ObjectKey| false;
        let neighbours = Neighbours { render: &nobody, waits_for: None, predecessor: None, full: None };
        rollout::decide(&Input {
            app: &self.app,
            head: Some(&self.head),
            rollouts: &self.rollouts,
            renders: &self.renders,
            view: &self.view,
            watching_since: self.now,
            git: &self.git,
            neighbours: &neighbours,
            repair: None,
            objections: &[],
            refused: &std::collections::BTreeMap::new(),
            admitted: &std::collections::BTreeMap::new(),
            abort: None,
            answers: &Answers::default(),
            now: self.now,
        })
    }

    fn record(&mut self, decision: &Decision) {
        for (number, draft) in &decision.records {
            let at = self.rollouts.iter().position(|state| state.plan.rollout.number == *number).unwrap();
            self.take(at, draft.clone());
        }
        if let Some((plan, drafts)) = &decision.open {
            self.rollouts.push(State::fold(plan.clone(), Vec::new()));
            let at = self.rollouts.len() - 1;
            drafts.iter().for_each(|draft| self.take(at, draft.clone()));
        }
    }

    fn take(&mut self, at: usize, draft: Draft) {
        let state = &mut self.rollouts[at];
        let seq = u32::try_from(state.records.len()).unwrap() + 1;
        let record = Record::chain(draft, seq, self.now, self.head.revision.clone(), state.tip());
        state.take(record);
    }

    /// Lets the cluster move, to the next thing that is due where nothing else happens.
    fn follow(&mut self, wake: Option<Timestamp>, idle: bool) {
        let due = self.world.advance(self.now);
        if idle {
            self.now = [due, wake].into_iter().flatten().min().unwrap_or(self.now).max(self.now);
            self.world.advance(self.now);
        }
        let events: Vec<_> = self.world.api.events_since(self.seen).unwrap().cloned().collect();
        for event in events {
            self.seen = event.revision;
            let watched = WATCHED.iter().find(|(resource, ..)| *resource == &*event.resource);
            let Some((_, group, version, kind)) = watched else { continue };
            let object = typed(&event.object, &Kind::new(group, version, kind));
            self.view.take(match event.kind {
                EventKind::Deleted => ClusterEvent::Deleted(object),
                EventKind::Added | EventKind::Modified => ClusterEvent::Applied(object),
            });
        }
    }

    fn carry_out(&mut self, write: &Write) {
        let options = WriteOptions { manager: FIELD_MANAGER.to_owned(), ..WriteOptions::default() };
        let resource = |world: &World, kind: &Kind| {
            world.api.registry().of_kind(&kind.api_version(), &kind.kind).unwrap().key.to_string()
        };
        let (kind, key, patch, body, force) = match write {
            Write::Create { object } => {
                self.world.api.create_with(object.0.clone(), &options).unwrap();
                return;
            }
            Write::Delete { kind, key, .. } => {
                let resource = resource(&self.world, kind);
                self.world.api.delete(&resource, &key.namespace, &key.name, DeleteOptions::default()).unwrap();
                return;
            }
            Write::Apply { object, force, .. } => {
                (object.kind(), object.key(), PatchKind::Apply, object.0.clone(), *force)
            }
            Write::Patch { kind, key, patch, body, .. } => {
                let patch = match patch {
                    PatchType::Merge => PatchKind::Merge,
                    PatchType::Json => PatchKind::Json,
                    PatchType::Strategic => PatchKind::Strategic,
                };
                (kind.clone(), key.clone(), patch, body.clone(), false)
            }
        };
        let request = PatchRequest {
            resource: resource(&self.world, &kind),
            namespace: key.namespace,
            name: key.name,
            subresource: None,
            kind: patch,
            body,
            force,
            options,
        };
        self.world.api.patch(request).unwrap();
    }
}

fn typed(object: &Value, kind: &Kind) -> Object {
    let mut object = Object(object.clone());
    object.set(&["apiVersion"], json!(kind.api_version()));
    object.set(&["kind"], json!(kind.kind));
    object
}

/// A plan, and a journal of `count` records of what happens in a rollout: waits, confirms, steps back, pauses.
pub fn journal(count: usize) -> (rollout::plan::Plan, Vec<Record>) {
    let big = Big::installed(10);
    let plan = big.rollouts[0].plan.clone();
    let mut records: Vec<Record> = big.rollouts[0].records.clone();
    let stages: Vec<_> = plan.stages.iter().map(|stage| stage.name.clone()).collect();
    let events = [
        Event::StageStarted,
        Event::StageWaiting,
        Event::DecisionRejected,
        Event::Paused,
        Event::Resumed,
        Event::StageReverted,
    ];
    records.retain(|record| record.event != Event::Completed);
    while records.len() < count {
        let seq = records.len() + 1;
        let event = events[seq % events.len()];
        let stage = &stages[seq / events.len() % stages.len()];
        let draft = Draft::new(event, Some(stage), format!("what happened when {seq} was written")).with(|evidence| {
            if event == Event::DecisionRejected {
                let blob = BlobId::new(&Digest::of(&seq.to_be_bytes()).hex()[..40]);
                evidence.decision = Some(rollout::input::file("confirm/beta.yaml", &blob));
            }
        });
        let (time, head) = (records[0].time, records[0].head.clone());
        let previous = records.last().map_or(plan.hash, |record| record.id);
        records.push(Record::chain(draft, u32::try_from(seq).unwrap(), time, head, previous));
    }
    (rollout::plan::Plan::clone(&plan), records)
}
