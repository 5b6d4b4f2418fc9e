//! Which side of a workload its Services send to while it has two: narrowed to one version before the other comes,
//! switched once the other is ready, widened when it is alone.
//!
//! The EndpointSlice controller copies a Service's labels onto its EndpointSlices. A narrowed Service carries the
//! version that it is narrowed to as a label: slices that carry it were made from the narrowed selector.

mod beside;
mod fit;
mod former;
mod leaving;
mod proxy;
mod route;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::{Value, json};

use self::beside::previews_of;
pub(super) use self::fit::{cannot_ask, cannot_switch};
use super::{
    action::Action,
    health::HealthOf,
    labels, objects,
    observe::Observed,
    render::{Maker, Render, Workload},
    report::Reason,
    steer::{Course, totals},
    strategy::workload::{Proxied, Traffic},
    view::View,
};
use crate::core::{
    ask::Asking,
    cluster::ObjectKey,
    diff,
    manifest::{Object, strings},
    names::AppName,
    policy::{Beside, Drift, Percent, RolloutPolicy},
    traffic::{Answer, Backends, Means, haproxy::Telling},
};

/// What comes next for the Services of workloads that have two sides.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// What may be done now.
    pub actions: Vec<Action>,
    /// What to ask proxies, and the pods of a side that requests are to be sent to.
    pub questions: Vec<Asking>,
    /// Why not more.
    pub reasons: Vec<Reason>,
    /// Whether something is still to be done.
    pub pending: bool,
    /// How traffic is, by workload: of those that have two sides.
    pub traffic: BTreeMap<String, Traffic>,
    /// What a proxy of its own says of pods, by workload.
    pub proxied: BTreeMap<String, Proxied>,
    /// The objects that are seen to here.
    pub managed: BTreeSet<ObjectKey>,
    /// What proxies are told now.
    pub tells: Vec<Telling>,
}

impl Services {
    /// Takes what one more proxy says of a workload's pods.
    fn proxied_by(&mut self, id: &str, now: Proxied) {
        let both = match self.proxied.remove(id) {
            Some(other) => other.and(now),
            None => now,
        };
        self.proxied.insert(id.to_owned(), both);
    }
}

/// A workload that has two sides, or more.
struct Sided<'a> {
    id: &'a str,
    new: &'a Workload,
    old: Option<&'a Workload>,
    observed: Observed<'a>,
    /// How many pods of the side that is gone to must be available before it gets everything.
    least_new: u32,
    /// How many of stable's.
    least_stable: u32,
}

impl Sided<'_> {
    fn new_label(&self) -> String {
        labels::digest_label(&self.new.digest)
    }

    fn old_label(&self) -> Option<String> {
        self.old.map(|old| labels::digest_label(&old.digest))
    }

    fn has_slice(&self, label: &str) -> bool {
        self.observed.slices.iter().any(|slice| slice.digest == label)
    }

    fn selects(&self, service: &Object) -> bool {
        selects(service, self.new) || self.old.is_some_and(|old| selects(service, old))
    }
}

/// Returns whether a Service sends to a workload's pods that are in service.
fn selects(service: &Object, workload: &Workload) -> bool {
    let selector = strings(service.at(&["spec", "selector"]));
    let labels = strings(workload.template()["metadata"].get("labels"));
    let ours = [labels::IN_SERVICE, labels::DIGEST];
    service.namespace() == workload.key.namespace
        && selector.contains_key(labels::IN_SERVICE)
        && selector.iter().all(|(name, value)| ours.contains(&name.as_str()) || labels.get(name) == Some(value))
}

fn services(render: Option<&Render>) -> impl Iterator<Item = &Object> {
    render.into_iter().flat_map(|render| &render.objects).filter(|object| object.text(&["kind"]) == "Service")
}

