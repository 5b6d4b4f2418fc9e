//! `locktender demo`: a release repository, a sandbox and a rollout to watch, in one command.
//!
//! Nothing of it is pretended: the commands are typed by a shell in a real clone, the controller is the one of
//! `locktender run`, the cluster is the one of `locktender sandbox`, and what the closing table says is read from the
//! cluster, the pods and the repository.

mod gate;
mod hand;
mod pods;
mod repositories;
mod screen;
mod setting;
mod story;
mod verdict;

use std::time::{Duration, Instant};

use owo_colors::OwoColorize as _;

use self::{
    hand::Hand,
    screen::Screen,
    setting::{Setting, Told},
    story::Story,
    verdict::Verdict,
};
use super::{
    error::{Done, Error, Outcome},
    run::{LogFormat, log_to_stderr, stopped},
};

/// Shows a release from its merge to its abort, on a cluster and a repository made for it
///
/// Starts a sandbox with two units, a release repository in a temporary directory and the controller, and goes through
/// an install, a release, a step back and an abort. At every gate it shows the git commands that a person would type
/// and waits: Enter runs them, or they are typed in another terminal. Ctrl-C ends it and leaves nothing behind.
///
/// Exit codes: 0 all of it is as promised, 1 something is not.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender demo\n  locktender demo --yes")]
pub(super) struct Args {
    /// Run alone, in less than a minute: type the commands as soon as they are shown
    #[arg(short, long)]
    yes: bool,
    /// Leave the release repository and the clone behind
    #[arg(long)]
    keep: bool,
}

/// With `--yes`, the least time between two pushes of records: nobody else pushes.
const PUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the demo.
///
/// # Errors
///
/// Something that it needs is not there, or a step does not end as it should.
pub(super) async fn run(args: &Args) -> Outcome {
    if std::env::var_os("LOCKTENDER_LOG").is_some() {
        log_to_stderr(LogFormat::Human, 0);
    }
    let started = Instant::now();
    let mut screen = Screen::new();
    let setting = Setting::start(args.yes.then_some(PUSH_INTERVAL)).await?;
    let shown = tokio::select! {
        shown = show(&setting, &mut screen, Hand::new(args.yes), started) => shown,
        stopped = stopped() => stopped.and_then(|()| Err(Error::failed("interrupted: everything was stopped"))),
    };
    screen.still();
    let kept = setting.end(args.keep).await?;
    if let Some(directory) = kept {
        screen.say(&format!("\n  kept {}", directory.display()));
    }
    shown
}

async fn show(setting: &Setting, screen: &mut Screen, hand: Hand, started: Instant) -> Outcome {
    let story = Story::new(setting, screen, hand)?;
    let (seen, asker, mut hand) = story.tell().await?;
    screen.heading(7, 7, "what happened, and who allowed it: all of it is in Git");
    let verify = trail(setting, screen).await?;
    let verdict = Verdict::of(setting, &asker, &seen, verify).await?;
    screen.say(&format!("\n{}", verdict.table()));
    screen.say(&format!("{}  {}", verdict.closing(), format!("({} s)", started.elapsed().as_secs()).dimmed()));
    if !hand.is_alone() {
        screen.say("\n  Repository and sandbox are there until you press Enter.");
        hand.forget();
        hand.enter().await;
    }
    Ok(if verdict.is_well() { Done::Well } else { Done::FoundWrong })
}

/// Shows the trail as anybody can read it, and returns what the audit says of it.
async fn trail(setting: &Setting, screen: &mut Screen) -> Result<Result<String, String>, Error> {
    screen.say("\n    git log\n");
    for commit in setting.repositories.log("").await? {
        screen.say(&format!("    {} {:<12} {}", commit.id.yellow(), commit.author, commit.subject));
    }
    setting
        .locktender(&["history", "checkout"])
        .await
        .map(|told| tell(screen, "locktender history checkout", &told))?;
    let verified = setting.locktender(&["audit", "verify"]).await?;
    tell(screen, "locktender audit verify", &verified);
    let says = |line: &&str| line.starts_with("ok: ") || line.starts_with("error: ");
    let conclusion = verified.text.lines().find(says).unwrap_or_default().to_owned();
    Ok(if verified.well { Ok(conclusion) } else { Err(conclusion) })
}

fn tell(screen: &mut Screen, command: &str, told: &Told) {
    screen.say(&format!("\n    {}\n", command.cyan()));
    for line in told.text.lines() {
        screen.say(&format!("    {line}"));
    }
}
