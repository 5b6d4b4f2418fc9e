//! The remote: where its branch is, bringing it here, and pushing to it with compare-and-swap.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::access::Grant;
use super::patience::Patience;
use super::program::{Output, Program, REMOTE};
use super::url::{Branch, Transport};
use crate::core::names::Revision;
use crate::core::repository::RepositoryError;

/// The mirror's one reference: where the remote's branch was when it was last fetched or pushed to.
pub(super) const TIP: &str = "refs/locktender/tip";

/// One branch of one remote.
pub(super) struct Remote {
    pub program: Program,
    pub branch: Branch,
    /// Whether reading from it was refused.
    pub reading: Patience,
    /// Whether pushing to it was refused: many may read who may not push.
    pub pushing: Patience,
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

/// Why git did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Objects are damaged, here or there: another copy may be whole.
    Damage(String),
    /// Everything else.
    Other(RepositoryError),
}

impl From<Failure> for RepositoryError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damage(text) => Self::Damaged(text),
            Failure::Other(error) => error,
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        Self::Other(error)
    }
}

impl Remote {
    /// Makes what a contact needs, unless the remote refused just that a short while ago.
    fn grant(&self, patience: &Patience) -> Result<Grant, RepositoryError> {
        let grant = self.program.grant()?;
        patience.check(grant.credentials, Instant::now())?;
        Ok(grant)
    }

    /// Asks where the branch is, without bringing anything here.
    pub async fn tip(&self, mirror: &Path) -> Result<Revision, RepositoryError> {
        let grant = self.grant(&self.reading)?;
        let tip = self.ask_tip(&grant, mirror).await;
        self.reading.heard(grant.credentials, Instant::now(), tip)
    }

    async fn ask_tip(&self, grant: &Grant, mirror: &Path) -> Result<Revision, RepositoryError> {
        let reference = self.branch.reference();
        let output = self.program.run(grant, mirror, &["ls-remote", "--refs", REMOTE, &reference]).await?;
        if output.code != Some(0) {
            return Err(self.failure(&output).into());
        }
        // The pattern also matches the ends of longer names.
        let line = output.stdout.lines().find_map(|line| line.split_once('\t').filter(|(_, name)| *name == reference));
        line.map(|(id, _)| Revision::new(id)).ok_or_else(|| RepositoryError::NoBranch(self.branch.as_str().to_owned()))
    }

    /// Brings the branch's objects into `mirror` and sets [`TIP`] there; on any error `TIP` stays.
    pub async fn fetch(&self, mirror: &Path) -> Result<(), Failure> {
        let grant = self.grant(&self.reading)?;
        match self.fetch_with(&grant, mirror).await {
            Err(Failure::Damage(what)) => Err(Failure::Damage(what)),
            Err(Failure::Other(error)) => Ok(self.reading.heard(grant.credentials, Instant::now(), Err(error))?),
            Ok(()) => Ok(self.reading.heard(grant.credentials, Instant::now(), Ok(()))?),
        }
    }

