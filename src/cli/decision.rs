//! `confirm`, `promote`, `pause`, `resume`, `retry`, `abort`: a person's decision, as the commit that it is.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    error::{Done, Error, Outcome},
    output,
    place::{ClusterArgs, Place, RepoArgs, host, list, no_such_app, ports},
};
use crate::{
    adapter::{
        git::here::author_anywhere,
        kube::{KubeCluster, NoCluster},
    },
    controller::{anchor, look::Look},
    core::{
        cluster::{Cluster as _, Kind, PatchType, Write},
        ledger::Event,
        manifest::Object,
        names::{AppName, Digest, Revision},
        policy::Decision,
        repository::{CommitDraft, Push, Repository},
        rollout::{
            gates::Decisions,
            input::HeadContent,
            labels,
            report::clock,
            state::{Outcome as Ended, Phase, State},
            versions,
        },
    },
};

/// How often a push is tried again when somebody else was faster.
const TRIES: u32 = 8;

/// Which decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Confirm,
    Promote,
    Pause,
    Resume,
    Retry,
    Abort,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
            Self::Abort => "abort",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Confirm => "confirmed",
            Self::Promote => "promoted",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Retry => "tries again:",
            Self::Abort => "aborted",
        }
    }
}

/// Commits a decision and pushes it
///
/// The same commit that a person makes by hand: a file in the rollout's directory, with the hash of the plan and the
/// record that were seen. The controller acts on it; this command does not wait for that.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The application
    app: String,
    /// Why, for the commit and the trail
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// The number of the rollout that is meant: refused when another one runs
    #[arg(long, value_name = "N")]
    rollout: Option<u32>,
    #[command(flatten)]
    repo: RepoArgs,
}

/// Returns what the help of such a command ends with.
pub(super) fn example(verb: &str, message: &str) -> String {
    format!(
        "Example:\n  locktender {verb} checkout -m '{message}'

Exit codes: 0 committed and pushed, 1 it would do nothing or could not be pushed, 2 wrong usage."
    )
}

/// Confirms the stage that waits, by a commit
///
/// Writes `confirm/<stage>.yaml` into the rollout's directory, with the hash of the plan and the waiting record that were
/// seen, commits and pushes it. The same by hand: add the file, commit, push.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender confirm checkout -m 'error rate flat, see dashboard'

Exit codes: 0 committed and pushed, 1 nothing waits or it could not be pushed, 2 wrong usage.")]
pub(super) struct ConfirmArgs {
    #[command(flatten)]
    common: Args,
    /// The stage that is meant: refused when another one waits
    #[arg(long, value_name = "NAME")]
    stage: Option<String>,
}

/// Returns a rollout to stable, by a commit
///
/// With --now Git is not asked: the decision is written into the application's anchor in the cluster, for when Git is
/// away.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender abort checkout -m 'latency is up'
  locktender abort checkout --now -m 'latency is up'     # Git is away

Exit codes: 0 committed and pushed, 1 nothing to abort or it could not be pushed, 2 wrong usage.")]
pub(super) struct AbortArgs {
    #[command(flatten)]
    common: Args,
    /// Writes the decision into the cluster instead of Git
    #[arg(long)]
    now: bool,
    /// With --now: the application's namespace, where not every namespace may be listed
    #[arg(long, value_name = "NAME", requires = "now")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn confirm(args: ConfirmArgs) -> Outcome {
    decide(Verb::Confirm, &args.common, args.stage.as_deref()).await
}

pub(super) async fn run(verb: Verb, args: Args) -> Outcome {
    decide(verb, &args, None).await
}

pub(super) async fn abort(args: AbortArgs) -> Outcome {
    if args.now {
        return abort_now(&args).await;
    }
    let app = &args.common.app;
    decide(Verb::Abort, &args.common, None).await.map_err(|error| match error.is_git_away() {
        true => error.hint(format!("`locktender abort {app} --now` writes it into the cluster instead of Git")),
        false => error,
    })
}

/// What is to be committed.
struct Wanted {
    path: String,
    content: Option<Vec<u8>>,
    subject: String,
    said: String,
}

