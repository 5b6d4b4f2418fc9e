//! Pushes: invariants 1, 5 and 6.

use std::{collections::BTreeMap, sync::Arc};

use locktender::core::{
    analysis::{Run, Verdict},
    ledger::{DecisionFile, Event, PodEvidence, Record, journal},
    names::{BlobId, Digest, RolloutId, StageName, Unit},
    rollout::{
        labels,
        plan::{self, Plan},
        state::State,
    },
};

use super::{
    Checker, Pushed, Snapshot,
    pods::{self, Version},
    snapshot::{image, is_ready, is_terminating, label, name, uid},
};

impl Checker {
    /// Judges a push that the remote took, with the cluster as it is.
    pub fn pushed(&mut self, push: &Pushed<'_>, now: &Snapshot) {
        self.judged += 1;
        let mut plans: BTreeMap<RolloutId, Plan> = BTreeMap::new();
        for (id, path, text) in files(push, "plan.yaml") {
            match plan::read(text) {
                Ok(plan) => drop(plans.insert(id, plan)),
                Err(why) => self.violated(5, format_args!("{path}: {why}")),
            }
        }
        for (id, path, text) in files(push, "journal.yaml") {
            match journal::read(text) {
                Ok(records) => self.journal(&id, &plans, records, push, now),
                Err(why) => self.violated(5, format_args!("{path}: {why}")),
            }
        }
    }

    /// Takes what the ledger says in the commit that a push is made on, where nobody heard of the push that brought it: the
    /// controller was killed before it was answered. Where a person has accepted another history, that is what there is.
    pub fn catch_up(&mut self, files: &[(String, String)], accepted: Option<&BlobId>) {
        if self.accepted.as_ref() != accepted {
            self.accepted = accepted.cloned();
            self.pushed.clear();
        }
        let read = |name: &str| -> BTreeMap<RolloutId, &String> {
            let named = files.iter().filter_map(|(path, text)| {
                let directory = path.strip_prefix("rollouts/")?.strip_suffix(name)?.strip_suffix('/')?;
                Some((RolloutId::parse(directory)?, text))
            });
            named.collect()
        };
        let plans = read("plan.yaml");
        for (id, text) in read("journal.yaml") {
            let plan = plans.get(&id).and_then(|text| plan::read(text).ok());
            let (Some(plan), Ok(records)) = (plan, journal::read(text)) else { continue };
            let rollouts = self.pushed.entry(id.app.clone()).or_default();
            let known = rollouts.get(&id.number).map(|state| state.records.as_slice()).unwrap_or_default();
            if records.len() > known.len() && journal::continues(&records, known) {
                rollouts.insert(id.number, Arc::new(State::fold(plan, records)));
            }
        }
    }

    /// 5: no record is lost, doubled or out of order.
    fn journal(
        &mut self,
        id: &RolloutId,
        plans: &BTreeMap<RolloutId, Plan>,
        records: Vec<Record>,
        push: &Pushed<'_>,
        now: &Snapshot,
    ) {
        let rollouts = self.pushed.entry(id.app.clone()).or_default();
        let before = rollouts.get(&id.number);
        let known: Vec<Record> = before.map(|state| state.records.clone()).unwrap_or_default();
        let tip = rollouts.values().rev().find_map(|state| state.records.last()).map(|record| record.id);
        let Some(plan) = plans.get(id).or(before.map(|state| &*state.plan)).cloned() else {
            return self.violated(5, format_args!("{id} has a journal and no plan"));
        };
        if before.is_some_and(|state| state.plan.hash != plan.hash) {
            self.violated(5, format_args!("the plan of {id} changed"));
        }
        if !journal::continues(&records, &known) {
            self.violated(5, format_args!("the journal of {id} does not continue what was pushed before"));
        }
        let fresh = records.get(known.len()..).unwrap_or_default();
        let mut previous: Digest = tip.unwrap_or(plan.hash);
        for record in fresh {
            if record.previous != previous {
                self.violated(
                    5,
                    format_args!("{:?} of {id} does not follow the application's last record", record.event),
                );
            }
            previous = record.id;
            if let Some(owed) = self.owed.get_mut(&id.app).filter(|_| record.event == Event::DriftCorrected) {
                owed.retain(|seen| !record.evidence.objects.contains(seen));
            }
        }
        for end in known.len()..records.len() {
            let state = State::fold(plan.clone(), records[..end].to_vec());
            self.once(&state, &records[end]);
            self.gates(&state, &records[end], push, now);
            self.true_now(&state, &records[end], push, now);
        }
        let state = State::fold(plan, records);
        self.pushed.entry(id.app.clone()).or_default().insert(id.number, Arc::new(state));
    }

