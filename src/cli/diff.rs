//! `diff`: against the live cluster, by the server's own answer.

use std::{collections::BTreeSet, sync::Arc};

use owo_colors::OwoColorize as _;
use serde::Serialize;
use serde_json::Value;

use super::{
    error::{Done, Error, Outcome},
    output::{self, OutputArgs},
    place::{ClusterArgs, RepoArgs},
    plan::Merged,
};
use crate::core::{
    cluster::{Cluster, ClusterError},
    diff::text_diff,
    manifest::{Object, redact_text},
    names::AppName,
    rollout::{action::Action, input::HeadContent, keep_notes, labelled, labels, render::Render},
};

/// Shows what applying the working tree would change in the live cluster
///
/// Asks the API server for its own dry-run answer, object by object, so that defaults and webhooks count. Deployments
/// are shown as they are once the rollout has completed. Of Secrets only hashes are shown. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender diff checkout
  locktender diff --exit-code > /dev/null && echo 'nothing to release'

Exit codes: 0 done, 1 failed (with --exit-code also: something differs), 2 wrong usage.")]
pub(super) struct Args {
    /// The application. Default: all
    app: Option<String>,
    /// A commit instead of the working tree
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Exits with 1 where something differs
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// One object that would change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    app: AppName,
    object: String,
    change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// Whether its pods are moved stage by stage, in slices of their own.
    #[serde(skip)]
    staged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Change {
    Created,
    Changed,
    Removed,
    Refused,
}

pub(super) async fn run(args: Args) -> Outcome {
    let cluster: Arc<dyn Cluster> = Arc::new(args.cluster.connect().await?);
    let mut merged = Merged::read(&args.repo, args.revision.as_deref(), cluster.clone(), true).await?;
    let apps = match &args.app {
        Some(app) => vec![merged.one(app)?],
        None => merged.all(),
    };
    let mut differences = Vec::new();
    let mut broken = Vec::new();
    for app in &apps {
        match merged.snapshot.content(app) {
            HeadContent::Broken(problems) => broken.extend(problems),
            HeadContent::Rendered(render) => differences.extend(of(app, Some(&render), &mut merged, &cluster).await?),
            HeadContent::Removed => differences.extend(of(app, None, &mut merged, &cluster).await?),
        }
    }
    args.output.print(&differences, |differences| show(differences))?;
    if differences.iter().any(|one| one.staged) {
        output::say(
            "note: Deployments with a policy are shown as they are in the end; `locktender plan` shows the stages\n",
        );
    }
    if !broken.is_empty() {
        let problems: Vec<String> = broken.iter().map(|problem| problem.render(None)).collect();
        output::say(&format!("{}\n", problems.join("\n")));
        return Err(Error::failed("some applications do not render").hint("`locktender validate` shows everything"));
    }
    if differences.iter().any(|one| one.change == Change::Refused) {
        return Err(Error::failed("the API server refuses some objects"));
    }
    Ok(if args.exit_code && !differences.is_empty() { Done::FoundWrong } else { Done::Well })
}

async fn of(
    app: &AppName,
    render: Option<&Render>,
    merged: &mut Merged,
    cluster: &Arc<dyn Cluster>,
) -> Result<Vec<Difference>, Error> {
    let mut found = Vec::new();
    let wanted: Vec<Object> = render.map(|render| wanted(app, render)).unwrap_or_default();
    for object in &wanted {
        let key = object.key();
        let live = match cluster.read(&object.kind(), &key.namespace, &key.name).await {
            Ok(live) => live,
            Err(ClusterError::NoKind(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut object = object.clone();
        if let Some(live) = &live {
            keep_notes(&mut object, live);
        }
        let staged = render.is_some_and(|render| render.workloads.values().any(|workload| workload.key == key));
        if let Some(live) = live.as_ref().filter(|_| staged) {
            keep_staging(&mut object, live);
        }
        let object = &object;
        let action = Action::apply(object.clone(), live.as_ref(), true, "");
        let (change, diff, refused) = match cluster.dry_run(&action.write).await {
            Ok(then) => match text_diff(live.as_ref(), then.as_ref()) {
                None => continue,
                diff => (if live.is_some() { Change::Changed } else { Change::Created }, diff, None),
            },
            // Its namespace or its kind is made by the same release: what is sent is all that can be told.
            Err(ClusterError::NoKind(_) | ClusterError::NotFound(_)) if live.is_none() => {
                (Change::Created, text_diff(None, Some(object)), None)
            }
            Err(error @ ClusterError::Unreachable(_)) => return Err(error.into()),
            Err(error) => (Change::Refused, None, Some(redact_text(&error.to_string(), object))),
        };
        found.push(Difference { app: app.clone(), object: key.to_string(), change, diff, refused, staged });
    }
    let kept: BTreeSet<_> = wanted.iter().map(Object::key).collect();
    let stable = crate::core::rollout::stable_at(merged.look.rollouts(app)).map(|at| at.revision);
    if let Some(at) = stable
        && let Some(stable) = merged.look.render_at(app, &at).await?
    {
        for key in stable.keys().filter(|key| !kept.contains(key)) {
            let live = merged
                .look
                .view()
                .by_key(&key)
                .filter(|live| live.label(crate::core::rollout::labels::APP) == Some(app.as_str()));
            if let Some(live) = live {
                let diff = text_diff(Some(live), None);
                let object = key.to_string();
                let (change, refused, staged) = (Change::Removed, None, false);
                found.push(Difference { app: app.clone(), object, change, diff, refused, staged });
            }
        }
    }
    Ok(found)
}

/// Lets a workload that is staged already keep what staging it puts there: that stays, and says nothing of what Git changes.
fn keep_staging(object: &mut Object, live: &Object) {
    const OURS: &str = "locktender.dev/";
    for place in [&["metadata", "annotations"][..], &["spec", "template", "metadata", "labels"]] {
        let there = live.at(place).and_then(Value::as_object).into_iter().flatten();
        for (name, value) in there.filter(|(name, _)| name.starts_with(OURS)) {
            object.set(&[place, &[name.as_str()]].concat(), value.clone());
        }
    }
    // How far it goes is not said by Git while a policy says it.
    if let Some(held) = live.at(&["metadata", "annotations", labels::ROLLOUT]).and_then(|_| live.at(&["spec"])) {
        for field in ["paused", "updateStrategy"] {
            held.get(field).into_iter().for_each(|value| object.set(&["spec", field], value.clone()));
        }
    }
}

/// Everything that is there once the release has completed, but for slices and their configuration's owners.
fn wanted(app: &AppName, render: &Render) -> Vec<Object> {
    let config = render.workloads.values().flat_map(|workload| workload.config.iter());
    let handles = render.workloads.values().map(|workload| &workload.object);
    render.objects.iter().chain(config).chain(handles).map(|object| labelled(object, app)).collect()
}

fn show(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let mut text = String::new();
    for one in differences {
        let word = match one.change {
            Change::Created => "created".green().to_string(),
            Change::Changed => "changed".yellow().to_string(),
            Change::Removed => "removed".red().to_string(),
            Change::Refused => "refused".red().to_string(),
        };
        text.push_str(&format!("{}: {word}\n", one.object.bold()));
        for line in one.diff.iter().flat_map(|diff| diff.lines()).chain(one.refused.iter().map(String::as_str)) {
            let line = match line.as_bytes().first() {
                Some(b'+') => line.green().to_string(),
                Some(b'-') => line.red().to_string(),
                _ => line.to_owned(),
            };
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}