    async fn fetch_with(&self, grant: &Grant, mirror: &Path) -> Result<(), Failure> {
        let refspec = format!("+{}:{TIP}", self.branch.reference());
        let args = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--no-show-forced-updates",
            REMOTE,
            &refspec,
        ];
        let output = self.program.run_limited(grant, mirror, &args).await?;
        // Git leaves out what a shallow remote cannot give, and calls that a success.
        let left_out = output.stderr.contains("shallow roots are not allowed");
        if output.code == Some(0) && !left_out { Ok(()) } else { Err(self.failure(&output)) }
    }

    /// Pushes `commit`, which must be in `mirror`, if the branch is at `onto` and stays there until the server swaps.
    pub async fn push(&self, mirror: &Path, onto: &Revision, commit: &Revision) -> Result<Pushed, RepositoryError> {
        let grant = self.grant(&self.pushing)?;
        let pushed = self.push_with(&grant, mirror, onto, commit).await;
        self.pushing.heard(grant.credentials, Instant::now(), pushed)
    }

    async fn push_with(
        &self,
        grant: &Grant,
        mirror: &Path,
        onto: &Revision,
        commit: &Revision,
    ) -> Result<Pushed, RepositoryError> {
        let reference = self.branch.reference();
        // The lease alone decides. `commit` descends from `onto`, so nothing that others pushed is ever overwritten.
        let lease = format!("--force-with-lease={reference}:{onto}");
        let refspec = format!("{commit}:{reference}");
        let args = ["push", "--porcelain", "--no-verify", "--recurse-submodules=no", &lease, REMOTE, &refspec];
        let output = self.program.run(grant, mirror, &args).await?;
        let line = output.stdout.lines().find(|line| line.split('\t').nth(1).is_some_and(|spec| *spec == refspec));
        let line = line.map(|line| line.split_at(1));
        match line {
            Some(("!", rest)) if !BROKE.iter().any(|broke| rest.contains(broke)) => {
                let summary = rest.rsplit('\t').next().unwrap_or(rest);
                let stale =
                    ["(stale info)", "(fetch first)", "(non-fast-forward)"].iter().any(|s| summary.ends_with(s));
                Ok(Pushed::Rejected { reason: reason(summary, &output.stderr), stale })
            }
            Some((" " | "=" | "+", _)) if output.code == Some(0) => Ok(Pushed::Accepted),
            _ => Err(self.failure(&output).into()),
        }
    }

    /// Tells from git's words what went wrong.
    fn failure(&self, output: &Output) -> Failure {
        let text = output.stderr.replace('\n', "; ");
        let text = if text.is_empty() { format!("git ended with {:?}", output.code) } else { text };
        // Said after most failures, whatever they were.
        let lower = text.to_lowercase().replace("could not read from remote repository", "");
        let sign = SIGNS.iter().find(|(words, _)| words.iter().any(|word| lower.contains(word))).map(|(_, sign)| sign);
        let url = &self.program.url;
        Failure::Other(match sign {
            Some(Sign::NoBranch) => RepositoryError::NoBranch(self.branch.as_str().to_owned()),
            Some(Sign::Shallow) => {
                RepositoryError::Damaged(format!("{url} is a shallow clone, without the history that is needed"))
            }
            Some(Sign::Redirect) => {
                RepositoryError::Denied(format!("{url} redirects elsewhere, which is not followed: {text}"))
            }
            Some(Sign::ChangedKey) => {
                let shown = text.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap_or("another");
                let shown = shown.trim_end_matches(['.', ';']);
                RepositoryError::Untrusted(format!(
                    "{url} shows the host key {shown}, which is not the one that known_hosts has for it: somebody may be \
                     in its place; put the new key into known_hosts once you know that it is its own"
                ))
            }
            Some(Sign::UnknownKey) => RepositoryError::Untrusted(format!(
                "known_hosts has no key of {url}, so nobody knows who it is: {text}"
            )),
            Some(Sign::Certificate) => RepositoryError::Untrusted(text),
            Some(Sign::Denied) => RepositoryError::Denied(text),
            Some(Sign::Mirror) => RepositoryError::Mirror(text),
            Some(Sign::Damage) => return Failure::Damage(text),
            None => RepositoryError::Unreachable(text),
        })
    }

    /// Returns where the repository of a local remote is.
    pub fn local_path(&self) -> Option<&PathBuf> {
        match self.program.url.transport() {
            Transport::Local(path) => Some(path),
            _ => None,
        }
    }
}

/// How git sums up a push that the server could not take, whatever it would have said of it: it broke off, or its
/// repository went away meanwhile.
const BROKE: [&str; 2] = ["[remote failure]", "(missing necessary objects)"];

/// What a failure's words point to.
enum Sign {
    NoBranch,
    Shallow,
    Redirect,
    ChangedKey,
    UnknownKey,
    Certificate,
    Denied,
    Mirror,
    Damage,
}

/// What git says, in lower case, and what it means; the first that fits counts.
const SIGNS: &[(&[&str], Sign)] = &[
    (&["couldn't find remote ref"], Sign::NoBranch),
    (&["shallow update not allowed", "shallow roots are not allowed"], Sign::Shallow),
    (&["returned error: 30", "redirection"], Sign::Redirect),
    (&["host identification has changed"], Sign::ChangedKey),
    (&["host key verification failed", "host key is known for"], Sign::UnknownKey),
    (
        &[
            "certificate verification failed",
            "ssl certificate problem",
            "certificate subject name",
            "server certificate",
        ],
        Sign::Certificate,
    ),
    (
        &[
            "authentication failed",
            "could not read username",
            "could not read password",
            "returned error: 401",
            "returned error: 403",
            "/' not found",
            "access denied",
            "service not enabled",
            "dubious ownership",
            // What `ssh` and servers behind it say.
            "permission denied (",
            "too many authentication failures",
            "repository not found",
            "denied to",
            "marked as read only",
            "not allowed to push",
            "does not appear to be a git repository",
            // A server that wants a client's certificate.
            "certificate required",
            "bad certificate",
            "fatal alert has been received",
        ],
        Sign::Denied,
    ),
    (
        &["no space left", "read-only file system", "insufficient permission", "unable to create", "cannot lock"],
        Sign::Mirror,
    ),
    (
        &[
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
            "missing blob",
            "missing tree",
            "unable to read",
            "could not read",
            "failed to traverse",
            "not a git repository: '/",
        ],
        Sign::Damage,
    ),
];

/// Puts what the server's hooks said before git's summary of it.
fn reason(summary: &str, stderr: &str) -> String {
    let said: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("remote: ")).map(str::trim).collect();
    let summary = summary.trim();
    if said.is_empty() { summary.to_owned() } else { format!("{}: {summary}", said.join("; ")) }
}