    /// 5: what can happen only once is recorded once.
    fn once(&mut self, state: &State, record: &Record) {
        let since = |start: &[Event]| {
            let at = state.records.iter().rposition(|one| start.contains(&one.event)).map_or(0, |at| at + 1);
            state.records[at..].iter()
        };
        let again = match record.event {
            Event::RolloutOpened | Event::Aborting | Event::Aborted | Event::Superseded | Event::Completed => {
                state.records.iter().any(|one| one.event == record.event)
            }
            Event::StageStarted | Event::StageWaiting => {
                let mut same = since(&[Event::StageReverted, Event::Retried]);
                same.any(|one| one.event == record.event && one.stage == record.stage)
            }
            // A step back makes every answer due once more: what counted may count no longer.
            Event::ConfirmAccepted | Event::Promoted | Event::DecisionRejected => {
                let mut same = since(&[Event::StageReverted]);
                same.any(|one| one.event == record.event && one.evidence.decision == record.evidence.decision)
            }
            _ => false,
        };
        if again {
            self.violated(
                5,
                format_args!("{}: {:?} is recorded twice ({})", state.plan.rollout, record.event, record.why),
            );
        }
    }

    /// 1: no stage starts before every gate before it is open.
    fn gates(&mut self, state: &State, record: &Record, push: &Pushed<'_>, now: &Snapshot) {
        let ends = matches!(record.event, Event::StageStarted | Event::Completed);
        if !ends {
            return;
        }
        let named = record.stage.as_ref().and_then(|stage| state.index_of(stage));
        let Some(index) = named else {
            return self.violated(1, format_args!("{}: {:?} of no stage", state.plan.rollout, record.event));
        };
        let opened = state.records.iter().any(|one| one.event == Event::StageStarted);
        if record.event == Event::StageStarted && opened && index != pods::current_stage(state) + 1 {
            self.violated(1, format_args!("{}: {:?} is not the next stage", state.plan.rollout, record.stage));
        }
        let until = if record.event == Event::Completed { index + 1 } else { index };
        for (at, stage) in state.plan.stages.iter().enumerate().take(until) {
            if stage.asks_for_confirm() && !is_confirmed(state, at, &stage.name, push) {
                let what = format!("{:?} {:?} with the gate of {} closed", record.event, record.stage, stage.name);
                self.violated(1, format_args!("{}: {what}", state.plan.rollout));
            }
            if let Some(metric) = stage.analyses().find(|metric| !is_good(state, at, metric)) {
                let what = format!("{:?} {:?} with {metric} of {} not good", record.event, record.stage, stage.name);
                self.violated(1, format_args!("{}: {what}", state.plan.rollout));
            }
            // One that was passed earlier stays so.
            if let Some(pause) = stage.pause().filter(|_| at + 1 == until)
                && !is_promoted(state, push)
                && !has_lasted(state, at, pause.get(), record.time)
            {
                let what = format!("{:?} {:?} before {} has lasted {pause}", record.event, record.stage, stage.name);
                self.violated(1, format_args!("{}: {what}", state.plan.rollout));
            }
        }
        // Health: what the stage before was to have is there, or was when the controller was last told.
        if until == 0 {
            return;
        }
        let quotas = &state.quotas[until - 1];
        for (id, units) in quotas {
            let Some(version) = Version::target(state, id) else { continue };
            // In which unit a DaemonSet's pod is, its node says, which is not looked at here.
            let together = id.starts_with("DaemonSet/");
            let all = [(Unit::new(""), units.values().sum())].into();
            for (unit, quota) in if together { &all } else { units } {
                let ready_in = |snapshot: &Snapshot| {
                    let pods = snapshot.of_workload("pods", state.plan.rollout.app.as_str(), id);
                    let here = pods.filter(|pod| together || label(pod, labels::UNIT) == unit.as_str());
                    here.filter(|pod| version.is_of(pod) && snapshot.is_in_service(pod)).count()
                };
                let enough = |ready: usize| ready >= usize::try_from(*quota).unwrap_or(usize::MAX);
                let ready = ready_in(now);
                if !enough(ready) && !enough(ready_in(&push.told.snapshot())) {
                    let what = format!("{ready} of {quota} pods of {id} in `{unit}` are in service");
                    self.violated(1, format_args!("{}: {:?} while {what}", state.plan.rollout, record.event));
                }
            }
        }
    }

    /// 6: a record's evidence is true when it is written, or was when the controller was last told.
    fn true_now(&mut self, state: &State, record: &Record, push: &Pushed<'_>, now: &Snapshot) {
        let is_so = |claimed: &PodEvidence, snapshot: &Snapshot| {
            let pod = snapshot.pods().find(|pod| uid(pod) == claimed.uid && name(pod) == claimed.name);
            pod.is_some_and(|pod| image(pod) == claimed.image && is_ready(pod) == claimed.ready && !is_terminating(pod))
        };
        for claimed in &record.evidence.pods {
            if !is_so(claimed, now) && !is_so(claimed, &push.told.snapshot()) {
                let what = format!("{:?} says of {} what is not so", record.event, claimed.name);
                self.violated(6, format_args!("{}: {what}", state.plan.rollout));
            }
        }
    }
}

