//! What happens in the demo, one step after the other; every step waits for the ledger to say that it is done.

use std::time::Duration;

use owo_colors::OwoColorize as _;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{
    gate::{self, Gate},
    hand::Hand,
    pods::{Asker, Pods},
    screen::Screen,
    setting::Setting,
};
use crate::{
    cli::error::Error,
    core::{
        ledger::{Event, Record},
        names::AppName,
        rollout::report::{Activity, Reason, Report},
    },
};

/// The version that is installed, and the one that is released.
pub const VERSIONS: (&str, &str) = ("1.9", "2.0");
/// How many headings there are.
const STEPS: usize = 7;
/// How often the repository is asked whether something came.
const LOOK: Duration = Duration::from_millis(150);
/// A step whose ledger says nothing new for this long will not end.
const PATIENCE: Duration = Duration::from_secs(150);

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
pub struct Story<'a> {
    setting: &'a Setting,
    asker: Asker,
    screen: &'a mut Screen,
    hand: Hand,
    seen: Seen,
}

impl<'a> Story<'a> {
    /// Begins.
    ///
    /// # Errors
    ///
    /// Pods cannot be asked.
    pub fn new(setting: &'a Setting, screen: &'a mut Screen, hand: Hand) -> Result<Self, Error> {
        Ok(Self { setting, asker: Asker::of(&setting.sandbox)?, screen, hand, seen: Seen::default() })
    }

    /// Tells it to the end of the abort, and returns what was seen.
    ///
    /// # Errors
    ///
    /// A step does not end as it should, or git or the cluster does not answer.
    pub async fn tell(mut self) -> Result<(Seen, Asker, Hand), Error> {
        self.introduce();
        self.install().await?;
        self.release().await?;
        self.step_back().await?;
        self.abort().await?;
        Ok((self.seen, self.asker, self.hand))
    }

    fn introduce(&mut self) {
        let clone = &self.setting.repositories;
        let place = |name: &str, value: &str| format!("  {name:<20}{value}");
        self.screen
            .say(&format!("{}  merge to release, commit to advance, revert to roll back\n", "locktender".bold()));
        self.screen.say(&place("release repository", &clone.remote().display().to_string()));
        self.screen.say(&place("a clone of it", &clone.path().display().to_string()));
        self.screen.say(&place("cluster", "a sandbox: units dca and dcb, three nodes each"));
        let kubeconfig = self.setting.kubeconfig.display();
        self.screen.say(&place("", &format!("kubectl --kubeconfig {kubeconfig} -n shop get pods -o wide")));
        if !self.hand.is_alone() {
            self.screen
                .say("\n  At every gate you see the commands: Enter runs them here, or type them in another terminal.");
        }
    }

    async fn install(&mut self) -> Result<(), Error> {
        self.screen.heading(1, STEPS, "checkout 1.9 is in Git, so it is installed: ten pods in batches of 2, 4 and 4");
        for (stage, asks) in [
            ("beta", "One pod of each unit runs. A bad image would have cost two pods. Go on with four more:"),
            ("batch-1", "Six run. Go on with the last four:"),
        ] {
            self.waiting(1, stage).await?;
            self.seen.install.push((stage, self.asker.pods().await?));
            self.pass(gate::confirm(1, stage, asks)).await?;
        }
        self.until(1, "is completed", |records, _| has(records, Event::Completed)).await?;
        self.seen.install.push(("batch-2", self.asker.pods().await?));
        self.seen.before = self.setting.repositories.id("main:apps/checkout").await?;
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Error> {
        self.screen.heading(2, STEPS, "a merge releases checkout 2.0");
        self.pass(gate::merge(VERSIONS.0, VERSIONS.1, "Nothing but the image changes, on a branch that is merged:"))
            .await?;
        self.waiting(2, "beta").await?;
        let before = self.seen.install.last().map(|(_, pods)| pods.clone()).unwrap_or_default();
        let pods = self.see("2.0: beta").await?;
        self.screen.say("  The beta group changed in place. What the pods answer when they are asked over HTTP:\n");
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
            self.screen.say(if is_new { format!("{}", line.bold()) } else { line }.trim_end());
        }
        self.screen.heading(3, STEPS, "a confirm opens the gate: six of ten");
        self.pass(gate::confirm(2, "beta", "Two pods are good. A file that is committed lets the next batch start:"))
            .await?;
        self.waiting(2, "batch-1").await?;
        self.see("beta confirmed").await.map(drop)
    }

