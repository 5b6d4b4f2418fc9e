//! HAProxy, told and asked over its Runtime API: pods as servers of one backend, each with a weight.
//!
//! # Flow
//!
//! [`Asked`] is what there is to know of a backend; [`state::parse`] makes a [`State`] of the answer. From what
//! is [`Wanted`] and that state, [`plan::commands`] says what to do next and [`plan::verify`] whether
//! it is done. Both are functions of what HAProxy itself says: what it forgets when it starts anew (every weight, every
//! server that was added) is wanted again the next time it is asked.
//!
//! # Assumptions
//!
//! The socket allows `level admin`, and the backend balances by a method that may change while it runs (`roundrobin`,
//! `leastconn`, `random`). Servers whose names begin with `pod:` are Locktender's; others in the backend are left alone.

mod config;
mod plan;
mod share;
mod state;

use std::{fmt, net::SocketAddr, str::FromStr};

use async_trait::async_trait;
pub use config::{Config, ConfigError};
pub use plan::{answer, commands, shares, verify};
use serde::{Deserialize, Serialize};
pub use share::{MOST_WEIGHT, weights};
pub use state::{Server, State, parse};

use crate::core::ask::Unanswered;

/// What the names of our servers begin with; the pod's name follows.
pub const OURS: &str = "pod:";

/// Where HAProxy is told and asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// A Unix socket, by its absolute path.
    Unix(String),
    /// `host:port`.
    Tcp(String),
}

impl FromStr for Runtime {
    type Err = String;

    /// Reads `unix:/path` or `host:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is neither `unix:/path` nor `host:port`");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.to_owned())) } else { Err(wrong()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let good = !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0);
        if good { Ok(Self::Tcp(text.to_owned())) } else { Err(wrong()) }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// A backend of a HAProxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Which HAProxy.
    pub runtime: Runtime,
    /// The backend's name: letters, digits and `-_.:`.
    pub backend: String,
}

impl Asked {
    /// Returns the commands whose answers tell a backend's state, in the order that [`parse`] takes them.
    pub fn questions(&self) -> [String; 2] {
        [format!("show servers state {}", self.backend), format!("show servers conn {}", self.backend)]
    }
}

/// Returns whether a text may name a backend or a server: anything else could end a command and begin another.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// A server as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// [`OURS`] and the pod's name.
    pub name: String,
    /// Where the pod listens.
    pub address: SocketAddr,
    /// 0 to [`MOST_WEIGHT`]; 0 gets nothing but what is sent to it by name.
    pub weight: u32,
}

/// One command of the Runtime API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Adds a server; it gets nothing until it is enabled.
    Add(Member),
    /// Lets a server that is in maintenance, or drained, take requests.
    Ready(String),
    /// Sets a weight, never relative to what it was.
    Weight(String, u32),
    /// Takes no new requests to a server; those that run are finished.
    Drain(String),
    /// Stops a server that has nothing to do any more.
    Maintenance(String),
    /// Forgets a server that is stopped.
    Delete(String),
}

impl Command {
    /// Returns the line that is sent.
    pub fn line(&self, backend: &str) -> String {
        match self {
            Self::Add(Member { name, address, weight }) => {
                format!("add server {backend}/{name} {address} weight {weight}")
            }
            Self::Ready(name) => format!("set server {backend}/{name} state ready"),
            Self::Weight(name, weight) => format!("set server {backend}/{name} weight {weight}"),
            Self::Drain(name) => format!("set server {backend}/{name} state drain"),
            Self::Maintenance(name) => format!("set server {backend}/{name} state maint"),
            Self::Delete(name) => format!("del server {backend}/{name}"),
        }
    }

    /// Returns whether HAProxy's answer says that it was done. An error is text in the same place.
    pub fn is_done(&self, answer: &str) -> bool {
        let answer = answer.trim();
        match self {
            Self::Add(_) => answer == "New server registered.",
            Self::Delete(_) => answer == "Server deleted.",
            _ => answer.is_empty(),
        }
    }
}

/// The servers of a backend that should be there, and no others of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Each once.
    pub members: Vec<Member>,
}

/// Commands for one backend, and what they were decided on.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// Which backend.
    pub asked: Asked,
    /// What HAProxy said of it: told only as long as that is so.
    pub seen: State,
    /// In order; at least one.
    pub commands: Vec<Command>,
    /// Why, for logs.
    pub why: String,
}

/// Why HAProxy was not told, or not of everything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// Its servers are not as they were when the commands were decided on, but so: nothing was sent.
    #[error("HAProxy's servers have changed since they were asked for")]
    Stale(State),
    /// It cannot be reached, or a command was not done.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
}

/// Whoever carries commands to HAProxy.
#[async_trait]
pub trait Tell: Send + Sync {
    /// Sends commands, one after the other, and stops at the first that is not done. Returns the backend's state as it
    /// was read afterwards: what was done is what it says.
    async fn tell(&self, telling: &Telling) -> Result<State, TellError>;
}
