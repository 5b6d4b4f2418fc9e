//! What the API server saw, matched with the ledger.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod examples;
pub mod explain;
pub mod history;
mod killed;
pub mod log;
mod requests;

use std::fmt::Write as _;

use self::{explain::explain, history::History, log::Request};
use crate::support::git::Remote;

/// Says which writes no record explains, each with what was written and recorded around it.
pub fn unexplained(requests: &[Request], remote: &Remote) -> Vec<String> {
    let pushes = remote.pushes();
    let mut history = History::of(&remote.bare(), &pushes);
    history.hear(requests);
    let explained = explain(requests, &history);
    let mut wrong = Vec::new();
    for (at, one) in explained.iter().enumerate() {
        let Err(why) = &one.why else { continue };
        let mut text = format!("invariant 6: {why}: {} {}\n", one.request.came, told(one.request));
        for other in &explained[at.saturating_sub(3)..explained.len().min(at + 4)] {
            let by = other.why.as_ref().map_or("?", String::as_str);
            let _ = writeln!(text, "    {} {by}: {}", other.request.came, told(other.request));
        }
        for (time, commit) in pushes.iter().filter(|(time, _)| (*time - one.request.came).abs().get_seconds() < 3) {
            let _ = writeln!(text, "    {time} pushed: {}", remote.subject(commit));
        }
        wrong.push(text);
    }
    wrong
}

/// Tells a write in one line.
fn told(request: &Request) -> String {
    let mut body = request.body.to_string();
    if body.len() > 600 {
        body.truncate((0..=600).rev().find(|at| body.is_char_boundary(*at)).unwrap_or(0));
    }
    let Request { verb, resource, namespace, name, subresource, .. } = request;
    format!("{verb} {resource} {namespace}/{name} {subresource} {body}")
}
