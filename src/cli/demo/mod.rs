//! `locktender demo`: a release repository, a sandbox and a rollout to watch, in one command.
//!
//! Nothing of it is pretended: the commands are typed by a shell in a real clone, the controller is the one of
//! `locktender run`, the cluster is the one of `locktender sandbox`, and what the closing table says is read from the
//! cluster, the pods and the repository.

mod batched;
mod blue_green;
mod canary;
mod endpoints;
mod gate;
mod hand;
mod load;
mod pods;
mod repositories;
mod router;
mod screen;
mod setting;
mod table;
mod teller;

use std::time::{Duration, Instant};

use owo_colors::OwoColorize as _;

use self::{
    hand::Hand,
    load::Load,
    router::{Kind, Router, has_haproxy},
    screen::Screen,
    setting::{Setting, Told},
    table::Verdict,
    teller::Teller,
};
use super::{
    error::{Done, Error, Outcome},
    run::{LogFormat, log_to_stderr, stopped},
};

/// Shows a release from its merge to its end, on a cluster and a repository made for it
///
/// Starts a sandbox, a release repository in a temporary directory and the controller, and goes through an install and
/// releases that end well and badly. At every gate it shows the git commands that a person would type and waits: Enter
/// runs them, or they are typed in another terminal. Where standard input ends it goes on alone. Ctrl-C ends it and leaves
/// nothing behind.
///
/// Exit codes: 0 all of it is as promised, 1 something is not.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender demo\n  locktender demo --strategy canary --yes\n  \
                  locktender demo --strategy blue-green --router service")]
pub(super) struct Args {
    /// How it is released
    #[arg(long, value_enum, default_value_t = Strategy::Batched)]
    strategy: Strategy,
    /// By what way requests come; without it a canary takes the gateway, a switch HAProxy where this machine has it
    #[arg(long, value_enum)]
    router: Option<Kind>,
    /// Run alone, in about a minute: type the commands as soon as they are shown
    #[arg(short, long)]
    yes: bool,
    /// Leave the release repository and the clone behind
    #[arg(long)]
    keep: bool,
}

/// Which demo is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Strategy {
    /// In batches over two units: confirmed, stepped back from, confirmed again, aborted
    Batched,
    /// By weights under load, measured: one version grows, the next answers errors and goes back by itself
    Canary,
    /// By a switch under load: one version is confirmed, one is never well, one is switched back by itself
    BlueGreen,
}

impl Strategy {
    fn app(self) -> &'static str {
        match self {
            Self::Batched => batched::APP,
            Self::Canary => canary::APP,
            Self::BlueGreen => blue_green::APP,
        }
    }

    fn steps(self) -> usize {
        match self {
            Self::Batched => batched::STEPS,
            Self::Canary => canary::STEPS,
            Self::BlueGreen => blue_green::STEPS,
        }
    }

    /// Starts the router that was asked for, else the one that belongs to the strategy, as far as this machine has it.
    async fn router(self, asked: Option<Kind>) -> Result<Router, Error> {
        let kind = match (self, asked) {
            (Self::Batched, Some(_)) => {
                return Err(Error::usage("batches need no router: `--router` goes with a canary or a switch"));
            }
            (_, Some(kind)) => kind,
            (Self::Canary, None) => Kind::Gateway,
            (Self::BlueGreen, None) if has_haproxy() => Kind::Haproxy,
            _ => Kind::Service,
        };
        Router::start(kind, self.app()).await
    }

    /// Starts what it happens on, with the load where there is one.
    async fn setting(self, router: &Router, push_interval: Option<Duration>) -> Result<(Setting, Option<Load>), Error> {
        let (files, first) = match self {
            Self::Batched => (batched::FILES, batched::FIRST),
            Self::Canary => (canary::FILES, canary::FIRST),
            Self::BlueGreen => (blue_green::FILES, blue_green::FIRST),
        };
        let load = if self == Self::Batched { None } else { Some(Load::bind().await?) };
        let page = load.as_ref().map(Load::page).unwrap_or_default();
        // Metrics are asked of the load, which takes whatever address is free.
        let files = router.files(self.app(), files);
        let files: Vec<(String, String)> =
            files.into_iter().map(|(path, text)| (path, text.replace("http://load.example", &page))).collect();
        let setting = Setting::start(&files, first, push_interval).await?;
        let load = load.map(|load| load.run(&setting.sandbox, self.app(), router.way())).transpose()?;
        Ok((setting, load))
    }
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
    let router = args.strategy.router(args.router).await?;
    let (setting, load) = args.strategy.setting(&router, args.yes.then_some(PUSH_INTERVAL)).await?;
    let teller = Teller::new(&setting, &mut screen, Hand::new(args.yes), args.strategy.app(), args.strategy.steps());
    let shown = tokio::select! {
        shown = show(args.strategy, teller, load.as_ref().map(|load| (load, &router)), started) => shown,
        stopped = stopped() => stopped.and_then(|()| Err(Error::failed("interrupted: everything was stopped"))),
    };
    screen.still();
    let kept = setting.end(args.keep).await?;
    if let Some(directory) = kept {
        screen.say(&format!("\n  kept {}", directory.display()));
    }
    shown
}

