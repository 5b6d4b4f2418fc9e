//! What was read: the watched branch at one commit, alone and with its applications, and what a commit brought.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::core::{
    names::{AppName, Revision},
    policy::{Freeze, Settings},
    problem::Problem,
    repository::Change,
    rollout::input::HeadContent,
};

/// The watched branch at one commit, its applications aside.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The commit.
    pub revision: Revision,
    /// `locktender.yaml`, or its defaults.
    pub settings: Settings,
    /// The freezes, and what is wrong with those that cannot be read.
    pub freezes: Vec<Result<Freeze, Problem>>,
    /// What is wrong with `locktender.yaml`: with it nobody can tell which applications there are.
    pub broken: Option<Vec<Problem>>,
}

impl Branch {
    /// Returns the freeze that applies to an application now. One that cannot be read holds all.
    pub fn frozen(&self, app: &AppName, now: Timestamp) -> Option<String> {
        self.freezes.iter().find_map(|freeze| match freeze {
            Ok(freeze) if freeze.applies(app, now) => Some(match &freeze.reason {
                Some(reason) => format!("{} ({reason})", freeze.name),
                None => freeze.name.clone(),
            }),
            Ok(_) => None,
            Err(problem) => Some(format!("{problem}")),
        })
    }

    /// Returns when a freeze begins or ends next.
    pub fn next_thaw(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.freezes.iter().flatten().flat_map(|freeze| [freeze.from, freeze.until]).flatten();
        times.filter(|at| *at > now).min()
    }
}

/// The watched branch at one commit, with all its applications.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Everything but the applications.
    pub branch: Branch,
    /// What each application renders. One whose directory is gone is not here.
    pub apps: BTreeMap<AppName, HeadContent>,
}

impl Snapshot {
    /// Returns what an application renders.
    pub fn content(&self, app: &AppName) -> HeadContent {
        match (&self.branch.broken, self.apps.get(app)) {
            (Some(problems), _) => HeadContent::Broken(problems.clone()),
            (None, Some(content)) => content.clone(),
            (None, None) => HeadContent::Removed,
        }
    }

    /// Returns every problem, of all applications.
    pub fn problems(&self) -> Vec<Problem> {
        let contents = self.apps.values().filter_map(|content| match content {
            HeadContent::Broken(problems) => Some(problems),
            _ => None,
        });
        let freezes = self.branch.freezes.iter().filter_map(|freeze| freeze.as_ref().err());
        let broken = self.branch.broken.iter().flatten();
        contents.flatten().chain(freezes).chain(broken).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// What a commit brought.
#[derive(Debug)]
pub struct News {
    /// The branch as it is now.
    pub branch: Branch,
    /// The applications that may render something else now. One whose directory is gone is [`HeadContent::Removed`].
    pub contents: BTreeMap<AppName, HeadContent>,
    /// What differs from the commit that was read before; `None` where everything may.
    pub changes: Option<Vec<Change>>,
}