/// Returns the rollouts, paths and contents of the files of a push that have this name.
fn files<'a>(push: &'a Pushed<'_>, wanted: &'a str) -> impl Iterator<Item = (RolloutId, &'a str, &'a str)> {
    push.files.iter().filter_map(move |(path, text)| {
        let (directory, file) = path.strip_prefix("rollouts/")?.rsplit_once('/')?;
        let id = RolloutId::parse(directory).filter(|_| file == wanted)?;
        Some((id, *path, (*text)?))
    })
}

/// Returns a decision of the rollout, as it is at HEAD.
fn at_head(state: &State, push: &Pushed<'_>, path: &str) -> Option<DecisionFile> {
    let blob = push.decisions.get(&format!("{}/{path}", state.plan.rollout.directory()))?;
    Some(DecisionFile { path: path.to_owned(), blob: Some(blob.clone()) })
}

/// Returns whether a decision, as it is now, was accepted by a record from `since` on.
fn is_accepted(state: &State, since: usize, event: Event, file: &DecisionFile) -> bool {
    let names_it = |record: &Record| record.event == event && record.evidence.decision.as_ref() == Some(file);
    state.records[since..].iter().any(names_it)
}

/// Returns the last record that stepped back to a stage that `closes`.
fn closed_at(state: &State, closes: impl Fn(usize) -> bool) -> Option<usize> {
    state.records.iter().rposition(|record| {
        let to = record.stage.as_ref().and_then(|stage| state.index_of(stage));
        record.event == Event::StageReverted && to.is_some_and(&closes)
    })
}

/// Returns whether a promote counts: unless it was there when the rollout opened, or when a gate closed again, which
/// voids all before.
fn is_promoted(state: &State, push: &Pushed<'_>) -> bool {
    let Some(file) = at_head(state, push, "promote.yaml") else { return false };
    let closing = |record: &&Record| matches!(record.event, Event::RolloutOpened | Event::StageReverted);
    let old = state.records.iter().filter(closing).any(|record| record.lists(&file));
    !old && is_accepted(state, closed_at(state, |_| true).unwrap_or(0), Event::Promoted, &file)
}

/// Returns a stage's latest waiting record, where no step back to an earlier stage has voided it.
fn waits_at(state: &State, stage: usize) -> Option<usize> {
    let name = &state.plan.stages[stage].name;
    let waits = state
        .records
        .iter()
        .rposition(|record| record.event == Event::StageWaiting && record.stage.as_ref() == Some(name));
    let voided = closed_at(state, |to| to < stage);
    waits.filter(|waits| voided.is_none_or(|voided| voided < *waits))
}

/// Returns whether a person's decision opens a stage's gate: a file at HEAD, made after the latest waiting record, and
/// accepted, as it is now, by a record since the gate was last closed.
fn is_confirmed(state: &State, stage: usize, name: &StageName, push: &Pushed<'_>) -> bool {
    if is_promoted(state, push) {
        return true;
    }
    let Some(waits) = waits_at(state, stage) else { return false };
    let Some(file) = at_head(state, push, &format!("confirm/{name}.yaml")) else { return false };
    let since = waits.max(closed_at(state, |to| to <= stage).unwrap_or(0));
    !state.records[waits].lists(&file) && is_accepted(state, since, Event::ConfirmAccepted, &file)
}

/// Returns whether a metric was found good at a stage, by samples that say so, since the stage was there and since it was
/// last tried again.
fn is_good(state: &State, stage: usize, metric: &str) -> bool {
    let name = &state.plan.stages[stage].name;
    let here = |record: &Record| record.stage.as_ref() == Some(name);
    let retried = state.records.iter().rposition(|record| record.event == Event::Retried && here(record));
    let Some(waits) = waits_at(state, stage) else { return false };
    let since = retried.map_or(waits, |retried| retried.max(waits));
    let mut runs =
        state.records[since..].iter().filter(|record| here(record)).filter_map(|one| one.evidence.analysis.as_ref());
    let good = |run: &Run| {
        let bad = run.samples.iter().filter(|sample| sample.verdict == Verdict::Fail).count();
        let some = run.samples.iter().any(|sample| sample.verdict == Verdict::Pass);
        run.verdict == Verdict::Pass && run.check().is_ok() && some && bad <= run.rule.failure_limit as usize
    };
    runs.any(|run| run.metric == metric && good(run))
}

/// Returns whether a stage has lasted for as long as its pause since it was there.
fn has_lasted(state: &State, stage: usize, pause: std::time::Duration, now: jiff::Timestamp) -> bool {
    let since = waits_at(state, stage).map(|waits| state.records[waits].time);
    since.is_some_and(|since| now.duration_since(since).as_secs() >= pause.as_secs().cast_signed())
}