/// Says what comes next for Services. Total and pure.
pub(super) fn next(course: &Course<'_>, app: &AppName, view: &View) -> Services {
    let mut outcome = Services::default();
    let beside = course.policy.and_then(|policy| Some((policy, policy.strategy.beside()?)));
    let mut previews = BTreeSet::new();
    let clear = former::next(course, app, view, &mut outcome);
    if let Some((policy, beside)) = beside {
        let sided = sided(course, policy, app, view);
        let ready = all_ready(course, &sided);
        let healthy = all_healthy(course, beside, app, view, &sided, &mut outcome);
        let all_ready = clear && ready && healthy;
        let mut switch = Switch { course, policy, beside, app, view, all_ready, clear };
        switch.clear &= switch.is_alone();
        for one in &sided {
            let keys = switch.workload(one, &mut outcome);
            previews.extend(keys);
        }
        if let Some(Means::Proxy(asked)) = beside.router.map(|router| router.means(nowhere())) {
            switch.proxy(&asked, &sided, &mut outcome);
        }
        previews.extend(switch.still_routed(&previews, &mut outcome));
    } else if let Some(policy) = course.policy {
        leaving::next(course, policy, app, view, &mut outcome);
    }
    if !clear {
        former::hold(course, &mut outcome);
        previews.extend(previews_of(app, view).map(Object::key));
    }
    for preview in previews_of(app, view) {
        if previews.contains(&preview.key()) {
            continue;
        }
        outcome.pending = true;
        if !preview.is_terminating() {
            let why = format!("Service/{} has nothing to look at any more", preview.name());
            outcome.actions.push(Action::delete(preview, false, why));
        }
    }
    outcome
}

/// Names no Services, where only what kind of a router it is matters.
fn nowhere() -> Backends {
    Backends { namespace: String::new(), stable: String::new(), canary: String::new() }
}

/// Lists the workloads that have two sides now, or will have.
fn sided<'a>(course: &Course<'a>, policy: &RolloutPolicy, app: &AppName, view: &'a View) -> Vec<Sided<'a>> {
    let Some(render) = course.new else { return Vec::new() };
    let one = |(id, new): (&'a String, &'a Workload)| {
        if new.maker() != Maker::Slices {
            return None;
        }
        let old = course.old.and_then(|old| old.workloads.get(id));
        let observed = Observed::read(view, app, &new.key);
        let label = labels::digest_label(&new.digest);
        let others = observed.slices.iter().any(|slice| slice.digest != label);
        let differs = old.is_some_and(|old| old.digest != new.digest);
        // Where nothing was stable, there is no side to go back to: pods serve as they come.
        let is_install = old.is_none() && course.quota.is_some();
        let has_two = if course.last { others } else { differs };
        if !has_two || is_install {
            return None;
        }
        let total: u32 = totals(new, policy, course.totals, view)?.values().sum();
        let quota = course.quota.map(|quota| quota.get(id).map_or(0, |counts| counts.values().sum()));
        let least_stable = total.saturating_sub(policy.strategy.pods().may_miss(total));
        Some(Sided { id, new, old, observed, least_new: quota.unwrap_or(least_stable), least_stable })
    };
    render.workloads.iter().filter_map(one).collect()
}

/// Counts the pods of a version that may get requests.
fn available(course: &Course<'_>, one: &Sided<'_>, label: &str) -> u32 {
    available_of(course, &one.observed, label)
}

fn available_of(course: &Course<'_>, observed: &Observed<'_>, label: &str) -> u32 {
    let min_ready = signed(course.policy.map_or(std::time::Duration::ZERO, |policy| policy.strategy.pods().min_ready));
    let available = observed.pods().filter(|pod| pod.digest == label && pod.is_available(course.now, min_ready));
    u32::try_from(available.count()).unwrap_or(u32::MAX)
}

/// Returns whether every workload's new side may get everything: going forward they switch together.
fn all_ready(course: &Course<'_>, all: &[Sided<'_>]) -> bool {
    all.iter().all(|one| available(course, one, &one.new_label()) >= one.least_new)
}