async fn decide(verb: Verb, args: &Args, stage: Option<&str>) -> Outcome {
    let place = args.repo.find()?;
    let author = place.author()?;
    let opened = place.open().await?;
    let app = AppName::new(&args.app);
    let mut look = Look::new(ports(opened.repository.clone(), Arc::new(NoCluster)));
    let (commit, wanted) = push(&place, opened.repository.as_ref(), &mut look, author, |look| {
        let wanted = wanted(verb, args, stage, &app, look, &place)?;
        let edits = BTreeMap::from([(wanted.path.clone(), wanted.content.clone())]);
        let message = wanted.subject.clone();
        Ok((edits, message, wanted))
    })
    .await?;
    output::data(&format!("{}   (commit {}, pushed to {})\n", wanted.said, commit.short(), place.called));
    Ok(Done::Well)
}

/// What a commit is made of: its edits, its message, and what the caller wants to keep.
pub(super) type Draft<T> = (BTreeMap<String, Option<Vec<u8>>>, String, T);

/// Makes a commit on the branch's tip and pushes it; when somebody else was faster, looks and makes it again.
pub(super) async fn push<T>(
    place: &Place,
    repository: &dyn Repository,
    look: &mut Look,
    author: (String, String),
    mut make: impl FnMut(&Look) -> Result<Draft<T>, Error>,
) -> Result<(Revision, T), Error> {
    for _ in 0..TRIES {
        let head = look.fetch().await?;
        let (edits, message, kept) = make(look)?;
        if let Some(commit) = push_once(place, repository, &head, edits, message, &author, look.now()).await? {
            return Ok((commit, kept));
        }
    }
    Err(Error::failed(format!("could not push to {} in {TRIES} tries", place.called))
        .hint("others push at the same time; try again"))
}

/// Makes a commit and pushes it; `None` when somebody else was faster.
pub(super) async fn push_once(
    place: &Place,
    repository: &dyn Repository,
    head: &Revision,
    edits: BTreeMap<String, Option<Vec<u8>>>,
    message: String,
    author: &(String, String),
    time: Timestamp,
) -> Result<Option<Revision>, Error> {
    let draft = CommitDraft { message, edits, time, author: Some(author.clone()) };
    match repository.push(head, &[draft]).await? {
        Push::Accepted(commits) => Ok(Some(commits.last().cloned().unwrap_or_else(|| head.clone()))),
        Push::Rejected { moved: true, .. } => Ok(None),
        Push::Rejected { moved: false, reason } => {
            Err(Error::failed(format!("{} refuses the push: {reason}", place.called))
                .hint("make the commit in a clone and bring it in as that repository wants it"))
        }
    }
}

fn wanted(
    verb: Verb,
    args: &Args,
    stage: Option<&str>,
    app: &AppName,
    look: &Look,
    place: &Place,
) -> Result<Wanted, Error> {
    let known = look.rollouts(app);
    let Some(state) = known.last() else {
        if look.content(app).is_none_or(|content| matches!(content, HeadContent::Removed)) {
            return Err(no_such_app(look, app, &place.called));
        }
        return Err(Error::failed(format!("{app} has no rollout yet"))
            .hint("the controller opens one when it sees the application; is it running?"));
    };
    let id = &state.plan.rollout;
    let name = format!("{app} {:04}", id.number);
    if let Some(number) = args.rollout.filter(|number| *number != id.number) {
        let there = known.iter().any(|state| state.plan.rollout.number == number);
        let what = if there { "is over" } else { "is not there" };
        return Err(Error::failed(format!("{app} {number:04} {what}; the latest is {name}"))
            .hint("`--rollout` is only a safeguard: leave it away to mean the latest"));
    }
    let decisions = Decisions::new(state, look.decisions(app));
    let (decision, record) = match verb {
        Verb::Confirm => {
            let (stage, record) = stage_to_confirm(state, &decisions, &name, stage)?;
            (Decision::Confirm(stage), record)
        }
        Verb::Promote => {
            running(state, &name, "waits for nothing")?;
            if decisions.promote().is_some() {
                return Err(nothing(&name, "is promoted already"));
            }
            (Decision::Promote, state.tip())
        }
        Verb::Pause => {
            running(state, &name, "cannot be paused")?;
            if decisions.pause().is_some() {
                return Err(nothing(&name, "is paused already"));
            }
            (Decision::Pause, state.tip())
        }
        Verb::Resume => {
            running(state, &name, "cannot be resumed")?;
            if decisions.pause().is_none() {
                return Err(nothing(&name, "is not paused"));
            }
            (Decision::Pause, state.tip())
        }
        Verb::Retry => {
            to_retry(state, &decisions, look.content(app), &name)?;
            (Decision::Retry, state.tip())
        }
        Verb::Abort => {
            running(state, &name, "cannot be aborted")?;
            if decisions.abort().is_some() {
                return Err(nothing(&name, "is aborted already: the controller has not acted on it yet"));
            }
            (Decision::Abort, state.tip())
        }
    };
    let path = format!("{}/{}", id.directory(), decision.path());
    let content = (verb != Verb::Resume).then(|| body(&state.plan.hash, &record, args.message.as_deref()));
    let stage = match &decision {
        Decision::Confirm(stage) => Some(stage.as_str()),
        _ => None,
    };
    let because = args.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    let of = stage.map(|stage| format!(" {stage}")).unwrap_or_default();
    let subject = format!("{} {name}{of}{because}", verb.word());
    let said = match stage {
        Some(stage) => format!("{} {stage} of {name}", verb.done()),
        None => format!("{} {name}", verb.done()),
    };
    Ok(Wanted { path, content, subject, said })
}

