//! `locktender.yaml`, and freezes.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::names::AppName;

/// What `locktender.yaml` says of a release repository. Everything has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where applications, policies and freezes lie.
    pub paths: Paths,
    /// The watched branch; `None` leaves it to the command line.
    pub branch: Option<String>,
    /// The least time between two pushes of records of going forward.
    pub push_interval: Duration,
    /// Who the controller's commits are by.
    pub identity: Identity,
}

/// Directories, from the repository's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// One directory an application.
    pub apps: String,
    /// One file a policy.
    pub policies: String,
    /// One file a freeze.
    pub freezes: String,
}

/// Who a commit is by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: Paths { apps: "apps".into(), policies: "policies".into(), freezes: "freezes".into() },
            branch: None,
            push_interval: Duration::from_secs(3),
            identity: Identity { name: "Locktender".into(), email: "locktender@localhost".into() },
        }
    }
}

/// A time in which nothing advances. Going back is never stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// The file's name without `.yaml`.
    pub name: String,
    /// When it starts; `None` is from the commit on.
    pub from: Option<Timestamp>,
    /// When it ends; `None` is when the file goes.
    pub until: Option<Timestamp>,
    /// Which applications; empty is all.
    pub applications: Vec<AppName>,
    /// Why, in the person's words.
    pub reason: Option<String>,
}

impl Freeze {
    /// Returns whether it holds `app` at `now`.
    pub fn applies(&self, app: &AppName, now: Timestamp) -> bool {
        let started = self.from.is_none_or(|from| from <= now);
        let ended = self.until.is_some_and(|until| until <= now);
        started && !ended && (self.applications.is_empty() || self.applications.contains(app))
    }
}