    async fn step_back(&mut self) -> Result<(), Error> {
        self.screen.heading(4, STEPS, "a revert of that confirm closes it again: four go back");
        let log = self.setting.repositories.log(&gate::confirm_path(2, "beta")).await?;
        let commit = log.first().map(|commit| commit.id.clone()).unwrap_or_default();
        let asks = "HEAD says how far the rollout may be. Without the confirm that is the beta group:";
        self.pass(gate::revert(&commit, 2, "beta", asks)).await?;
        self.waiting(2, "beta").await?;
        self.see("confirm reverted").await?;
        self.screen.heading(5, STEPS, "confirmed again: six of ten");
        self.pass(gate::confirm(2, "beta", "The gate asks anew, and is answered anew:")).await?;
        self.waiting(2, "batch-1").await?;
        self.see("confirmed again").await.map(drop)
    }

    async fn abort(&mut self) -> Result<(), Error> {
        self.screen.heading(6, STEPS, "an abort: exactly the six go back, and Git is repaired");
        self.pass(gate::abort(2, "Something is wrong with 2.0. An abort asks for no confirms:")).await?;
        self.until(2, "is aborted and Git repaired", |records, _| has(records, Event::Reverted)).await?;
        self.see("aborted").await.map(drop)
    }

    /// Notes the pods, for the closing table.
    async fn see(&mut self, step: &'static str) -> Result<Pods, Error> {
        let pods = self.asker.pods().await?;
        self.seen.release.push((step, pods.clone()));
        Ok(pods)
    }

    /// Waits until a stage waits for its confirm, for the first time or after a step back to it.
    async fn waiting(&mut self, rollout: u32, stage: &str) -> Result<(), Error> {
        let holds = |records: &[Record], report: &Report| {
            let of_stages = |record: &&Record| {
                matches!(record.event, Event::StageStarted | Event::StageWaiting | Event::StageReverted)
            };
            let recorded = records.iter().rev().find(of_stages).is_some_and(|last| {
                last.event != Event::StageStarted && last.stage.as_ref().is_some_and(|at| at.as_str() == stage)
            });
            // Pods that are still on their way, forward or back, are a reason of their own.
            let asked = matches!(report.reasons.as_slice(),
                [Reason::ConfirmNeeded { stage: at, .. }] if at.as_str() == stage);
            recorded && asked && is_there(report, stage)
        };
        self.until(rollout, &format!("waits after {stage}"), holds).await
    }

    /// Shows a gate's commands, and returns when the repository shows that they were typed.
    async fn pass(&mut self, gate: Gate) -> Result<(), Error> {
        let clone = &self.setting.repositories;
        self.screen.say(&format!("\n  {}\n", gate.asks));
        let commands: Vec<String> = [gate::change_to(clone.path())].into_iter().chain(gate.commands).collect();
        for command in &commands {
            self.screen.say(&format!("    {}", command.cyan()));
        }
        self.screen.say("");
        self.hand.forget();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if !self.hand.is_alone() {
            self.screen.say("  Enter runs them ...");
        }
        let app = AppName::new("checkout");
        let activity = || self.setting.reports.borrow().get(&app).map(|report| report.activity);
        let before = activity();
        while !gate.decided.holds(clone).await {
            let elsewhere = match activity() {
                Some(Activity::Aborting | Activity::Held | Activity::Stopped) => true,
                Some(Activity::Stable) => before == Some(Activity::Waiting),
                _ => false,
            };
            if elsewhere {
                let why = "somebody decided otherwise: the story that the demo tells ends here";
                return Err(Error::failed(why).hint("with --keep the repository stays to look at"));
            }
            tokio::select! {
                () = self.hand.enter() => self.type_in(&commands).await?,
                _ = look.tick() => {}
            }
        }
        if let Some(commit) = clone.log(gate.decided.path()).await?.first() {
            self.screen.say(&format!("  {} {} ({})\n", commit.id.yellow(), commit.subject, commit.author));
        }
        Ok(())
    }