/// Writes a decision's file. The message is quoted, whatever it looks like.
fn body(plan: &Digest, record: &Digest, message: Option<&str>) -> Vec<u8> {
    let message = message.map(|message| format!("message: {}\n", Value::from(message))).unwrap_or_default();
    format!("planHash: {plan}\nrecord: {record}\n{message}").into_bytes()
}

fn nothing(name: &str, what: &str) -> Error {
    Error::failed(format!("{name} {what}")).hint("`locktender status` shows where it is")
}

/// Refuses what a rollout that is over, or goes back, cannot take any more.
fn running(state: &State, name: &str, what: &str) -> Result<(), Error> {
    // More may have been recorded since: what was put back, what needed no stages.
    let at = |said: &str, event: Event| {
        let ended = state.records.iter().rev().find(|record| record.event == event);
        format!("{said} at {}", ended.map(|record| clock(record.time)).unwrap_or_default())
    };
    let hint = format!("`locktender history {}`", state.plan.rollout.app);
    let (why, hint) = match state.phase {
        Phase::Running | Phase::Stopped => return Ok(()),
        Phase::Aborting(_) => {
            let from = versions(&state.plan);
            let to = from.split(" → ").next().filter(|_| state.plan.from.is_some()).unwrap_or("nothing");
            (format!("it is going back to {to} since {}", clock(state.since)), format!("{hint} shows why"))
        }
        Phase::Ended(Ended::Completed) => (at("it completed", Event::Completed), format!("{hint} shows how")),
        Phase::Ended(Ended::Aborted) => (at("it was aborted", Event::Aborted), format!("{hint} shows why")),
        Phase::Ended(Ended::Superseded) => {
            (at("it was superseded", Event::Superseded), format!("{hint} shows by what"))
        }
    };
    Err(Error::failed(format!("{name} {what}: {why}")).hint(hint))
}

fn stage_to_confirm(
    state: &State,
    decisions: &Decisions<'_>,
    name: &str,
    asked: Option<&str>,
) -> Result<(crate::core::names::StageName, Digest), Error> {
    running(state, name, "waits for nothing")?;
    if let Some(asked) = asked
        && state.index_of(&asked.into()).is_none()
    {
        let stages: Vec<&str> = state.plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Err(
            Error::usage(format!("{name} has no stage `{asked}`")).hint(format!("it has {}", stages.join(", ")))
        );
    }
    let current = state.current();
    if let Some(asked) = asked.filter(|asked| *asked != current.name.as_str()) {
        let at = state.index_of(&asked.into()).unwrap_or(0);
        let why = if at < state.stage { "was passed" } else { "does not wait yet: a confirm now would open nothing" };
        return Err(nothing(name, &format!("is at {}; {asked} {why}", current.name)));
    }
    if !current.asks_for_confirm() {
        return Err(nothing(name, &format!("waits for nothing: {} asks for no confirm", current.name)));
    }
    let Some(waiting) = state.waiting.get(&current.name) else {
        let why = format!("waits for nothing: {} is under way since {}", current.name, clock(state.since));
        return Err(Error::failed(format!("{name} {why}"))
            .hint("a confirm counts once its author has seen the stage wait; `locktender watch` shows when it does"));
    };
    if decisions.promote().is_some() {
        return Err(nothing(name, "waits for nothing: it is promoted already"));
    }
    if decisions.is_open(current) {
        return Err(nothing(name, &format!("waits for nothing: {} is confirmed already", current.name)));
    }
    Ok((current.name.clone(), waiting.record))
}

