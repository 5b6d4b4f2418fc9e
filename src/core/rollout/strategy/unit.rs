//! One workload in one unit: how many pods each slice has, and which pods move.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    drain::{Drain, Goal, Step, signed},
    slice::{self, NewSlice},
    told::{There, count, in_order, is_at, settle, tell},
    workload::{Budget, Outcome, Task},
};
use crate::core::{
    diff,
    manifest::Object,
    names::Unit,
    rollout::{
        action::Action,
        labels,
        observe::{Observed, Pod, Slice},
        plan::Method,
        render::Workload,
        report::Reason,
        view::View,
    },
};

/// One workload in one unit.
pub(super) struct UnitStep<'a, 'b> {
    task: &'a Task<'a>,
    view: &'a View,
    unit: &'a Unit,
    total: u32,
    quota: u32,
    home: Option<&'a Slice<'a>>,
    others: Vec<&'a Slice<'a>>,
    /// Pods that are asked for now, and that no slice shows yet.
    coming: u32,
    min_ready: SignedDuration,
    drain: Drain<'a>,
    outcome: &'b mut Outcome,
    budget: &'b mut Budget,
}

impl<'a, 'b> UnitStep<'a, 'b> {
    pub(super) fn new(
        task: &'a Task<'a>,
        observed: &'a Observed<'a>,
        view: &'a View,
        unit: &'a Unit,
        outcome: &'b mut Outcome,
        budget: &'b mut Budget,
    ) -> Self {
        let total = task.totals.get(unit).copied().unwrap_or(0);
        let quota = task.quota.get(unit).copied().unwrap_or(0).min(total);
        let home = home(task, observed, unit);
        let others = observed
            .in_unit(unit)
            .filter(|slice| home.is_none_or(|home| home.object.name() != slice.object.name()))
            .collect();
        let drain = Drain {
            graceful: &task.policy.graceful,
            proxied: task.proxied,
            now: task.now,
            at_most: task.drain_at_most,
        };
        Self {
            task,
            view,
            unit,
            total,
            quota,
            home,
            others,
            coming: 0,
            min_ready: signed(task.policy.min_ready),
            drain,
            outcome,
            budget,
        }
    }

    /// Returns the pods at the new version.
    fn at_new(&self) -> Vec<&'a Pod<'a>> {
        let pods = self.home.into_iter().flat_map(|home| &home.pods);
        pods.filter(|pod| self.task.new.is_some_and(|new| is_at(pod, new))).collect()
    }

    /// Tells how far the unit is.
    pub(super) fn report(&mut self) {
        if self.task.new.is_none() {
            self.report_removal();
        }
        let refusal = self.home.and_then(|home| {
            let missing = home.replicas.saturating_sub(count(home.pods.len())).max(1);
            Some((home.refusal()?.to_owned(), missing))
        });
        let there = There { total: self.total, quota: self.quota, at_new: self.at_new(), refusal };
        tell(self.task, self.unit, &there, self.view, self.outcome);
    }

    /// Tells how many pods of a workload that goes away are still there.
    fn report_removal(&mut self) {
        let slices = self.others.iter().copied().chain(self.home);
        let left: usize = slices.map(|slice| slice.pods.len() + slice.terminating.len()).sum();
        if left > 0 {
            let pods = if left == 1 { "1 pod".to_owned() } else { format!("{left} pods") };
            let place = if self.unit.as_str().is_empty() { String::new() } else { format!(" in {}", self.unit) };
            let (id, verb) = (self.task.id, if left == 1 { "is" } else { "are" });
            self.outcome.reasons.push(Reason::Following { what: format!("{pods} of {id}{place} {verb} gone") });
        }
    }

    /// Says what comes next in the unit, and tells how far it is.
    pub(super) fn run(&mut self, owned_by_handle: bool) {
        self.wake_when_given_up();
        if !owned_by_handle {
            self.note_idle();
            self.size_slices();
            self.move_pods();
        }
        self.report();
        if self.task.last {
            self.finish();
        }
    }

