//! From what is wanted and what HAProxy says: what to do next, and whether it is done.

use super::{Command, Member, OURS, Server, State, Wanted};
use crate::core::{
    ask::{self, Said},
    traffic::Answer,
};

/// Returns what is to be done next, in this order: servers come, then weights change, then servers go. A server goes in
/// steps, each seen before the next: it drains, it is stopped once it answers nothing any more, it is forgotten.
pub fn commands(wanted: &Wanted, state: &State) -> Vec<Command> {
    let (mut come, mut change, mut go) = (Vec::new(), Vec::new(), Vec::new());
    for member in &wanted.members {
        match state.servers.iter().find(|server| server.name == member.name) {
            None => come.extend([Command::Add(member.clone()), Command::Ready(member.name.clone())]),
            // Another pod had the name.
            Some(server) if server.address != Some(member.address) => go.push(next_to_go(server)),
            Some(server) => {
                if server.weight != member.weight {
                    change.push(Command::Weight(member.name.clone(), member.weight));
                }
                if server.stopped || server.drains {
                    change.push(Command::Ready(member.name.clone()));
                }
            }
        }
    }
    go.extend(left(wanted, state).map(next_to_go));
    come.into_iter().chain(change).chain(go).collect()
}

impl Wanted {
    /// Returns whether there are servers of ours that are not wanted any more, on their way out or not.
    pub fn leaves_some(&self, state: &State) -> bool {
        left(self, state).next().is_some()
    }
}

/// Returns our servers that are not wanted any more.
fn left<'s>(wanted: &Wanted, state: &'s State) -> impl Iterator<Item = &'s Server> {
    let names: Vec<&str> = wanted.members.iter().map(|member| member.name.as_str()).collect();
    state.servers.iter().filter(move |server| server.name.starts_with(OURS) && !names.contains(&server.name.as_str()))
}

fn next_to_go(server: &Server) -> Command {
    let name = server.name.clone();
    match server {
        Server { stopped: true, .. } => Command::Delete(name),
        Server { drains: true, used: 0, .. } => Command::Maintenance(name),
        // Said again it changes nothing, and there is nothing to do but wait.
        _ => Command::Drain(name),
    }
}

/// Returns what the latest answer of HAProxy says of what is wanted. Without one that makes sense nothing is known.
pub fn answer(wanted: &Wanted, heard: Option<&ask::Answer>) -> Answer {
    match heard.map(|heard| &heard.result) {
        None => Answer::NotYet("HAProxy was not asked yet".to_owned()),
        Some(Ok(Said::Servers(state))) => verify(wanted, state),
        Some(Ok(_)) => Answer::CannotTell("HAProxy was asked for something else".to_owned()),
        Some(Err(error)) => Answer::CannotTell(format!("HAProxy: {error}")),
    }
}

/// Returns whether HAProxy sends requests as it is wanted, and whether those that go have answered what they had.
pub fn verify(wanted: &Wanted, state: &State) -> Answer {
    left(wanted, state).fold(shares(wanted, state), |answer, server| {
        answer.and_then(|| match server {
            Server { stopped: false, drains: false, name, .. } => Answer::NotYet(format!("{name} still gets requests")),
            Server { used: 0, .. } => Answer::Yes,
            Server { used, name, .. } => Answer::NotYet(format!("{name} still answers {used} requests")),
        })
    })
}

/// Returns whether HAProxy sends requests to those that it is to send to as it is wanted, whoever else there is.
pub fn shares(wanted: &Wanted, state: &State) -> Answer {
    let members = wanted.members.iter().map(|member| {
        let server = state.servers.iter().find(|server| server.name == member.name);
        server.map_or_else(|| Answer::NotYet(format!("HAProxy does not know {}", member.name)), |it| serves(member, it))
    });
    members.fold(Answer::Yes, |answer, next| answer.and_then(|| next))
}

fn serves(member: &Member, server: &Server) -> Answer {
    let name = &member.name;
    let why = if server.address != Some(member.address) {
        format!("{name} is another pod's address")
    } else if server.weight != member.weight {
        format!("{name} has weight {}, not {}", server.weight, member.weight)
    } else if server.stopped || server.drains {
        format!("{name} takes no requests")
    } else if !server.runs {
        format!("HAProxy finds {name} down")
    } else {
        return Answer::Yes;
    };
    Answer::NotYet(why)
}