/// Returns whether every workload's new side answers its health check: asked going forward, of pods that somebody's
/// requests are to be sent to. What has switched stays, whatever its pods say then.
fn all_healthy(
    course: &Course<'_>,
    beside: Beside<'_>,
    app: &AppName,
    view: &View,
    all: &[Sided<'_>],
    outcome: &mut Services,
) -> bool {
    let Some(check) = beside.health_check.filter(|_| course.quota.is_some()) else { return true };
    let mut healthy = true;
    for one in all {
        let label = one.new_label();
        let is_preview = |service: &Object| {
            service.label(labels::PREVIEW_OF).is_some() || beside.preview_service == Some(service.name())
        };
        let mut called = services(course.new).chain(services(course.old)).filter(|service| one.selects(service));
        let mut live = view.of_app(app, "Service").filter(|service| one.selects(service) && !is_preview(service));
        let has_switched = live.any(|service| narrowed_to(service) == Some(&label));
        // A router may send where no Service does.
        if has_switched || beside.router.is_none() && called.all(is_preview) {
            continue;
        }
        let asked =
            HealthOf { check, workload: one.id, want: one.least_new, since: course.since, answers: course.answers };
        let health = asked.judge(one.observed.pods().filter(|pod| pod.digest == label));
        outcome.questions.extend(health.questions);
        healthy &= health.reason.is_none();
        outcome.pending |= health.reason.is_some();
        outcome.reasons.extend(health.reason);
    }
    healthy
}

/// The switch that is wanted.
struct Switch<'a> {
    course: &'a Course<'a>,
    policy: &'a RolloutPolicy,
    beside: Beside<'a>,
    app: &'a AppName,
    view: &'a View,
    all_ready: bool,
    /// Whether routers that are not named any more have given everything back, and nothing of another strategy is beside.
    clear: bool,
}

