//! `give-back`: the commit that gives an application's workloads back.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    decision,
    error::{Done, Error, Outcome},
    output,
    place::{RepoArgs, no_such_app, ports},
};
use crate::{
    adapter::kube::NoCluster,
    controller::{look::Look, publish},
    core::{names::AppName, policy, repository::Repository as _},
};

/// The most that is read of an `app.yaml`.
const LIMIT: u64 = 1 << 20;

/// Commits what gives an application's workloads back: no policy stages them any more
///
/// Takes the policy out of its app.yaml, and pushes that. The controller then hands all pods of each workload back to it, and none restarts; from there on Kubernetes rolls out
/// changes of it by itself. What is merged is still put in place. To leave Locktender altogether, give every
/// application back, wait until `locktender status` says stable, and stop the controller. Overrides stay in the file: without a
/// policy they say nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender give-back checkout -m 'it is staged elsewhere from here on'

Exit codes: 0 committed and pushed, 1 nothing to give back or it could not be pushed, 2 wrong usage.")]
pub(super) struct Args {
    /// The application
    app: String,
    /// Why, for the commit
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
}

pub(super) async fn run(args: Args) -> Outcome {
    let place = args.repo.find()?;
    let author = place.author()?;
    let opened = place.open().await?;
    let app = AppName::new(&args.app);
    let mut look = Look::new(ports(opened.repository.clone(), Arc::new(NoCluster)));
    for _ in 0..8 {
        let head = look.fetch().await?;
        if look.content(&app).is_none() {
            return Err(no_such_app(&look, &app, &place.called));
        }
        let settings = look.branch().map(|branch| branch.settings.clone()).unwrap_or_default();
        let paths = settings.paths;
        let file = format!("{}/app.yaml", publish::directory(&paths, &app));
        let entries = opened.repository.files(&head, &publish::directory(&paths, &app)).await?;
        let Some(entry) = entries.into_iter().find(|entry| entry.path == file) else {
            return Err(Error::failed(format!("{app} is not there any more: it has no {file}")));
        };
        let bytes = opened.repository.read(&entry.id, LIMIT).await?;
        let text = String::from_utf8_lossy(&bytes);
        let edited = policy::without_policy(&file, &text).map_err(|why| Error::failed(format!("{file}: {why}")))?;
        let because = args.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let message = format!("give back {app}{because}\n\nNo policy stages its workloads any more.\n");
        let edits = BTreeMap::from([(file, Some(edited.into_bytes()))]);
        let pushed =
            decision::push_once(&place, opened.repository.as_ref(), &head, edits, message, &author, look.now());
        if let Some(commit) = pushed.await? {
            output::data(&format!(
                "gave back {app}   (commit {}, pushed to {})\n\
                 its workloads get all their pods back, and none restarts for it; where pods read configuration of the \
                 application, a rolling update follows\n\
                 to leave Locktender altogether: give every application back, wait until `locktender status` says stable, \
                 and stop the controller\n",
                commit.short(),
                place.called
            ));
            return Ok(Done::Well);
        }
    }
    Err(Error::failed(format!("could not push to {}", place.called)).hint("others push at the same time; try again"))
}
