//! HAProxy: the pods of a workload as servers of its backend, each with a weight that makes the share.
//!
//! It follows no Service, so its servers are seen to here at all times, at rest as well: what it forgets when it starts
//! anew is told again. Every write is decided on what it said last, and what it does is read back.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Services, Sided, Switch, selects, services};
use crate::core::{
    ask::{self, Asking, Question, Said},
    manifest::Object,
    policy::Percent,
    rollout::{
        labels,
        observe::{Observed, Pod},
        render::{Render, Workload},
        report::Reason,
        sides::{self, Former},
        steer::Course,
        strategy::workload::Proxied,
    },
    traffic::{
        Answer,
        haproxy::{self, Asked, Command, Member, OURS, State, Telling, Wanted},
    },
};

/// How long HAProxy may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked while it does not do yet what it was told.
const WHILE_IT_FOLLOWS: SignedDuration = SignedDuration::from_millis(200);
/// How often it is asked while servers go that get nothing any more.
const WHILE_SERVERS_GO: SignedDuration = SignedDuration::from_secs(1);
/// How often it is asked at rest: it tells nobody when it starts anew.
const AT_REST: SignedDuration = SignedDuration::from_secs(5);
/// One that another router took the place of is gone when it gave no answer so many times in a row.
const TRIES: usize = 3;

/// Says why a proxy cannot be told where an application's pods are.
pub(super) fn misfit(render: &Render, preview: Option<&str>) -> Option<String> {
    let routed: Vec<(&Object, &Workload)> =
        routed(render).filter(|(service, _)| preview != Some(service.name())).collect();
    match routed.as_slice() {
        [(service, workload)] if port(service, workload).is_some() => None,
        [(service, _)] => Some(format!("the port of Service/{} on its pods cannot be told", service.name())),
        [] => Some("a proxy needs one Service that says where pods listen, and there is none".to_owned()),
        several => {
            let names: Vec<&str> = several.iter().map(|(service, _)| service.name()).collect();
            let names = names.join(", ");
            Some(format!("a proxy needs one Service that says where pods listen, and there are {names}"))
        }
    }
}

/// Returns the Services that send to staged workloads, with these.
fn routed(render: &Render) -> impl Iterator<Item = (&Object, &Workload)> {
    services(Some(render)).flat_map(|service| {
        render.workloads.values().filter(|one| selects(service, one)).map(move |one| (service, one))
    })
}

/// Returns the port of a Service's first port on a workload's pods.
fn port(service: &Object, workload: &Workload) -> Option<u16> {
    let port = service.at(&["spec", "ports"])?.as_array()?.first()?;
    let number = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    match port.get("targetPort") {
        None => number(&port["port"]),
        Some(Value::String(name)) => {
            let containers = workload.template()["spec"]["containers"].as_array()?.iter();
            let mut ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
            number(&ports.find(|port| port["name"] == name.as_str())?["containerPort"])
        }
        Some(value) => number(value),
    }
}

/// What HAProxy is told of one workload's pods.
struct Backend<'a> {
    switch: &'a Switch<'a>,
    asked: &'a Asked,
    port: u16,
    /// Whether it is to be told also that no pod is left.
    ends: bool,
}

/// What HAProxy said last, and to what.
struct Heard<'a> {
    question: Question,
    heard: Option<&'a ask::Answer>,
    state: Option<&'a State>,
}

/// Asks again after a while: soon where something is to follow.
fn ask_again(question: Question, heard: Option<&ask::Answer>, settled: bool, more: bool, outcome: &mut Services) {
    let patience = match (settled, more) {
        (false, _) => WHILE_IT_FOLLOWS,
        (true, true) => WHILE_SERVERS_GO,
        (true, false) => AT_REST,
    };
    let due = heard.map_or(Timestamp::UNIX_EPOCH, |heard| heard.at + patience);
    outcome.questions.push(Asking { question, due: Some(due), keep: TRIES });
}

