//! A router that is told by objects of the cluster: how it shares requests out between a Service and the one beside it.
//!
//! It is told of more for the new side only once that side is ready, and of less at once. What it says of that is asked;
//! until it says yes nothing goes. The Service beside it changes sides, and goes, only once nothing is sent there.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Services, Sided, Switch};
use crate::core::{
    cluster::{ObjectKey, PatchType},
    diff,
    manifest::Object,
    policy::{Drift, Percent},
    rollout::{action::Action, labels, objects, report::Reason},
    traffic::{Answer, Backends, Means, Misfit, Route, Router, Split, Target, changes},
};

/// A router between a Service and the one beside it.
pub(super) struct Routed<'a> {
    switch: &'a Switch<'a>,
    router: &'a Router,
    route: Box<dyn Route>,
}

/// Says why a router's object, where it is part of what is rendered, cannot share requests out between the sides of any
/// of these Services.
pub(super) fn misfit(router: &Router, objects: &[Object], services: &[&Object], suffix: &str) -> Option<String> {
    let mut why = None;
    for service in services {
        let canary = format!("{}-{suffix}", service.name());
        let backends =
            Backends { namespace: service.namespace().to_owned(), stable: service.name().to_owned(), canary };
        let Means::Objects(route) = router.means(backends) else { return None };
        let rendered = |target: &Target| objects.iter().find(|object| object.key() == target.key).cloned();
        // What others look after can be read only once it is needed.
        let read: Vec<Object> = route.reads().iter().map(rendered).collect::<Option<_>>()?;
        match route.set(&read, &Split::default()) {
            Ok(_) => return None,
            Err(Misfit(misfit)) => why = why.or(Some(misfit)),
        }
    }
    why
}

impl<'a> Routed<'a> {
    /// Stands between the Service `stable` and `canary`; `None` where the router is not told by objects.
    pub(super) fn new(switch: &'a Switch<'a>, stable: &ObjectKey, canary: &str) -> Option<Self> {
        let router = switch.beside.router?;
        let (namespace, canary) = (stable.namespace.clone(), canary.to_owned());
        match router.means(Backends { namespace, stable: stable.name.clone(), canary }) {
            Means::Objects(route) => Some(Self { switch, router, route }),
            Means::Proxy(_) => None,
        }
    }

    /// Names every object by which it is told, the people's and its own.
    pub(super) fn told_by(&self) -> impl Iterator<Item = ObjectKey> {
        self.route.reads().into_iter().chain(self.route.makes()).map(|target| target.key)
    }

    /// Names the people's objects by which it is told.
    pub(super) fn reads(&self) -> impl Iterator<Item = ObjectKey> {
        self.route.reads().into_iter().map(|target| target.key)
    }

    fn live(&self) -> Vec<Object> {
        let targets = self.route.reads().into_iter().chain(self.route.makes());
        targets.filter_map(|target| self.switch.view.by_key(&target.key).cloned()).collect()
    }