fn to_retry(state: &State, decisions: &Decisions<'_>, content: Option<&HeadContent>, name: &str) -> Result<(), Error> {
    let still_there = match content {
        Some(HeadContent::Rendered(render)) => render.digests == state.plan.to.workloads,
        Some(HeadContent::Removed) => state.plan.inputs.files.is_empty(),
        _ => false,
    };
    match state.phase {
        Phase::Stopped => {}
        Phase::Ended(Ended::Aborted) if still_there && !state.moved_on => {}
        Phase::Ended(Ended::Aborted) => {
            return Err(Error::failed(format!("{name} cannot be tried again: Git says something else since"))
                .hint("revert the repair, or merge the change again: it is released with all its gates"));
        }
        Phase::Running => return Err(nothing(name, "has nothing to try again: it is running")),
        _ => running(state, name, "has nothing to try again")?,
    }
    if decisions.retry().is_some() {
        return Err(nothing(name, "is tried again already: the controller has not acted on it yet"));
    }
    Ok(())
}

/// Writes an abort into the anchor: Git is away.
async fn abort_now(args: &AbortArgs) -> Outcome {
    let app = AppName::new(&args.common.app);
    let cluster = args.cluster.connect().await?;
    let object = match &args.namespace {
        Some(namespace) => cluster.read(&config_maps(), namespace, &anchor::name(&app)).await?,
        None => find_anchor(&cluster, &app).await?,
    };
    let Some((object, known)) = object.and_then(|object| anchor::read(&object).map(|known| (object, known))) else {
        let place = args.namespace.as_ref().map_or("this cluster".to_owned(), |name| format!("the namespace {name}"));
        let error = Error::failed(format!("there is no anchor of {app} in {place}"));
        return Err(error.hint("is it the right cluster? The controller writes the anchor when it opens a rollout, without a policy when Git goes away"));
    };
    let journal = known.rollouts.into_values().next_back();
    let Some(journal) = journal else { return Err(Error::failed(format!("{app} has no rollout"))) };
    let state = State::fold(journal.plan, journal.records);
    let called = format!("{app} {:04}", state.plan.rollout.number);
    running(&state, &called, "cannot be aborted")?;
    let said = anchor::abort_of(&state.plan.rollout, &person(&args.common.repo), args.common.message.as_deref());
    let body = json!({ "data": { anchor::ABORT: said } });
    let write = Write::Patch {
        kind: config_maps(),
        key: object.key(),
        uid: object.uid().to_owned(),
        resource_version: None,
        patch: PatchType::Merge,
        body,
        subresource: None,
    };
    cluster.write(&write).await?;
    let anchor = format!("{}/{}", object.namespace(), object.name());
    output::data(&format!("aborted {called}   (in the anchor {anchor}; Git hears of it when it is back)\n"));
    Ok(Done::Well)
}

/// Returns who decides, as a commit would say, or else as this machine does.
fn person(repo: &RepoArgs) -> String {
    let author = repo.find().ok().and_then(|place| place.author().ok()).or_else(author_anywhere);
    if let Some((name, email)) = author {
        return format!("{name} <{email}>");
    }
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    format!("{}@{}", user.as_deref().unwrap_or("somebody"), host())
}

fn config_maps() -> Kind {
    Kind::new("", "v1", "ConfigMap")
}

/// Finds an application's anchor, in whichever namespace it is.
async fn find_anchor(cluster: &KubeCluster, app: &AppName) -> Result<Option<Object>, Error> {
    let hint = "name the application's namespace with `--namespace`";
    let mut anchors = match list(cluster, &config_maps()).await {
        Ok(objects) => objects.into_iter().filter(|object| object.label(labels::ANCHOR) == Some(app.as_str())),
        Err(why) => return Err(Error::failed(format!("cannot list the cluster's ConfigMaps: {why}")).hint(hint)),
    };
    match (anchors.next(), anchors.next()) {
        (Some(one), Some(other)) => {
            let places = format!("{} and {}", one.namespace(), other.namespace());
            Err(Error::failed(format!("{app} has anchors in the namespaces {places}")).hint(hint))
        }
        (one, _) => Ok(one),
    }
}