impl Switch<'_> {
    /// Tells HAProxy of the pods. Everywhere but where there are two sides every pod that is in service gets the same.
    pub(super) fn proxy(&self, asked: &Asked, sided: &[Sided<'_>], outcome: &mut Services) {
        let Some((workload, port)) = self.proxied() else { return };
        let ends = self.course.new.is_none();
        if ends && (self.course.handed_over)(&workload.key) {
            // Whoever has the pods now tells of them.
            return;
        }
        let backend = Backend { switch: self, asked, port, ends };
        let Heard { question, heard, state } = self.heard(asked);
        let one = sided.iter().find(|one| one.id == workload.id);
        let observed = Observed::read(self.view, self.app, &workload.key);
        let (wanted, reached, held) = match one {
            Some(one) => backend.two_sides(one, &observed, state, outcome),
            None => (backend.members(observed.pods(), 1), true, None),
        };
        let wanted = Wanted { members: wanted };
        let answer = haproxy::answer(&wanted, heard);
        let is_out = !ends || state.is_some_and(|state| !wanted.leaves_some(state));
        let settled = reached && is_out && answer == Answer::Yes;
        if let Some((one, held)) = one.zip(held)
            && state.is_some_and(|state| haproxy::shares(&wanted, state) == Answer::Yes)
            && self.only_stable_is_called(one)
        {
            outcome.held.insert(one.id.to_owned(), held);
        }
        if let Some(one) = one
            && let Some(traffic) = outcome.traffic.get_mut(one.id)
        {
            // Whoever leaves service is waited for by itself: the others may go on leaving.
            traffic.settled &= reached && state.is_some_and(|state| haproxy::shares(&wanted, state) == Answer::Yes);
            // Its weights change with the number of pods: one that leaves a side is not put back for that.
            traffic.known &= state.is_some() && (traffic.settled || !self.beside.scales_stable);
        }
        outcome.proxied_by(&workload.id, used(state, &answer));
        outcome.pending |= !settled;
        let more = state.is_some_and(|state| backend.tell(&wanted, state, outcome));
        if heard.is_some() {
            self.report(workload, reached, answer, asked, outcome);
        }
        ask_again(question, heard, settled, more, outcome);
    }

    /// Lets a HAProxy that another router takes the place of send to pods of stable alone, as far as stable is told by it
    /// and stays, and forget every other; returns whether another router may be told.
    pub(super) fn forgets(&self, asked: &Asked, former: &Former<'_>, outcome: &mut Services) -> bool {
        let Some((workload, port)) = self.proxied() else { return true };
        let backend = Backend { switch: self, asked, port, ends: true };
        let Heard { question, heard, state } = self.heard(asked);
        let observed = Observed::read(self.view, self.app, &workload.key);
        let wanted =
            Wanted { members: backend.members(observed.pods().filter(|pod| self.stays(former, workload, pod)), 1) };
        let answer = haproxy::answer(&wanted, heard);
        let settled = answer == Answer::Yes && state.is_some_and(|state| !wanted.leaves_some(state));
        // What stands for nothing but stable's own pods, and is gone, keeps nobody waiting.
        let answers = self.course.answers.of(&question);
        let is_gone = !former.between && answers.len() == TRIES && answers.iter().all(|answer| answer.result.is_err());
        if !is_gone {
            outcome.pending |= !settled;
            outcome.proxied_by(&workload.id, used(state, &answer));
        }
        let clear = !former.between || answer == Answer::Yes;
        let more = state.is_some_and(|state| backend.tell(&wanted, state, outcome));
        if heard.is_some() {
            self.report(workload, true, answer, asked, outcome);
        }
        ask_again(question, heard, settled || is_gone, more, outcome);
        clear
    }

    /// Returns whether a HAProxy that is not told of new pods any more keeps a pod.
    fn stays(&self, former: &Former<'_>, workload: &Workload, pod: &Pod<'_>) -> bool {
        let Course { new, old, last, drain_at_most, .. } = *self.course;
        let is_at = |render: Option<&Render>| {
            let workload = render.and_then(|render| render.workloads.get(&workload.id));
            workload.is_some_and(|workload| labels::digest_label(&workload.digest) == pod.digest)
        };
        let stable = if self.is_to_stable() { new } else { old };
        let by_it = stable.and_then(|stable| stable.policy.as_ref()).and_then(sides::router_of);
        // Where pods stay what they are, or nothing is staged any more, it ends here.
        let ends = last && drain_at_most.is_none() && (self.course.policy.is_none() || is_at(new));
        by_it == sides::router_of(former.policy) && is_at(stable) && !ends
    }

    /// Returns the workload whose pods a proxy is told of, and their port.
    fn proxied(&self) -> Option<(&Workload, u16)> {
        let renders = [self.course.new, self.course.old].into_iter().flatten();
        let is_preview = |service: &Object| self.beside.preview_service == Some(service.name());
        let (service, workload) = renders.flat_map(routed).find(|(service, _)| !is_preview(service))?;
        Some((workload, port(service, workload)?))
    }

    /// Returns what a HAProxy said last.
    fn heard(&self, asked: &Asked) -> Heard<'_> {
        let question = Question::Proxy(ask::Proxy { asked: asked.clone(), timeout: TIMEOUT });
        let heard = self.course.answers.latest(&question);
        let state = heard.and_then(|heard| match &heard.result {
            Ok(Said::Servers(state)) => Some(state),
            _ => None,
        });
        Heard { question, heard, state }
    }

    fn report(&self, workload: &Workload, reached: bool, answer: Answer, asked: &Asked, outcome: &mut Services) {
        let router = format!("HAProxy's backend {}", asked.backend);
        match answer {
            Answer::Yes if reached => {}
            Answer::Yes => {
                let what = format!("enough pods of {} are ready for their share through {router}", workload.id);
                outcome.reasons.push(Reason::Following { what });
            }
            Answer::NotYet(why) => outcome.reasons.push(Reason::RouterNotYet { router, why }),
            Answer::CannotTell(why) => outcome.reasons.push(Reason::RouterUnknown { router, why }),
        }
    }
}

