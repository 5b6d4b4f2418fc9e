//! The remote: where its branch is, bringing it here, and pushing to it with compare-and-swap.

use std::path::{Path, PathBuf};

use super::program::{Output, Program, REMOTE};
use super::url::{Branch, Transport};
use crate::core::names::Revision;
use crate::core::repository::RepositoryError;

/// The mirror's one reference: where the remote's branch was when it was last fetched or pushed to.
pub(super) const TIP: &str = "refs/locktender/tip";

/// One branch of one remote.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub program: Program,
    pub branch: Branch,
}

/// What the remote did with a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Accepted,
    Rejected {
        reason: String,
        /// True when the refusal itself says that the branch is elsewhere.
        stale: bool,
    },
}

impl Remote {
    /// Asks where the branch is, without bringing anything here.
    pub async fn tip(&self, mirror: &Path) -> Result<Revision, RepositoryError> {
        let reference = self.branch.reference();
        let output = self.program.run(mirror, &["ls-remote", "--refs", REMOTE, &reference]).await?;
        if output.code != Some(0) {
            return Err(self.failure(&output));
        }
        // The pattern also matches the ends of longer names.
        let line = output.stdout.lines().find_map(|line| line.split_once('\t').filter(|(_, name)| *name == reference));
        line.map(|(id, _)| Revision::new(id)).ok_or_else(|| RepositoryError::NoBranch(self.branch.as_str().to_owned()))
    }

    /// Brings the branch's objects into `mirror` and sets [`TIP`] there; on any error `TIP` stays.
    pub async fn fetch(&self, mirror: &Path) -> Result<(), RepositoryError> {
        let refspec = format!("+{}:{TIP}", self.branch.reference());
        let args = [
            "fetch",
            "--progress",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--no-show-forced-updates",
            REMOTE,
            &refspec,
        ];
        let output = self.program.run(mirror, &args).await?;
        if output.code == Some(0) { Ok(()) } else { Err(self.failure(&output)) }
    }

    /// Pushes `commit`, which must be in `mirror`, if the branch is at `onto` and stays there until the server swaps.
    pub async fn push(&self, mirror: &Path, onto: &Revision, commit: &Revision) -> Result<Pushed, RepositoryError> {
        let reference = self.branch.reference();
        // The lease alone decides. `commit` descends from `onto`, so nothing that others pushed is ever overwritten.
        let lease = format!("--force-with-lease={reference}:{onto}");
        let refspec = format!("{commit}:{reference}");
        let args = ["push", "--porcelain", "--no-verify", "--recurse-submodules=no", &lease, REMOTE, &refspec];
        let output = self.program.run(mirror, &args).await?;
        let line = output.stdout.lines().find(|line| line.split('\t').nth(1).is_some_and(|spec| *spec == refspec));
        let line = line.map(|line| line.split_at(1));
        match line {
            Some(("!", rest)) if !rest.contains("[remote failure]") => {
                let summary = rest.rsplit('\t').next().unwrap_or(rest);
                let stale =
                    ["(stale info)", "(fetch first)", "(non-fast-forward)"].iter().any(|s| summary.ends_with(s));
                Ok(Pushed::Rejected { reason: reason(summary, &output.stderr), stale })
            }
            Some((" " | "=" | "+", _)) if output.code == Some(0) => Ok(Pushed::Accepted),
            _ => Err(self.failure(&output)),
        }
    }

    /// Tells from git's words what went wrong.
    fn failure(&self, output: &Output) -> RepositoryError {
        let text = output.stderr.replace('\n', "; ");
        let text = if text.is_empty() { format!("git ended with {:?}", output.code) } else { text };
        let lower = text.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if has(&["couldn't find remote ref"]) {
            RepositoryError::NoBranch(self.branch.as_str().to_owned())
        } else if has(&["shallow update not allowed"]) {
            RepositoryError::Damaged(format!(
                "{} is a shallow clone, without the history that is needed",
                self.program.url
            ))
        } else if has(&["returned error: 30", "redirection"]) {
            RepositoryError::Denied(format!("{} redirects elsewhere, which is not followed: {text}", self.program.url))
        } else if has(&[
            "authentication failed",
            "could not read username",
            "could not read password",
            "returned error: 401",
            "returned error: 403",
            "access denied",
            "service not enabled",
            "dubious ownership",
        ]) || has(&["repository '", "not found"]) && has(&["fatal: repository '"])
        {
            RepositoryError::Denied(text)
        } else if has(&[
            "no space left",
            "read-only file system",
            "insufficient permission",
            "unable to create",
            "cannot lock",
        ]) {
            RepositoryError::Mirror(text)
        } else if has(DAMAGE) {
            RepositoryError::Damaged(text)
        } else {
            RepositoryError::Unreachable(text)
        }
    }

    /// Returns where the repository of a local remote is.
    pub fn local_path(&self) -> Option<&PathBuf> {
        match self.program.url.transport() {
            Transport::Local(path) => Some(path),
            Transport::Git | Transport::Http => None,
        }
    }
}

/// What git says when objects, here or there, are not what they should be.
const DAMAGE: &[&str] = &[
    "corrupt",
    "bad object",
    "did not send all necessary objects",
    "index-pack failed",
    "unpack-objects failed",
    "inflate",
    "collision",
    "bad pack",
    "bad tree",
    "hash mismatch",
    "sha1 mismatch",
    "invalid index-pack",
    "missing blob",
    "missing tree",
    "unable to read",
    "could not read",
    "failed to traverse",
    "not a git repository: '/",
];

/// Puts what the server's hooks said before git's summary of it.
fn reason(summary: &str, stderr: &str) -> String {
    let said: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("remote: ")).map(str::trim).collect();
    let summary = summary.trim();
    if said.is_empty() { summary.to_owned() } else { format!("{}: {summary}", said.join("; ")) }
}
