//! What happens in the demo, one step after the other; every step waits for the ledger to say that it is done.

use owo_colors::OwoColorize as _;

use super::super::{
    gate,
    pods::{Asker, Pods},
    teller::{Teller, has},
};
use crate::{cli::error::Error, core::ledger::Event};

/// The application.
pub const APP: &str = "checkout";
/// The version that is installed, and the one that is released.
pub const VERSIONS: (&str, &str) = ("1.9", "2.0");
/// What was seen at the end of each step, for the closing table.
#[derive(Debug, Default)]
pub struct Seen {
    /// After each stage of the install.
    pub install: Vec<(&'static str, Pods)>,
    /// After each step of the release, in order.
    pub release: Vec<(&'static str, Pods)>,
    /// What the application's directory was in Git before the merge: a tree's id.
    pub before: String,
}

/// Tells the story.
pub struct Story<'t, 'a> {
    teller: &'t mut Teller<'a>,
    asker: Asker,
    seen: Seen,
}

impl<'t, 'a> Story<'t, 'a> {
    /// Begins.
    ///
    /// # Errors
    ///
    /// Pods cannot be asked.
    pub fn new(teller: &'t mut Teller<'a>) -> Result<Self, Error> {
        let asker = Asker::of(&teller.setting.sandbox, APP)?;
        Ok(Self { teller, asker, seen: Seen::default() })
    }

    /// Tells it to the end of the abort, and returns what was seen.
    ///
    /// # Errors
    ///
    /// A step does not end as it should, or git or the cluster does not answer.
    pub async fn tell(mut self) -> Result<(Seen, Asker), Error> {
        self.teller.introduce("a sandbox: units dca and dcb, three nodes each");
        self.install().await?;
        self.release().await?;
        self.step_back().await?;
        self.abort().await?;
        Ok((self.seen, self.asker))
    }

    async fn install(&mut self) -> Result<(), Error> {
        self.teller.heading("checkout 1.9 is in Git, so it is installed: ten pods in batches of 2, 4 and 4");
        for (stage, asks) in [
            ("beta", "One pod of each unit runs. A bad image would have cost two pods. Go on with four more:"),
            ("batch-1", "Six run. Go on with the last four:"),
        ] {
            self.teller.waiting(1, stage).await?;
            self.seen.install.push((stage, self.asker.pods().await?));
            self.teller.pass(gate::confirm(APP, 1, stage, asks)).await?;
        }
        self.teller.until(1, "is completed", |records, _| has(records, Event::Completed)).await?;
        self.seen.install.push(("batch-2", self.asker.pods().await?));
        self.seen.before = self.teller.setting.repositories.id("main:apps/checkout").await?;
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Error> {
        self.teller.heading("a merge releases checkout 2.0");
        self.teller
            .pass(gate::merge(
                APP,
                VERSIONS.0,
                VERSIONS.1,
                "Nothing but the image changes, on a branch that is merged:",
            ))
            .await?;
        self.teller.waiting(2, "beta").await?;
        let before = self.seen.install.last().map(|(_, pods)| pods.clone()).unwrap_or_default();
        let pods = self.see("2.0: beta").await?;
        self.teller.say("  The beta group changed in place. What the pods answer when they are asked over HTTP:\n");
        for pod in &pods.0 {
            let kept = if before.0.iter().any(|old| old.identity == pod.identity) {
                "the same pod as before: name, UID, node and address"
            } else {
                "a new pod"
            };
            let identity = &pod.identity;
            let is_new = pod.version == VERSIONS.1;
            let line = format!(
                "  {:<22}  {}  {:<16} {:<4}  {}",
                identity.name,
                pod.unit,
                identity.address,
                pod.version,
                if is_new { kept } else { "" }
            );
            self.teller.say(if is_new { format!("{}", line.bold()) } else { line }.trim_end());
        }
        self.teller.heading("a confirm opens the gate: six of ten");
        self.teller
            .pass(gate::confirm(
                APP,
                2,
                "beta",
                "Two pods are good. A file that is committed lets the next batch start:",
            ))
            .await?;
        self.teller.waiting(2, "batch-1").await?;
        self.see("beta confirmed").await.map(drop)
    }

    async fn step_back(&mut self) -> Result<(), Error> {
        self.teller.heading("a revert of that confirm closes it again: four go back");
        let log = self.teller.setting.repositories.log(&gate::confirm_path(APP, 2, "beta")).await?;
        let commit = log.first().map(|commit| commit.id.clone()).unwrap_or_default();
        let asks = "HEAD says how far the rollout may be. Without the confirm that is the beta group:";
        self.teller.pass(gate::revert(APP, &commit, 2, "beta", asks)).await?;
        self.teller.waiting(2, "beta").await?;
        self.see("confirm reverted").await?;
        self.teller.heading("confirmed again: six of ten");
        self.teller.pass(gate::confirm(APP, 2, "beta", "The gate asks anew, and is answered anew:")).await?;
        self.teller.waiting(2, "batch-1").await?;
        self.see("confirmed again").await.map(drop)
    }

    async fn abort(&mut self) -> Result<(), Error> {
        self.teller.heading("an abort: exactly the six go back, and Git is repaired");
        self.teller.pass(gate::abort(APP, 2, "Something is wrong with 2.0. An abort asks for no confirms:")).await?;
        self.teller.until(2, "is aborted and Git repaired", |records, _| has(records, Event::Reverted)).await?;
        self.see("aborted").await.map(drop)
    }

    /// Notes the pods, for the closing table.
    async fn see(&mut self, step: &'static str) -> Result<Pods, Error> {
        let pods = self.asker.pods().await?;
        self.seen.release.push((step, pods.clone()));
        Ok(pods)
    }
}