    /// Returns an object as the application renders it, where it does.
    fn rendered(&self, target: &Target) -> Option<&'a Object> {
        let Switch { course, .. } = self.switch;
        let renders = [course.new, course.old].into_iter().flatten();
        renders.flat_map(|render| &render.objects).find(|object| object.key() == target.key)
    }

    /// Returns the people's objects as they are without us, as far as they are there.
    fn given(&self) -> Vec<Object> {
        let given = |target: Target| {
            let rendered = self.rendered(&target).map(|object| objects::labelled(object, self.switch.app));
            rendered.or_else(|| self.switch.view.by_key(&target.key).cloned())
        };
        self.route.reads().into_iter().filter_map(given).collect()
    }

    /// Says why requests to the Service cannot be shared out by these objects.
    pub(super) fn misfit(&self) -> Option<Misfit> {
        self.route.set(&self.given(), &Split::default()).err()
    }

    /// Returns whether the router does what a split says; without one, whether nothing goes to the other side.
    fn answer(&self, split: Option<&Split>) -> Answer {
        let targets = self.route.reads();
        for target in &targets {
            if !self.switch.view.knows(&target.kind) {
                return Answer::CannotTell(self.unknown(target));
            }
        }
        let live = self.live();
        if split.is_none() && !live.iter().any(|object| targets.iter().any(|target| target.key == object.key())) {
            return Answer::Yes;
        }
        self.route.verify(&live, split)
    }

    /// Returns whether nothing of ours is left in its objects, but for those that another router is told by as well.
    pub(super) fn is_out(&self, shared: &BTreeSet<ObjectKey>) -> Answer {
        let live = self.live();
        let cleared = self.route.clear(&live);
        let of = |objects: &'_ [Object], target: &Target| objects.iter().find(|one| one.key() == target.key).cloned();
        let is_own = |target: &Target| !shared.contains(&target.key);
        let reads: Vec<Target> = self.route.reads().into_iter().filter(is_own).collect();
        let makes: Vec<Target> = self.route.makes().into_iter().filter(is_own).collect();
        if let Some(unknown) = reads.iter().find(|target| !self.switch.view.knows(&target.kind)) {
            return Answer::CannotTell(self.unknown(unknown));
        }
        let is_told = |target: &&Target| of(&live, target) != of(&cleared, target);
        let is_left = |target: &&Target| of(&live, target).is_some_and(|live| self.is_ours(&live));
        if let Some(target) = reads.iter().find(is_told).or_else(|| makes.iter().find(is_left)) {
            return Answer::NotYet(format!("{target}: it does not say so yet"));
        }
        let live: Vec<Object> = reads.iter().filter_map(|target| of(&live, target)).collect();
        if live.is_empty() { Answer::Yes } else { self.route.said(&live) }
    }

    fn unknown(&self, target: &Target) -> String {
        self.switch.view.lost(&target.kind).unwrap_or("its kind is not listed yet").to_owned()
    }

    /// Lets nothing go to the other side any more; returns whether that is so.
    pub(super) fn clear(&self, outcome: &mut Services) -> bool {
        let answer = self.answer(None);
        if answer != Answer::Yes {
            self.put(None, outcome);
            self.tell(answer.clone(), outcome);
        }
        answer == Answer::Yes
    }

    /// Shares requests out as the course wants; returns whether the router does so. `serving` is the version that the
    /// Service itself sends to.
    pub(super) fn share(
        &self,
        one: &Sided<'_>,
        serving: Option<&str>,
        canary: &ObjectKey,
        outcome: &mut Services,
    ) -> bool {
        for target in self.route.reads() {
            // Applied by us, and by nobody else, while there are two sides.
            outcome.managed.insert(target.key);
        }
        let Switch { course, view, .. } = self.switch;
        let beside = view.by_key(canary).filter(|service| !service.is_terminating());
        let is_new = beside.is_some_and(|service| service.label(labels::DIGEST) == Some(one.new_label().as_str()));
        let is_stale = beside.is_some() && !is_new && !self.switch.is_to_stable();
        let wanted = course.split.clone().unwrap_or_else(|| Split::of(Percent::ALL));
        if is_stale || !self.switch.clear && !self.switch.is_to_stable() {
            // Nothing is sent there any more before it changes sides, nor by another way before this one.
            return false;
        }
        let wanted = (!self.switch.is_to_stable()).then_some(wanted);
        let answer = self.answer(wanted.as_ref());
        if answer == Answer::Yes {
            return true;
        }
        let is_less = match &wanted {
            None => true,
            Some(split) => {
                let now = self.route.share(&self.live());
                // At the same share a header's rule, a copy or a cookie can only go where none is wanted.
                split.weight < now || split.weight == now && *split == Split::of(split.weight)
            }
        };
        let may = if is_less {
            self.stable_takes(one, serving)
        } else {
            is_new && self.switch.all_ready && !course.still && self.reaches(one, canary)
        };
        if may && (beside.is_some() || wanted.is_none()) {
            self.put(wanted.as_ref(), outcome);
            self.tell(answer, outcome);
        } else {
            let share = wanted.map_or_else(Percent::default, |split| split.weight);
            let what =
                format!("enough pods of {} are ready for {share} of the requests through {}", one.id, self.router);
            outcome.reasons.push(Reason::Following { what });
        }
        false
    }

    /// Returns whether what the new side gives up can go to stable: the Service sends there, or could.
    fn stable_takes(&self, one: &Sided<'_>, serving: Option<&str>) -> bool {
        let stable = self.switch.stable_label(one);
        let available = super::available(self.switch.course, one, &stable);
        match serving {
            Some(serving) if serving == stable => available > 0,
            _ => available >= one.least_stable,
        }
    }

    /// Returns whether the Service of the new side sends to every ready pod of it, and to no other.
    fn reaches(&self, one: &Sided<'_>, canary: &ObjectKey) -> bool {
        self.switch.followed(canary, &one.new_label()) == Answer::Yes
    }

    /// Brings the objects to what a split makes of them; without one, takes out what is ours.
    fn put(&self, split: Option<&Split>, outcome: &mut Services) {
        outcome.pending = true;
        let given = self.given();
        let wanted = match split.map(|split| self.route.set(&given, split)) {
            Some(Ok(wanted)) => wanted,
            Some(Err(Misfit(why))) => return self.tell(Answer::NotYet(why), outcome),
            None => self.route.clear(&given),
        };
        let made = self.route.makes();
        // Two routers that are told by the same object give it back alike.
        let seen_to: BTreeSet<ObjectKey> = outcome.actions.iter().map(|action| action.write.subject().1).collect();
        for object in wanted.into_iter().filter(|object| !seen_to.contains(&object.key())) {
            let key = object.key();
            if made.iter().any(|target| target.key == key) {
                self.make(&objects::labelled(&object, self.switch.app), outcome);
            } else if self.route.reads().iter().any(|target| target.key == key && self.rendered(target).is_some()) {
                self.switch.apply(object, self.why(split), outcome);
            } else {
                self.patch(&object, split, outcome);
            }
        }
        for target in made.iter().filter(|target| split.is_none() && !seen_to.contains(&target.key)) {
            let live = self.switch.view.by_key(&target.key).filter(|live| self.is_ours(live));
            if let Some(live) = live.filter(|live| !live.is_terminating()) {
                outcome.actions.push(Action::delete(live, false, self.why(split)));
            }
        }
    }

    fn why(&self, split: Option<&Split>) -> String {
        match split {
            Some(split) => format!("{}: {} of the requests to the new version", self.router, split.weight),
            None => format!("{}: all requests to one version", self.router),
        }
    }

    fn is_ours(&self, live: &Object) -> bool {
        live.label(labels::APP) == Some(self.switch.app.as_str())
    }

    /// Makes an object of the router's that is there only while there are two sides.
    fn make(&self, wanted: &Object, outcome: &mut Services) {
        let key = wanted.key();
        if self.switch.view.by_key(&key).is_some_and(|live| !self.is_ours(live)) {
            let why = "it is somebody else's".to_owned();
            outcome.reasons.push(Reason::NotHealthy { object: format!("{}/{}", key.kind, key.name), why });
            return;
        }
        self.switch.apply(wanted.clone(), format!("{} is needed by {}", key.name, self.router), outcome);
    }

    /// Changes an object that others look after, unless they were faster.
    fn patch(&self, wanted: &Object, split: Option<&Split>, outcome: &mut Services) {
        let Some(live) = self.switch.view.by_key(&wanted.key()) else { return };
        let body = changes(&live.0, &wanted.0);
        if !body.is_empty() {
            outcome.actions.push(Action::patch(live, PatchType::Json, json!(body), self.why(split)));
        }
    }

    fn tell(&self, answer: Answer, outcome: &mut Services) {
        let router = self.router.to_string();
        outcome.pending = true;
        match answer {
            Answer::Yes => {}
            Answer::NotYet(why) => outcome.reasons.push(Reason::RouterNotYet { router, why }),
            Answer::CannotTell(why) => outcome.reasons.push(Reason::RouterUnknown { router, why }),
        }
    }
}