    /// Makes slices and sets how many pods each has: smaller only once the pods that go are out of service, larger
    /// only where there is room beside what still runs.
    fn size_slices(&mut self) {
        let in_others: u32 = self.others.iter().map(|slice| slice.replicas).sum();
        let share = self.task.traffic.and_then(|traffic| traffic.stays);
        let stays = share.map_or(self.total - self.quota, |share| share.up(self.total));
        let kept_outside = match self.task.method {
            // Old pods live in slices of their own; they may also come back there.
            Method::Recreate if self.others.iter().any(|slice| self.is_old(slice)) => stays,
            _ => stays.min(in_others).min(self.beyond_stable()),
        };
        let wanted_at_home = match (self.task.method, self.task.new) {
            (_, None) => 0,
            (Method::Recreate | Method::Install, _) => self.quota,
            (Method::InPlace | Method::Rebalance | Method::Remove, _) => self.total - kept_outside,
        };
        let mut wanted: Vec<(&'a Slice<'a>, u32)> = self.share_outside(kept_outside);
        wanted.extend(self.home.map(|home| (home, wanted_at_home)));
        for (slice, replicas) in wanted {
            if replicas < slice.replicas {
                self.shrink(slice, replicas);
            } else {
                if replicas > slice.replicas {
                    self.grow(slice, replicas);
                }
                self.keep_in_service(slice);
            }
        }
        if self.home.is_none() && wanted_at_home > 0 {
            self.make_home(wanted_at_home);
        }
    }

    /// Returns how many pods of other slices there is use for: where stable was kept in full, none of a version beside it.
    fn beyond_stable(&self) -> u32 {
        let stable = self.home.filter(|home| self.is_old(home));
        stable.map_or(u32::MAX, |home| self.total.saturating_sub(home.replicas))
    }

    /// Puts back into service what was taken out to go away and stays after all: the ReplicaSet controller may have
    /// taken another pod, or the frontier has moved back.
    fn keep_in_service(&mut self, slice: &'a Slice<'a>) {
        // While more are listed than are to stay, some of these are going: put back now, they would be taken in service.
        let are_going = count(slice.pods.len()) > slice.replicas;
        if are_going || self.home.is_some_and(|home| home.object.name() == slice.object.name()) {
            return;
        }
        for pod in &slice.pods {
            settle(pod, self.outcome);
        }
    }

    fn is_old(&self, slice: &Slice<'_>) -> bool {
        self.task.old.is_some_and(|old| slice.digest == labels::digest_label(&old.digest))
    }

