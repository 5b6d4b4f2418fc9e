//! `watch`: a rollout while it moves.

use std::{io::IsTerminal as _, time::Duration};

use super::{
    error::{Done, Outcome},
    output::{self, Format, OutputArgs},
    place::{ClusterArgs, RepoArgs, no_such_app},
    print::report::{self, Shown},
    status::Sight,
};
use crate::core::names::AppName;

/// Shows a rollout while it moves: every stage, every unit, and what it waits for
///
/// On a terminal one picture is redrawn; elsewhere each change is printed. Ends with Ctrl-C, or with --until-done when
/// nothing runs any more. Reads Git and the cluster itself, so it works with the controller dead.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender watch checkout
  locktender watch checkout --until-done > release.log

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct Args {
    /// The application. Default: all, one line each
    app: Option<String>,
    /// Ends when no rollout runs any more
    #[arg(long)]
    until_done: bool,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A burst of changes is one picture.
const BURST: Duration = Duration::from_millis(100);

pub(super) async fn run(args: Args) -> Outcome {
    let mut sight = Sight::new(&args.repo, &args.cluster).await?;
    let redraws = args.output.output == Format::Table && std::io::stdout().is_terminal();
    let mut before: Option<Vec<Shown>> = None;
    let mut lines = 0;
    let repository = sight.look.repository();
    loop {
        let shown = look(&mut sight, args.app.as_deref()).await?;
        if before.as_ref() != Some(&shown) || redraws {
            let one = args.app.is_some();
            if args.output.output == Format::Table {
                let text = picture(&shown, one, &sight);
                let up = if redraws && lines > 0 { format!("\x1b[{lines}A\x1b[J") } else { String::new() };
                let gap = if !redraws && before.is_some() { "\n" } else { "" };
                output::raw(&format!("{up}{gap}"));
                output::data(&text);
                lines = text.lines().count();
            } else {
                // Each is a document of its own.
                if args.output.output == Format::Yaml {
                    output::data("---\n");
                }
                args.output.print(&shown, |_| String::new())?;
            }
            before = Some(shown.clone());
        }
        let runs = shown.iter().any(|one| one.state.as_ref().is_some_and(|state| !state.is_over()));
        if args.until_done && !runs {
            return Ok(Done::Well);
        }
        tokio::select! {
            () = sight.look.next_event() => {}
            () = repository.changed() => {}
            () = tokio::time::sleep(Duration::from_secs(1)), if redraws => {}
            _ = tokio::signal::ctrl_c() => return Ok(Done::Well),
        }
        // Collects what comes together, so that a burst is drawn once.
        let _ = tokio::time::timeout(BURST, async {
            loop {
                sight.look.next_event().await;
            }
        })
        .await;
        let fetched = sight.look.fetch().await;
        sight.look.git_is_away(fetched.err().map(|error| error.to_string()));
    }
}

async fn look(sight: &mut Sight, app: Option<&str>) -> Result<Vec<Shown>, super::Error> {
    if let Some(app) = app {
        let app = AppName::new(app);
        let shown = sight.show(&app).await;
        return shown.map(|one| vec![one]).ok_or_else(|| no_such_app(&sight.look, &app, &sight.place.called));
    }
    let mut all = Vec::new();
    for app in sight.look.apps() {
        all.extend(sight.show(&app).await);
    }
    Ok(all)
}

fn picture(shown: &[Shown], one: bool, sight: &Sight) -> String {
    match shown {
        [only] if one => report::block(only, sight.look.now()),
        all => report::table(all),
    }
}