impl Switch<'_> {
    /// Applies an object where it differs.
    fn apply(&self, mut wanted: Object, why: String, outcome: &mut Services) {
        let live = self.view.by_key(&wanted.key());
        if let Some(live) = live {
            objects::keep_notes(&mut wanted, live);
        }
        if live.is_some_and(|live| live.is_terminating() || !diff::differs(&wanted, live)) {
            return;
        }
        outcome.actions.push(Action::apply(wanted, live, self.policy.drift == Drift::Correct, why));
    }

    /// Lets the router share requests out between the sides of a workload; returns whether it does.
    pub(super) fn route(
        &self,
        one: &Sided<'_>,
        services: &[(&ObjectKey, Option<String>)],
        outcome: &mut Services,
    ) -> bool {
        let mut misfit = None;
        for (key, serving) in services {
            let canary = self.preview_name(&key.name);
            let Some(routed) = Routed::new(self, key, &canary) else { return true };
            match routed.misfit() {
                Some(why) => misfit = misfit.or(Some((routed, why))),
                None => {
                    let canary = ObjectKey { name: canary, ..(*key).clone() };
                    let settled = routed.share(one, serving.as_deref(), &canary, outcome);
                    outcome.pending |= !settled;
                    return settled;
                }
            }
        }
        let Some((routed, why)) = misfit else { return true };
        // Back, nothing is sent by an object that is not there, or that does not know the other side.
        if self.is_to_stable() && routed.answer(None) == Answer::Yes {
            return true;
        }
        routed.tell(Answer::NotYet(why.0), outcome);
        false
    }
}