    /// Runs a gate's commands. Where somebody pushed in between, pulls and pushes again, as a person would.
    async fn type_in(&mut self, commands: &[String]) -> Result<(), Error> {
        let repositories = &self.setting.repositories;
        let Err(mut refused) = repositories.type_in(commands).await else { return Ok(()) };
        let again = ["git pull --quiet && git push --quiet".to_owned()];
        for _ in 0..3 {
            self.screen.say(&format!("    {}   (somebody else pushed first)", again[0].cyan()));
            match repositories.type_in(&again).await {
                Ok(()) => return Ok(()),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Shows the application live until a rollout's records in the repository and the report are as asked.
    async fn until(
        &mut self,
        rollout: u32,
        what: &str,
        holds: impl Fn(&[Record], &Report) -> bool,
    ) -> Result<(), Error> {
        let app = AppName::new("checkout");
        let path = format!("rollouts/checkout/{rollout:04}/journal.yaml");
        let mut reports = self.setting.reports.clone();
        let (mut tip, mut last_sign) = (String::new(), Instant::now());
        let mut records = Vec::new();
        loop {
            let report = reports.borrow_and_update().get(&app).cloned();
            let now_at = self.setting.repositories.id("main").await?;
            if now_at != tip {
                (tip, last_sign) = (now_at, Instant::now());
                records = self.setting.repositories.journal(&path).await?;
            }
            if let Some(report) = &report {
                self.screen.live(report);
                if holds(&records, report) {
                    self.screen.still();
                    return Ok(());
                }
            }
            if let Some(last) = records.last().filter(|last| is_elsewhere(last)) {
                return Err(otherwise(rollout, what, &format!("{:?}: {}", last.event, last.why)));
            }
            if last_sign.elapsed() > PATIENCE {
                return Err(otherwise(rollout, what, "nothing new in the repository for two and a half minutes"));
            }
            // Whatever comes first: the controller has something to say, or it is time to ask the repository again.
            if let Ok(Err(_)) = timeout_at(Instant::now() + LOOK, reports.changed()).await {
                return Err(otherwise(rollout, what, "the controller has ended"));
            }
        }
    }
}

/// Returns whether every unit has just the stage's pods at the new version, and none on its way.
fn is_there(report: &Report, stage: &str) -> bool {
    let Some(stage) = report.stages.iter().find(|known| known.name.as_str() == stage) else { return false };
    let mut quotas =
        stage.quota.iter().flat_map(|(id, units)| units.iter().map(move |(unit, count)| (id, unit, count)));
    report.activity == Activity::Waiting
        && quotas.all(|(id, unit, count)| {
            let pods = report.units.get(id).and_then(|units| units.get(unit));
            pods.is_some_and(|pods| pods.done == *count && pods.coming + pods.failing == 0)
        })
}

fn has(records: &[Record], event: Event) -> bool {
    records.iter().any(|record| record.event == event)
}

/// Returns whether a rollout took a way that the story does not know.
fn is_elsewhere(last: &Record) -> bool {
    matches!(last.event, Event::Stopped | Event::Held | Event::Superseded)
}

fn otherwise(rollout: u32, what: &str, instead: &str) -> Error {
    Error::failed(format!("the demo waits until checkout {rollout:04} {what}, but: {instead}"))
        .hint("with --keep the repository stays to look at; LOCKTENDER_LOG=info shows what the controller says")
}