async fn show(strategy: Strategy, mut teller: Teller<'_>, load: Option<(&Load, &Router)>, started: Instant) -> Outcome {
    let verdict = match (strategy, load) {
        (Strategy::Canary, Some((load, router))) => {
            let seen = canary::tell(&mut teller, load, router).await?;
            let verify = trail(&mut teller, canary::APP).await?;
            canary::verdict(teller.setting, load, &seen, verify).await?
        }
        (Strategy::BlueGreen, Some((load, router))) => {
            let seen = blue_green::tell(&mut teller, load, router).await?;
            let verify = trail(&mut teller, blue_green::APP).await?;
            blue_green::verdict(teller.setting, load, &seen, verify).await?
        }
        _ => {
            let (seen, asker) = batched::Story::new(&mut teller)?.tell().await?;
            let verify = trail(&mut teller, batched::APP).await?;
            batched::verdict(teller.setting, &asker, &seen, verify).await?
        }
    };
    close(&mut teller, &verdict, started).await
}

/// Shows the closing table, and waits for a person to have seen it.
async fn close(teller: &mut Teller<'_>, verdict: &Verdict, started: Instant) -> Outcome {
    teller.say(&format!("\n{}", verdict.table()));
    teller.say(&format!("{}  {}", verdict.closing(), format!("({} s)", started.elapsed().as_secs()).dimmed()));
    if !teller.hand.is_alone() {
        teller.say("\n  Repository and sandbox are there until you press Enter.");
        teller.hand.forget();
        teller.hand.enter().await;
    }
    Ok(if verdict.is_well() { Done::Well } else { Done::FoundWrong })
}

/// Shows the trail as anybody can read it, and returns what the audit says of it.
async fn trail(teller: &mut Teller<'_>, app: &str) -> Result<Result<String, String>, Error> {
    teller.heading("what happened, and who allowed it: all of it is in Git");
    teller.say("\n    git log\n");
    for commit in teller.setting.repositories.log("").await? {
        teller.say(&format!("    {} {:<12} {}", commit.id.yellow(), commit.author, commit.subject));
    }
    let history = teller.setting.locktender(&["history", app]).await?;
    tell(teller, &format!("locktender history {app}"), &history);
    let verified = teller.setting.locktender(&["audit", "verify"]).await?;
    tell(teller, "locktender audit verify", &verified);
    let says = |line: &&str| line.starts_with("ok: ") || line.starts_with("error: ");
    let conclusion = verified.text.lines().find(says).unwrap_or_default().to_owned();
    Ok(if verified.well { Ok(conclusion) } else { Err(conclusion) })
}

fn tell(teller: &mut Teller<'_>, command: &str, told: &Told) {
    teller.say(&format!("\n    {}\n", command.cyan()));
    for line in told.text.lines() {
        teller.say(&format!("    {line}"));
    }
}