impl Switch<'_> {
    /// Goes on where the course is stable's own: back, or at rest.
    fn is_to_stable(&self) -> bool {
        self.course.quota.is_none()
    }

    /// Sees to one workload's Services; returns the previews that are wanted.
    fn workload(&self, one: &Sided<'_>, outcome: &mut Services) -> Vec<ObjectKey> {
        let both = [self.course.new, self.course.old].map(|render| -> BTreeMap<ObjectKey, &Object> {
            services(render).filter(|service| one.selects(service)).map(|it| (it.key(), it)).collect()
        });
        let [new, old] = &both;
        let is_preview = |key: &ObjectKey| self.beside.preview_service == Some(key.name.as_str());
        let now: Vec<(&ObjectKey, Option<String>)> = new
            .keys()
            .filter(|key| old.contains_key(*key) || self.is_to_stable())
            .map(|key| (key, self.current(key)))
            .collect();
        let switched = || now.iter().filter(|(key, _)| !is_preview(key));
        let (want, may) = self.wanted(one, switched().find_map(|(_, current)| current.clone()));
        let mut traffic = Traffic {
            serving: None,
            narrowed: true,
            settled: true,
            known: true,
            keeps_old: !self.course.last,
            delay: if self.is_to_stable() { SignedDuration::ZERO } else { signed(self.beside.scale_down_delay) },
        };
        if switched().next().is_none() {
            // Nobody sends requests: there is nothing to come back to at once.
            traffic.delay = SignedDuration::ZERO;
        }
        for (key, current) in switched() {
            // What cannot be taken yet is left as it is.
            let side = if may { want.clone() } else { current.clone().unwrap_or_else(|| self.fullest(one)) };
            let rendered = if side == one.new_label() { new.get(*key) } else { old.get(*key).or(new.get(*key)) };
            let is_of_either = side == one.new_label() || Some(&side) == one.old_label().as_ref();
            if let Some(service) = rendered.filter(|_| is_of_either) {
                self.put(narrowed(service, self.app, &side), outcome);
            }
            let followed = match current {
                Some(current) => self.followed(key, current),
                None => Answer::NotYet(format!("Service/{} is kept to one version", key.name)),
            };
            traffic.narrowed &= followed == Answer::Yes;
            let settled = (followed == Answer::Yes) && current.as_ref() == Some(&want);
            traffic.settled &= settled;
            traffic.serving = traffic.serving.or(current.clone()).or(Some(side));
            outcome.pending |= !settled;
            self.tell(one, key, &want, may, followed, settled, outcome);
            outcome.managed.insert((*key).clone());
        }
        let between: Vec<(&ObjectKey, Option<String>)> =
            switched().map(|(key, current)| (*key, current.clone())).collect();
        let routed = self.route(one, &between, outcome);
        traffic.settled &= routed;
        // Whoever was leaving waits where it is, out of service, until the router has followed.
        traffic.known &= routed;
        self.one_sided(one, &both, outcome);
        outcome.traffic.insert(one.id.to_owned(), traffic);
        if self.is_to_stable() {
            // What a router sends to stays until it does no more.
            let beside = |key: &ObjectKey| ObjectKey { name: self.preview_name(&key.name), ..key.clone() };
            return if routed { Vec::new() } else { switched().map(|(key, _)| beside(key)).collect() };
        }
        let made: Vec<Object> = match new.keys().any(is_preview) {
            true => Vec::new(),
            false => switched().filter_map(|(key, _)| Some(self.preview(one, new.get(*key)?))).collect(),
        };
        let keys = made.iter().map(Object::key).collect();
        for preview in made {
            if self.may_change_sides(&preview, outcome) {
                self.put_preview(preview, outcome);
            }
        }
        keys
    }

    /// Narrows the Services that only one side has, and the one to look at the new side by, to that side.
    fn one_sided(&self, one: &Sided<'_>, [new, old]: &[BTreeMap<ObjectKey, &Object>; 2], outcome: &mut Services) {
        for (key, service) in new.iter().filter(|(key, _)| !outcome.managed.contains(*key)).collect::<Vec<_>>() {
            self.put(narrowed(service, self.app, &one.new_label()), outcome);
            outcome.managed.insert(key.clone());
        }
        let Some(label) = one.old_label() else { return };
        // One that goes away is not made again.
        for service in old.iter().filter(|(key, _)| !new.contains_key(*key)).map(|(_, service)| service) {
            if self.view.by_key(&service.key()).is_none() {
                continue;
            }
            self.put(narrowed(service, self.app, &label), outcome);
        }
    }

    /// Returns the side that is to serve, and whether it may now.
    fn wanted(&self, one: &Sided<'_>, current: Option<String>) -> (String, bool) {
        let new = one.new_label();
        let available = |label: &str, least: u32| available(self.course, one, label) >= least;
        if self.course.split.as_ref().is_none_or(|split| split.weight == Percent::ALL) {
            let least = if self.is_to_stable() { one.least_stable } else { one.least_new };
            // Going forward all workloads switch together; what has switched stays, whatever becomes of its pods.
            let may = match self.is_to_stable() {
                true => available(&new, least),
                false => self.all_ready && !self.course.still,
            };
            return (new.clone(), may || current.as_ref() == Some(&new));
        }
        // Where nothing is left of stable's, what serves now is the side to stay on.
        let stable = self.stable_label(one);
        match current.filter(|current| !one.has_slice(&stable) && *current != new) {
            Some(current) => (current, true),
            None => (stable.clone(), available(&stable, one.least_stable)),
        }
    }

    /// Returns the version that requests reach anyway where a Service selects all: that of most pods that serve, or
    /// stable's.
    fn fullest(&self, one: &Sided<'_>) -> String {
        let stable = self.stable_label(one);
        let versions: BTreeSet<&str> = one.observed.pods().map(|pod| pod.digest).collect();
        let count = |version: &str| available(self.course, one, version);
        let fullest = versions.into_iter().max_by_key(|version| (count(version), *version == stable));
        fullest.filter(|version| count(version) > 0).map_or(stable.clone(), str::to_owned)
    }

    fn stable_label(&self, one: &Sided<'_>) -> String {
        if self.is_to_stable() { one.new_label() } else { one.old_label().unwrap_or_else(|| one.new_label()) }
    }

    /// Returns the version that a Service is narrowed to now.
    fn current(&self, key: &ObjectKey) -> Option<String> {
        narrowed_to(self.view.by_key(key)?).map(str::to_owned)
    }

    /// Tells why traffic is not where it is to be.
    #[allow(clippy::too_many_arguments)]
    fn tell(
        &self,
        one: &Sided<'_>,
        key: &ObjectKey,
        want: &str,
        may: bool,
        followed: Answer,
        settled: bool,
        outcome: &mut Services,
    ) {
        if settled {
            return;
        }
        let what = match followed {
            _ if !may => format!("enough pods of {} are ready for all requests of Service/{}", one.id, key.name),
            Answer::NotYet(what) | Answer::CannotTell(what) => what,
            Answer::Yes => format!("Service/{} sends to version {want}", key.name),
        };
        outcome.reasons.push(Reason::Following { what });
    }

    /// Applies a Service where it differs.
    fn put(&self, mut wanted: Object, outcome: &mut Services) {
        let key = wanted.key();
        let live = self.view.by_key(&key);
        if let Some(live) = live {
            objects::keep_notes(&mut wanted, live);
        }
        if live.is_some_and(|live| !diff::differs(&wanted, live)) {
            return;
        }
        if live.is_some_and(Object::is_terminating) {
            outcome.pending = true;
            let why = "it is being deleted; it is made anew once it is gone".to_owned();
            outcome.reasons.push(Reason::NotHealthy { object: format!("Service/{}", key.name), why });
            return;
        }
        let going_back = self.course.drain_at_most.is_some();
        if let Some(why) = self.course.refused.get(&key).filter(|_| going_back) {
            // Whether requests go where they should is asked all the same.
            outcome.reasons.push(Reason::Refused { why: format!("Service/{}: {why}", key.name) });
            return;
        }
        outcome.pending = true;
        let side = wanted.label(labels::DIGEST).unwrap_or_default();
        let why = format!("Service/{} sends to version {side} only", key.name);
        outcome.actions.push(Action::apply(wanted, live, self.policy.drift == Drift::Correct, why));
    }

    /// Returns whether the EndpointSlices of a Service name every ready pod of a version, and none of another.
    fn followed(&self, key: &ObjectKey, label: &str) -> Answer {
        let name = &key.name;
        let slices = self.view.of_app(self.app, "EndpointSlice").filter(|slice| {
            slice.namespace() == key.namespace && slice.label("kubernetes.io/service-name") == Some(name)
        });
        let mut named = BTreeSet::new();
        let mut made = false;
        for slice in slices {
            made = true;
            if slice.label(labels::DIGEST) != Some(label) {
                return Answer::NotYet(format!("the endpoints of Service/{name} follow it"));
            }
            for endpoint in slice.at(&["endpoints"]).and_then(Value::as_array).into_iter().flatten() {
                let pod = &endpoint["targetRef"];
                let (pod, uid) = (pod["name"].as_str().unwrap_or_default(), pod["uid"].as_str().unwrap_or_default());
                let known = self.view.get("", "Pod", &key.namespace, pod).filter(|pod| pod.uid() == uid);
                match known.map(|pod| pod.label(labels::DIGEST)) {
                    // One that is gone already is no version's.
                    None if endpoint["conditions"]["ready"] == false => {}
                    None => return Answer::CannotTell(format!("pod {pod}, which Service/{name} sends to, is seen")),
                    Some(version) if version == Some(label) => {}
                    Some(_) => return Answer::NotYet(format!("Service/{name} sends to pod {pod} no more")),
                }
                if endpoint["conditions"]["ready"] != false {
                    named.insert(uid.to_owned());
                }
            }
        }
        let selector =
            self.view.by_key(key).map(|service| strings(service.at(&["spec", "selector"]))).unwrap_or_default();
        let missing = self.view.of_app(self.app, "Pod").find(|pod| {
            let labels = pod.labels();
            pod.namespace() == key.namespace
                && is_ready(pod)
                && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
                && !named.contains(pod.uid())
        });
        match missing {
            Some(pod) => Answer::NotYet(format!("Service/{name} sends to pod {}", pod.name())),
            None if !made => Answer::NotYet(format!("Service/{name} has endpoints")),
            None => Answer::Yes,
        }
    }
}

/// Returns the version that a Service sends to alone.
fn narrowed_to(service: &Object) -> Option<&str> {
    service.at(&["spec", "selector"])?.get(labels::DIGEST)?.as_str()
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.at(&["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    !pod.is_terminating()
        && conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Returns a Service as it sends to one version only.
fn narrowed(service: &Object, app: &AppName, label: &str) -> Object {
    let mut service = objects::labelled(service, app);
    service.set(&["metadata", "labels", labels::DIGEST], json!(label));
    service.set(&["spec", "selector", labels::DIGEST], json!(label));
    service
}