impl Backend<'_> {
    /// Returns the pods that may get requests, as servers.
    fn members<'p, 'v: 'p>(&self, pods: impl Iterator<Item = &'p Pod<'v>>, weight: u32) -> Vec<Member> {
        let in_service = pods.filter(|pod| pod.labelled && pod.is_ready());
        let member = |pod: &Pod<'_>| {
            let ip: IpAddr = pod.object.text(&["status", "podIP"]).parse().ok()?;
            let name = format!("{OURS}{}", pod.object.name());
            Some(Member { name, address: SocketAddr::new(ip, self.port), weight })
        };
        in_service.filter_map(member).collect()
    }

    /// Returns the servers of both sides, whether the shares are those that are to be reached, and what goes beside stable while
    /// requests return to it.
    fn two_sides(
        &self,
        one: &Sided<'_>,
        observed: &Observed<'_>,
        state: Option<&State>,
        outcome: &mut Services,
    ) -> (Vec<Member>, bool, Option<Percent>) {
        let Switch { course, all_ready, .. } = self.switch;
        let count = |members: &[Member]| u32::try_from(members.len()).unwrap_or(u32::MAX);
        let new_label = one.new_label();
        let stable = self.switch.stable_label(one);
        let is_back = self.switch.is_to_stable();
        let of = |label: &str| observed.pods().filter(|pod| pod.digest == label).collect::<Vec<_>>();
        let new = self.members(of(&new_label).into_iter(), 1);
        let others: Vec<&Pod<'_>> = observed.pods().filter(|pod| pod.digest != new_label).collect();
        // A version in between serves until there are enough pods of stable.
        let enough = super::available(course, one, &stable) >= one.least_stable;
        let between = others.iter().any(|pod| pod.digest != stable);
        // Back, whatever runs beside stable is the other side.
        let others = if is_back || !enough { others } else { of(&stable) };
        let waits = !is_back && !enough && between;
        let old = self.members(others.into_iter(), 1);
        let scales = self.switch.beside.scales_stable;
        // Where pods of the new side go while it keeps a share, those on their way out have theirs still.
        let counts = |pod: &&&Pod<'_>| scales || pod.labelled && pod.is_ready();
        let ours = of(&new_label);
        let names = ours.iter().filter(counts).map(|pod| format!("{OURS}{}", pod.object.name())).collect();
        let now = state.map_or_else(Percent::default, |state| share(state, &names));
        let wanted = course.split.as_ref().map_or(Percent::ALL, |split| split.weight);
        let may = match is_back {
            true => super::available(course, one, &new_label) >= one.least_stable,
            false => *all_ready && !course.still,
        };
        let given = match is_back {
            true if scales => {
                let (none, theirs) = (Percent::default(), now.rest());
                self.switch.on_the_way_back(one, none, theirs, count(&old), outcome).rest()
            }
            false if scales && wanted < now => self.switch.on_the_way_back(one, wanted, now, count(&new), outcome),
            // Less is taken back at once; more is given only to pods that are there for it.
            _ if may || wanted <= now => wanted,
            _ => now,
        };
        let given = match (new.is_empty(), old.is_empty()) {
            // Whoever is there serves.
            (true, false) => Percent::default(),
            (false, true) => Percent::ALL,
            _ => given,
        };
        let (for_new, for_old) = haproxy::weights(given, count(&new), count(&old));
        let held = match (is_back, wanted < given) {
            // All has returned from a version in between.
            (false, _) if between && enough => Some(Percent::default()),
            (true, _) if scales && given != wanted => Some(given.rest()),
            (false, true) if scales => Some(given),
            _ => None,
        };
        let weighed = |members: Vec<Member>, weight| members.into_iter().map(move |member| Member { weight, ..member });
        (weighed(new, for_new).chain(weighed(old, for_old)).collect(), given == wanted && !waits, held)
    }

    /// Tells HAProxy what is to be done next; returns whether there is anything. What was not done by the time that it was
    /// told waits for the next answer.
    fn tell(&self, wanted: &Wanted, state: &State, outcome: &mut Services) -> bool {
        // Where no pod is left in service, those that were are better than none.
        if wanted.members.is_empty() && !self.ends {
            return false;
        }
        let drains = |name: &str| state.servers.iter().any(|server| server.name == name && server.drains);
        let mut commands = haproxy::commands(wanted, state);
        // Said already: it answers still what it had.
        commands.retain(|command| !matches!(command, Command::Drain(name) if drains(name)));
        if commands.is_empty() || state.told {
            return !commands.is_empty();
        }
        let lines: Vec<String> = commands.iter().map(|command| command.line(&self.asked.backend)).collect();
        outcome.tells.push(Telling {
            asked: self.asked.clone(),
            seen: state.clone(),
            commands,
            why: format!("HAProxy: {}", lines.join("; ")),
        });
        true
    }
}

/// Returns the share that these servers have of all requests.
fn share(state: &State, names: &BTreeSet<String>) -> Percent {
    let serving =
        state.servers.iter().filter(|server| server.name.starts_with(OURS) && !server.stopped && !server.drains);
    let (mut theirs, mut all) = (0_u64, 0_u64);
    for server in serving {
        all += u64::from(server.weight);
        theirs += if names.contains(&server.name) { u64::from(server.weight) } else { 0 };
    }
    let rounded = (theirs * 100 + all / 2) / all.max(1);
    u8::try_from(rounded).ok().and_then(Percent::new).unwrap_or(Percent::ALL)
}

/// Returns which pods cannot go yet.
fn used(state: Option<&State>, answer: &Answer) -> Proxied {
    match state {
        None => Proxied::Unknown(match answer {
            Answer::CannotTell(why) | Answer::NotYet(why) => why.clone(),
            Answer::Yes => "HAProxy was not asked yet".to_owned(),
        }),
        Some(state) => {
            let used = state.servers.iter().filter(|server| !(server.stopped || server.drains && server.used == 0));
            Proxied::Used(used.filter_map(|server| server.name.strip_prefix(OURS)).map(str::to_owned).collect())
        }
    }
}