    /// Shares what stays outside of home: versions in between go first, the stable one last; but before any pod that
    /// serves goes one that does not, or a broken version in between would use up what may be unavailable, and block.
    fn share_outside(&self, kept: u32) -> Vec<(&'a Slice<'a>, u32)> {
        let serving = |slice: &Slice<'_>| {
            let available = slice.pods.iter().filter(|pod| pod.is_available(self.task.now, self.min_ready));
            count(available.count()).min(slice.replicas)
        };
        // Where pods come before others go, stable ones come for those of a version in between, which nobody vouches for.
        let stable = self.others.iter().filter(|slice| self.is_old(slice)).max_by_key(|slice| slice.replicas);
        if let Some(stable) = stable.filter(|_| self.surge() > 0) {
            let is_it = |slice: &Slice<'_>| slice.object.name() == stable.object.name();
            return self.others.iter().map(|slice| (*slice, if is_it(slice) { kept } else { 0 })).collect();
        }
        let mut shares: Vec<(&'a Slice<'a>, u32)> = self.others.iter().map(|slice| (*slice, 0)).collect();
        let mut left = kept;
        for (serves, stable) in [(true, true), (true, false), (false, true), (false, false)] {
            for (slice, share) in shares.iter_mut().filter(|(slice, _)| self.is_old(slice) == stable) {
                let some = if serves { serving(slice) } else { slice.replicas - serving(slice) };
                let here = left.min(some);
                *share += here;
                left -= here;
            }
        }
        // Those that are missing come back as the stable version.
        if let Some((_, share)) = shares.iter_mut().find(|(slice, _)| self.is_old(slice)) {
            *share += left;
        }
        shares
    }

    /// Returns how many more pods there is room for in the unit, beside what runs or is still on its way out.
    fn room(&self) -> u32 {
        let everything = self.others.iter().copied().chain(self.home);
        let there: u32 =
            everything.map(|slice| slice.replicas.max(count(slice.pods.len())) + self.leaving(slice)).sum();
        (self.total + self.surge()).saturating_sub(there + self.coming)
    }

    /// Returns how many pods there may be beside the wanted ones meanwhile.
    fn surge(&self) -> u32 {
        self.task.policy.max_surge.up(self.total)
    }

    /// Returns how many of a slice's pods are on their way out. Going back, those that somebody's finalizer holds for
    /// longer than the deadline are not waited for.
    fn leaving(&self, slice: &Slice<'_>) -> u32 {
        let waited_for = |since: &&Option<Timestamp>| match (since, self.task.drain_at_most) {
            (Some(since), Some(at_most)) => *since + at_most > self.task.now,
            _ => true,
        };
        count(slice.terminating.iter().filter(waited_for).count())
    }

    /// Looks again when pods that do not go need not be waited for any more.
    fn wake_when_given_up(&mut self) {
        let Some(at_most) = self.task.drain_at_most else { return };
        let slices = self.others.iter().copied().chain(self.home);
        let ends = slices.flat_map(|slice| &slice.terminating).filter_map(|since| Some((*since)? + at_most));
        if let Some(at) = ends.filter(|at| *at > self.task.now).min() {
            self.outcome.wake_at(at);
        }
    }

    fn make_home(&mut self, replicas: u32) {
        // In place, pods are born as the old version and moved on, so that the frontier is never overshot.
        let version = match self.task.method {
            Method::InPlace => self.task.old.or(self.task.new),
            _ => self.task.new,
        };
        let Some(workload) = version else { return };
        self.outcome.done = false;
        if !self.may_come(None) {
            return;
        }
        let topology = self.task.policy.topology.as_ref();
        let unit_type = topology.map(|topology| topology.unit_type.as_str());
        // Configuration is owned by its slices, so the slice comes first, and its pods last.
        let replicas = if workload.config.is_empty() { replicas.min(self.room()) } else { 0 };
        self.coming += replicas;
        let new = NewSlice { workload, rollout: self.task.rollout, unit: self.unit, unit_type, replicas };
        let object = slice::build(&new);
        if self.view.by_key(&object.key()).is_some() {
            let what = format!("{} of an earlier try is gone", object.name());
            self.outcome.reasons.push(Reason::Following { what });
            return;
        }
        let why = format!("{} of {} is made", object.name(), self.task.id);
        self.outcome.actions.push(Action::create(object, why));
    }

    fn scale(&mut self, slice: &Slice<'_>, replicas: u32) {
        let why = format!("{}: {} → {replicas} pods", slice.object.name(), slice.replicas);
        let body = json!({ "spec": { "replicas": replicas } });
        self.outcome.actions.push(Action::merge(slice.object, body, why));
    }

    /// Returns whether pods may come in a slice, or in one that is still to be made: requests must go to one version
    /// only before there is another.
    fn may_come(&mut self, slice: Option<&Slice<'_>>) -> bool {
        let Some(traffic) = self.task.traffic.filter(|traffic| !traffic.narrowed) else { return true };
        let version = slice.map(|slice| slice.digest.to_owned());
        let version = version.or_else(|| self.task.new.map(|new| labels::digest_label(&new.digest)));
        let serves = traffic.serving.is_some() && traffic.serving == version;
        self.outcome.done &= serves;
        serves
    }

    /// Notes since when the old side gets no requests, and takes the note away when it is to get some again.
    fn note_idle(&mut self) {
        for slice in self.others.iter().copied().chain(self.home) {
            let noted = slice.object.annotation(labels::IDLE_SINCE).is_some();
            let serves = self.task.traffic.is_none_or(|traffic| traffic.serving.as_deref() == Some(slice.digest));
            let is_left = self.task.traffic.is_some_and(|traffic| traffic.settled && !traffic.delay.is_zero());
            let note = match noted {
                true if serves => serde_json::Value::Null,
                false if is_left && !serves && self.is_old(slice) => json!(self.task.now.to_string()),
                _ => continue,
            };
            self.outcome.done = false;
            let body = json!({ "metadata": { "annotations": { labels::IDLE_SINCE: note } } });
            let what = if serves { "gets requests again" } else { "gets no requests any more" };
            self.outcome.actions.push(Action::merge(slice.object, body, format!("{} {what}", slice.object.name())));
        }
    }

    /// Returns how many pods a slice beside stable needs still, where requests return to stable as its pods get ready: the
    /// others make room for these.
    fn held(&self, slice: &Slice<'_>) -> Option<u32> {
        let traffic = self.task.traffic.filter(|traffic| traffic.serving.as_deref() != Some(slice.digest))?;
        Some(traffic.held?.up(self.total))
    }

    /// Returns whether pods of a slice may go: requests must go where they are to go, and the old side stays a while.
    fn may_go(&mut self, slice: &Slice<'_>) -> bool {
        if self.held(slice).is_some() {
            return true;
        }
        let Some(traffic) = self.task.traffic else { return true };
        // While the old side serves, it only follows the wanted total.
        let serves = traffic.serving.as_deref() == Some(slice.digest);
        if !traffic.settled || traffic.delay.is_zero() || !self.is_old(slice) || serves {
            return traffic.settled;
        }
        let noted = slice.object.annotation(labels::IDLE_SINCE).and_then(|since| since.parse::<Timestamp>().ok());
        let until = noted.unwrap_or(self.task.now) + traffic.delay;
        if until > self.task.now {
            self.outcome.wake_at(until);
            // It is meant to last: the stage makes progress.
            self.outcome.progress = self.outcome.progress.max(Some(until));
            self.outcome.reasons.push(Reason::OldStays { workload: self.task.id.to_owned(), until });
            return false;
        }
        noted.is_some()
    }

    fn grow(&mut self, slice: &'a Slice<'a>, replicas: u32) {
        self.outcome.done = false;
        if !self.may_come(Some(slice)) {
            return;
        }
        let possible = replicas.min(slice.replicas + self.room());
        if possible <= slice.replicas {
            let what = format!("old pods of {} are gone", self.task.id);
            self.outcome.reasons.push(Reason::Following { what });
            return;
        }
        if let Some(missing) = self.missing_config(slice) {
            self.outcome.reasons.push(Reason::Following { what: format!("{missing} is there") });
            return;
        }
        self.coming += possible - slice.replicas;
        self.scale(slice, possible);
    }

    /// Names a piece of configuration that a slice's pods read and that is not in the cluster yet.
    fn missing_config(&self, slice: &Slice<'_>) -> Option<String> {
        let versions = [self.task.new, self.task.old].into_iter().flatten();
        let workload = versions.into_iter().find(|one| labels::digest_label(&one.digest) == slice.digest)?;
        let missing = workload.config.iter().find(|object| self.view.by_key(&object.key()).is_none())?;
        Some(missing.key().to_string())
    }

    /// Takes the pods that are too many out of service, then makes the slice smaller by those that are out.
    fn shrink(&mut self, slice: &'a Slice<'a>, replicas: u32) {
        self.outcome.done = false;
        let replicas = self.held(slice).map_or(replicas, |held| replicas.max(held));
        if replicas >= slice.replicas || !self.may_go(slice) {
            if self.task.traffic.is_none_or(|traffic| traffic.known) {
                self.keep_in_service(slice);
            }
            return;
        }
        let excess = slice.replicas - replicas;
        // Pods that were never made need no drain. The slice's own status tells: pods may be listed later than it.
        let made = slice.object.number(&["status", "replicas"]).and_then(|made| u32::try_from(made).ok()).unwrap_or(0);
        let unborn = slice.replicas.saturating_sub(count(slice.pods.len()).max(made));
        let mut going = unborn.min(excess);
        let mut places = going;
        // Those that the slice was made smaller by already, and that are still listed, are not counted again.
        let asked = slice.pods.len().saturating_sub(usize::try_from(slice.replicas).unwrap_or(usize::MAX));
        for pod in in_order(self.task, slice.pods.iter(), |pod| pod.moving_to() == Some("away")).into_iter().skip(asked)
        {
            if places >= excess {
                break;
            }
            let idle =
                !pod.is_in_service() && !self.drain.is_served(pod) && pod.moving_to().is_none() && !pod.is_ready();
            if idle {
                going += 1;
                places += 1;
                continue;
            }
            let begun = pod.moving_to() == Some("away");
            if !begun && (self.task.still || !self.budget.take(pod, self.task.now, self.min_ready)) {
                break;
            }
            // Its place among those that go is taken: no other pod goes instead of it.
            places += 1;
            going += u32::from(self.outcome.take(self.drain.step(pod, Goal::Away)));
        }
        if going > 0 {
            self.scale(slice, slice.replicas - going);
        }
    }

    /// Moves pods at home between the versions until as many as the quota are, or are becoming, the new one.
    fn move_pods(&mut self) {
        let (Some(home), Some(new)) = (self.home, self.task.new) else { return };
        let digest = labels::digest_label(&new.digest);
        let leaving = |pod: &Pod<'_>| pod.moving_to() == Some("away");
        let becoming = |pod: &Pod<'_>| match pod.moving_to() {
            // Until it is gone it is what it is, or another would become new beside it.
            Some("away") => is_at(pod, new),
            Some(to) => to == digest,
            None => is_at(pod, new),
        };
        let shrinking = home.replicas > self.home_size() || count(home.pods.len()) > home.replicas;
        let mut have = count(home.pods.iter().filter(|pod| becoming(pod)).count());
        for pod in in_order(self.task, home.pods.iter(), |pod| pod.moving_to().is_some()) {
            if leaving(pod) && shrinking {
                continue;
            }
            let is_new = is_at(pod, new);
            let goes = becoming(pod);
            // Which side it should end on: as it is going, unless there are too few or too many.
            let goal_is_new = if goes && have > self.quota && !self.keeps(is_new) {
                have -= 1;
                false
            } else if !goes && have < self.quota {
                match pod.moving_to().is_some() || self.may_move(pod) {
                    true => {
                        have += 1;
                        true
                    }
                    false => false,
                }
            } else {
                goes
            };
            match (goal_is_new, is_new) {
                (true, true) => settle(pod, self.outcome),
                (true, false) => self.step(pod, Goal::Version(new)),
                (false, true) => self.back(pod, home),
                // A pod of the version before, or of one in between, that stays what it is.
                (false, false) => settle(pod, self.outcome),
            }
        }
    }

    /// Returns how many pods home is to have, as `size_slices` counts it.
    fn home_size(&self) -> u32 {
        match self.task.method {
            Method::Recreate | Method::Install => self.quota,
            _ => {
                let in_others: u32 = self.others.iter().map(|slice| slice.replicas).sum();
                self.total - (self.total - self.quota).min(in_others).min(self.beyond_stable())
            }
        }
    }

    /// Returns whether a pod of too many at the new version is left as it is: where only recreating brings back the
    /// old one, making the slice smaller does it.
    fn keeps(&self, is_new: bool) -> bool {
        let patchable = matches!(self.task.method, Method::InPlace) && self.task.old.is_some();
        is_new && !patchable
    }

    fn may_move(&mut self, pod: &Pod<'_>) -> bool {
        !self.task.still && self.budget.take(pod, self.task.now, self.min_ready)
    }

    fn step(&mut self, pod: &'a Pod<'a>, goal: Goal<'_>) {
        self.outcome.done = false;
        match self.drain.step(pod, goal) {
            Step::Act(action) => self.outcome.actions.push(action.putting_back(pod.object)),
            other => {
                self.outcome.take(other);
            }
        }
    }

    /// Takes a pod of too many at the new version back to the old one.
    fn back(&mut self, pod: &'a Pod<'a>, home: &'a Slice<'a>) {
        let old = self.task.old.filter(|_| self.task.method == Method::InPlace);
        let Some(old) = old.filter(|old| labels::digest_label(&old.digest) == home.digest || self.task.last) else {
            return settle(pod, self.outcome);
        };
        let begun = pod.moving_to() == Some(labels::digest_label(&old.digest).as_str());
        if begun || self.budget.take(pod, self.task.now, self.min_ready) {
            self.step(pod, Goal::Version(old));
        }
        self.outcome.done = false;
    }

    /// At the last stage: the slice's template follows its pods, and slices without pods go.
    fn finish(&mut self) {
        let done = self.outcome.units.get(self.unit).is_some_and(|unit| unit.done == self.total);
        let empty = self.others.iter().all(|slice| slice.pods.is_empty() && self.leaving(slice) == 0);
        if !done || !empty {
            self.outcome.done = false;
            return;
        }
        if let (Some(home), Some(new)) = (self.home, self.task.new) {
            self.follow(home, new);
        }
        for slice in self.others.iter().filter(|slice| slice.replicas == 0) {
            self.outcome.done = false;
            let why = format!("{} has no pods any more", slice.object.name());
            self.outcome.actions.push(Action::delete(slice.object, false, why));
        }
    }

    /// Lets a slice's template follow its pods.
    fn follow(&mut self, home: &Slice<'_>, new: &Workload) {
        let topology = self.task.policy.topology.as_ref();
        let unit_type = topology.map(|topology| topology.unit_type.as_str());
        let template = slice::slice_template(new, &self.task.rollout.app, self.unit, unit_type, home.hash());
        let digest = labels::digest_label(&new.digest);
        let live = Object(home.object.0["spec"]["template"].clone());
        if home.digest == digest && (new.differs || !diff::template_differs(&template, &live.0)) {
            return;
        }
        self.outcome.done = false;
        let body = json!([
            { "op": "replace", "path": "/spec/template", "value": template },
            { "op": "add", "path": format!("/metadata/labels/{}", labels::DIGEST.replace('/', "~1")), "value": digest },
        ]);
        let why = format!("{}: its template follows its pods", home.object.name());
        let patch = crate::core::cluster::PatchType::Json;
        self.outcome.actions.push(Action::patch(home.object, patch, body, why));
    }
}

/// Returns the slice where pods of the new version are: one of that digest, or the one that is changed in place.
fn home<'a>(task: &Task<'_>, observed: &'a Observed<'a>, unit: &Unit) -> Option<&'a Slice<'a>> {
    let of = |workload: Option<&Workload>| {
        let digest = labels::digest_label(&workload?.digest);
        let slices = observed.slices.iter().filter(|slice| slice.unit == *unit && slice.digest == digest);
        // Should there be two, the one with more pods; the other is emptied.
        slices.max_by_key(|slice| (slice.replicas, slice.object.name().to_owned()))
    };
    of(task.new).or_else(|| if task.method == Method::InPlace { of(task.old) } else { None })
}
