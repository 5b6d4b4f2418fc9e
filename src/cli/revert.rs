//! `revert`: the commit that brings an application back to what was stable before.

use std::sync::Arc;

use super::{
    decision,
    error::{Done, Error, Outcome},
    output,
    place::{RepoArgs, no_such_app, ports},
};
use crate::{
    adapter::kube::NoCluster,
    controller::{look::Look, publish},
    core::{
        names::{AppName, Revision},
        repository::{Merge, Repository as _},
        rollout::{
            stable_at,
            state::{Outcome as Ended, Phase, State},
            versions,
        },
    },
};

/// Commits what brings an application back to what was stable before
///
/// Its directory, as it was before its last release, and pushes that. Three-way, like `git revert` of the release: what others changed since is kept, a conflict is refused. While a
/// rollout runs, this reverts it; the controller then goes back without asking for confirms. To a version that was
/// stable lately, confirms are passed; health always counts.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender revert checkout -m 'memory grows'
  locktender revert checkout --to 5

Exit codes: 0 committed and pushed, 1 nothing to revert, a conflict, or not pushed, 2 wrong usage.")]
pub(super) struct Args {
    /// The application
    app: String,
    /// The number of the completed rollout whose version is wanted. Default: the one before the last
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// Why, for the commit
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
}

/// From what to what.
struct Sides {
    base: Revision,
    theirs: Revision,
    subject: String,
}

pub(super) async fn run(args: Args) -> Outcome {
    let place = args.repo.find()?;
    let author = place.author()?;
    let opened = place.open().await?;
    let app = AppName::new(&args.app);
    let mut look = Look::new(ports(opened.repository.clone(), Arc::new(NoCluster)));
    for _ in 0..8 {
        let head = look.fetch().await?;
        let rollouts = look.rollouts(&app);
        if rollouts.is_empty() {
            return Err(match look.content(&app) {
                None => no_such_app(&look, &app, &place.called),
                Some(_) => Error::failed(format!("{app} has no rollout yet: there is nothing to go back to")),
            });
        }
        let sides = sides(&app, rollouts, args.to)?;
        let paths = look
            .branch()
            .map(|branch| branch.settings.paths.clone())
            .unwrap_or_else(|| crate::core::policy::Settings::default().paths);
        let directory = publish::directory(&paths, &app);
        let edits = match opened.repository.merge(&directory, &sides.base, &head, &sides.theirs).await? {
            Merge::Clean(edits) if edits.is_empty() => {
                return Err(Error::failed(format!("{app} is as it was before already: there is nothing to revert"))
                    .hint(format!("`locktender history {app}` lists what was stable; `--to` names one")));
            }
            Merge::Clean(edits) => edits,
            Merge::Conflicts(paths) => {
                return Err(Error::failed(format!("later changes conflict in {}", paths.join(", ")))
                    .hint(format!("in a clone: git revert {}, and settle it there", sides.base.short())));
            }
        };
        let because = args.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let message = format!("{}{because}\n\nReverts {} in {directory}.\n", sides.subject, sides.base);
        let pushed =
            decision::push_once(&place, opened.repository.as_ref(), &head, edits, message, &author, look.now());
        if let Some(commit) = pushed.await? {
            let said = &sides.subject;
            output::data(&format!("{said}   (commit {}, pushed to {})\n", commit.short(), place.called));
            return Ok(Done::Well);
        }
    }
    Err(Error::failed(format!("could not push to {}", place.called)).hint("others push at the same time; try again"))
}

fn sides(app: &AppName, rollouts: &[State], to: Option<u32>) -> Result<Sides, Error> {
    let last = &rollouts[rollouts.len() - 1];
    let stable = stable_at(rollouts);
    let completed = |state: &&State| state.phase == Phase::Ended(Ended::Completed);
    let (base, release) = if last.is_over() {
        let Some(stable) = &stable else {
            return Err(Error::failed(format!("{app} has no stable version: there is nothing to revert")));
        };
        (stable.revision.clone(), &rollouts[stable.index])
    } else {
        (last.plan.to.revision.clone(), last)
    };
    let theirs = match to {
        None => release.plan.from.as_ref().map(|from| from.revision.clone()).ok_or_else(|| {
            Error::failed(format!(
                "{app} {:04} is the first install: nothing was stable before",
                release.plan.rollout.number
            ))
            .hint("remove the application's directory in Git to remove it")
        })?,
        Some(number) => {
            let wanted = rollouts.iter().filter(completed).find(|state| state.plan.rollout.number == number);
            wanted.map(|state| state.plan.to.revision.clone()).ok_or_else(|| {
                let known: Vec<String> =
                    rollouts.iter().filter(completed).map(|state| state.plan.rollout.number.to_string()).collect();
                Error::usage(format!("{app} {number:04} never completed")).hint(match known.as_slice() {
                    [] => "none did".to_owned(),
                    known => format!("completed: {}", known.join(", ")),
                })
            })?
        }
    };
    let subject = match to {
        Some(number) => format!("revert {app} to what {number:04} released"),
        None => format!("revert {app} {:04} ({})", release.plan.rollout.number, versions(&release.plan)),
    };
    Ok(Sides { base, theirs, subject })
}
