//! Tells a demo step by step: shows what happens, types what a person would type, and waits until the ledger says that it
//! is done.

use std::time::Duration;

use owo_colors::OwoColorize as _;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{
    gate::{self, Gate},
    hand::{Entered, Hand},
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

/// How often the repository is asked whether something came.
const LOOK: Duration = Duration::from_millis(150);
/// A step whose ledger says nothing new for this long will not end.
const PATIENCE: Duration = Duration::from_secs(150);

/// Tells a demo.
pub struct Teller<'a> {
    /// What it happens on.
    pub setting: &'a Setting,
    /// Where it is told.
    pub screen: &'a mut Screen,
    /// Who goes through the gates.
    pub hand: Hand,
    app: &'static str,
    step: usize,
    steps: usize,
}

impl<'a> Teller<'a> {
    /// Begins to tell of an application, under so many headings.
    pub fn new(setting: &'a Setting, screen: &'a mut Screen, hand: Hand, app: &'static str, steps: usize) -> Self {
        Self { setting, screen, hand, app, step: 0, steps }
    }

    /// Prints a line that stays.
    pub fn say(&mut self, line: &str) {
        self.screen.say(line);
    }

    /// Prints the next heading.
    pub fn heading(&mut self, title: &str) {
        self.step += 1;
        self.screen.heading(self.step, self.steps, title);
    }

    /// Says what it happens on.
    pub fn introduce(&mut self, cluster: &str) {
        let clone = &self.setting.repositories;
        let place = |name: &str, value: &str| format!("  {name:<20}{value}");
        self.screen
            .say(&format!("{}  merge to release, commit to advance, revert to roll back\n", "locktender".bold()));
        self.screen.say(&place("release repository", &clone.remote().display().to_string()));
        self.screen.say(&place("a clone of it", &clone.path().display().to_string()));
        self.screen.say(&place("cluster", cluster));
        let kubeconfig = self.setting.kubeconfig.display();
        self.screen.say(&place("", &format!("kubectl --kubeconfig {kubeconfig} -n shop get pods -o wide")));
        if !self.hand.is_alone() {
            self.screen
                .say("\n  At every gate you see the commands: Enter runs them here, or type them in another terminal.");
        }
    }

    /// Reads the records of a rollout at the tip of the release repository.
    ///
    /// # Errors
    ///
    /// Their chain is broken.
    pub async fn records(&self, rollout: u32) -> Result<Vec<Record>, Error> {
        self.setting.repositories.journal(&format!("rollouts/{}/{rollout:04}/journal.yaml", self.app)).await
    }

    /// Waits until a stage waits for its confirm, for the first time or after a step back to it.
    ///
    /// # Errors
    ///
    /// See [`until`](Self::until).
    pub async fn waiting(&mut self, rollout: u32, stage: &str) -> Result<(), Error> {
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
    ///
    /// # Errors
    ///
    /// The commands fail, or somebody decides otherwise.
    pub async fn pass(&mut self, gate: Gate) -> Result<(), Error> {
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
        let app = AppName::new(self.app);
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
                entered = self.hand.enter() => {
                    if entered == Entered::Ended {
                        self.screen.say("  Standard input has ended: the demo goes on alone.");
                    }
                    self.type_in(&commands).await?;
                }
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
    ///
    /// # Errors
    ///
    /// It takes another way, or nothing comes for too long.
    pub async fn until(
        &mut self,
        rollout: u32,
        what: &str,
        holds: impl Fn(&[Record], &Report) -> bool,
    ) -> Result<(), Error> {
        let app = AppName::new(self.app);
        let mut reports = self.setting.reports.clone();
        let (mut tip, mut last_sign) = (String::new(), Instant::now());
        let mut records = Vec::new();
        loop {
            let report = reports.borrow_and_update().get(&app).cloned();
            let now_at = self.setting.repositories.id("main").await?;
            if now_at != tip {
                (tip, last_sign) = (now_at, Instant::now());
                records = self.records(rollout).await?;
            }
            if let Some(report) = &report {
                self.screen.live(report);
                if holds(&records, report) {
                    self.screen.still();
                    return Ok(());
                }
            }
            if let Some(last) = records.last().filter(|last| is_elsewhere(last)) {
                return Err(self.otherwise(rollout, what, &format!("{:?}: {}", last.event, last.why)));
            }
            if last_sign.elapsed() > PATIENCE {
                return Err(self.otherwise(rollout, what, "nothing new in the repository for two and a half minutes"));
            }
            // Whatever comes first: the controller has something to say, or it is time to ask the repository again.
            if let Ok(Err(_)) = timeout_at(Instant::now() + LOOK, reports.changed()).await {
                return Err(self.otherwise(rollout, what, "the controller has ended"));
            }
        }
    }

    fn otherwise(&self, rollout: u32, what: &str, instead: &str) -> Error {
        Error::failed(format!("the demo waits until {} {rollout:04} {what}, but: {instead}", self.app))
            .hint("with --keep the repository stays to look at; LOCKTENDER_LOG=info shows what the controller says")
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

/// Returns whether an event is among records.
pub fn has(records: &[Record], event: Event) -> bool {
    records.iter().any(|record| record.event == event)
}

/// Returns whether a rollout took a way that the story does not know.
fn is_elsewhere(last: &Record) -> bool {
    matches!(last.event, Event::Stopped | Event::Held | Event::Superseded)
}
