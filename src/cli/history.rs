//! `history`: the rollouts of an application, their records, who decided and why.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::{
    error::{Done, Error, Outcome},
    output::{OutputArgs, columns},
    place::{RepoArgs, no_such_app, ports},
};
use crate::{
    adapter::kube::NoCluster,
    controller::look::Look,
    core::{
        ledger::{DecisionFile, Event, Record},
        names::{AppName, BlobId, Revision, RolloutId},
        policy::read_decision,
        repository::{CommitInfo, Repository},
        rollout::{
            state::{Outcome as Ended, Phase, State},
            versions,
        },
    },
};

/// Lists rollouts; of one application also every record, who decided and why
///
/// Read from Git alone: the cluster and the controller are not asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender history
  locktender history checkout --rollout 7

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct Args {
    /// The application. Default: all, one line a rollout
    app: Option<String>,
    /// Only this rollout
    #[arg(long, value_name = "N", requires = "app")]
    rollout: Option<u32>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// One rollout.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    rollout: RolloutId,
    versions: String,
    now: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened: Option<Timestamp>,
    plan: crate::core::names::Digest,
    records: Vec<ToldRecord>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldRecord {
    #[serde(flatten)]
    record: Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
}

/// Whose commit a decision was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct By {
    /// `Ada <ada@example.com>`.
    pub author: String,
    /// The commit.
    pub commit: Revision,
    /// The decision's message, else the commit's first line.
    pub why: String,
}

pub(super) async fn run(args: Args) -> Outcome {
    let place = args.repo.find()?;
    let opened = place.open().await?;
    let repository: Arc<dyn Repository> = opened.repository.clone();
    let mut look = Look::new(ports(repository.clone(), Arc::new(NoCluster)));
    let head = opened.read_and_say(&mut look).await?;
    let apps = match &args.app {
        Some(app) => vec![AppName::new(app)],
        None => look.apps(),
    };
    let mut told = Vec::new();
    for app in &apps {
        let rollouts = look.rollouts(app);
        if rollouts.is_empty() && args.app.is_some() {
            return match look.content(app) {
                None => Err(no_such_app(&look, app, &place.called)),
                Some(_) => Err(Error::failed(format!("{app} has no rollout yet"))
                    .hint("the controller opens one when it sees the application; is it running?")),
            };
        }
        for state in rollouts {
            if args.rollout.is_none_or(|number| number == state.plan.rollout.number) {
                told.push(tell(state, repository.as_ref(), &head).await?);
            }
        }
    }
    if let (Some(number), true) = (args.rollout, told.is_empty()) {
        let app = args.app.clone().unwrap_or_default();
        return Err(Error::failed(format!("there is no rollout {app} {number:04}"))
            .hint(format!("`locktender history {app}` lists them")));
    }
    let all = args.app.is_none();
    args.output.print(&told, |told| if all { lines(told) } else { blocks(told) })?;
    Ok(Done::Well)
}

async fn tell(state: &State, repository: &dyn Repository, head: &Revision) -> Result<Told, Error> {
    let mut who = Who::default();
    let mut records = Vec::new();
    for record in &state.records {
        let by = match decided(record) {
            Some(file) => who.decided(repository, head, &record.head, &state.plan.rollout, file).await?,
            None => None,
        };
        records.push(ToldRecord { record: record.clone(), by });
    }
    Ok(Told {
        rollout: state.plan.rollout.clone(),
        versions: versions(&state.plan),
        now: now(state),
        policy: state.plan.policy.as_ref().map(|policy| policy.name.clone()),
        opened: state.records.first().map(|record| record.time),
        plan: state.plan.hash,
        records,
    })
}

/// Returns the decision that a record answers.
pub(super) fn decided(record: &Record) -> Option<&DecisionFile> {
    record.evidence.decision.as_ref().filter(|file| file.blob.is_some())
}

/// Finds whose commits decisions were; remembers each directory's history.
#[derive(Default)]
pub(super) struct Who {
    known: BTreeMap<String, Vec<(BlobId, Revision)>>,
}

impl Who {
    /// Finds the commit that brought a decision's file as it was; `None` where none reachable from HEAD did. The same
    /// file may be confirmed, reverted and confirmed again: `decided_on`, the commit that the record saw, tells which.
    pub(super) async fn decided(
        &mut self,
        repository: &dyn Repository,
        head: &Revision,
        decided_on: &Revision,
        rollout: &RolloutId,
        file: &DecisionFile,
    ) -> Result<Option<By>, Error> {
        let Some(blob) = &file.blob else { return Ok(None) };
        let path = format!("{}/{}", rollout.directory(), file.path);
        let (below, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if !self.known.contains_key(&path) {
            let versions = repository.versions(head, None, below, &[name]).await?;
            let here = versions.into_iter().filter(|version| version.path == path);
            self.known.insert(path.clone(), here.map(|version| (version.blob, version.commit)).collect());
        }
        let versions = self.known.get(&path).map_or(&[][..], Vec::as_slice);
        let Some((_, first)) = versions.iter().find(|(id, _)| id == blob) else { return Ok(None) };
        // The commit that was seen may be lost with a rewritten branch.
        let seen = repository.log(decided_on, &path, 1).await.ok().and_then(|log| log.into_iter().next());
        let info = match seen {
            Some(info) => Some(info),
            None => repository.log(first, &path, 1).await?.into_iter().next(),
        };
        let Some(info) = info else { return Ok(None) };
        let said = match repository.read(blob, 1 << 20).await {
            Ok(bytes) => read_decision(&path, &bytes).ok().and_then(|body| body.message),
            Err(_) => None,
        };
        let CommitInfo { id, author, message, .. } = info;
        let why = said.unwrap_or_else(|| message.lines().next().unwrap_or_default().to_owned());
        Ok(Some(By { author, commit: id, why }))
    }
}

fn now(state: &State) -> &'static str {
    match state.phase {
        Phase::Running if state.paused => "paused",
        Phase::Running => "running",
        Phase::Stopped => "stopped",
        Phase::Aborting(_) => "aborting",
        Phase::Ended(Ended::Completed) => "completed",
        Phase::Ended(Ended::Aborted) => "aborted",
        Phase::Ended(Ended::Superseded) => "superseded",
    }
}

fn minute(time: Option<Timestamp>) -> String {
    time.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

fn lines(told: &[Told]) -> String {
    if told.is_empty() {
        return "there are no rollouts yet\n".to_owned();
    }
    let mut rows = vec![["rollout", "version", "now", "opened", "records"].map(str::to_owned).to_vec()];
    rows.extend(told.iter().map(|one| {
        let name = format!("{} {:04}", one.rollout.app, one.rollout.number);
        vec![name, one.versions.clone(), one.now.to_owned(), minute(one.opened), one.records.len().to_string()]
    }));
    columns(&rows)
}

fn blocks(told: &[Told]) -> String {
    told.iter().map(block).collect::<Vec<_>>().join("\n")
}

fn block(told: &Told) -> String {
    let name = format!("{} {:04}", told.rollout.app, told.rollout.number);
    let policy = told.policy.as_deref().unwrap_or("no policy");
    let title = format!("{name}   {}   {}   {policy}", told.versions, told.now);
    let mut text = format!("{}   {}\n", title.bold(), minute(told.opened));
    for one in &told.records {
        let record = &one.record;
        let time = record.time.strftime("%H:%M:%S");
        let stage = record.stage.as_ref().map(|stage| format!("{stage} ")).unwrap_or_default();
        let _ = writeln!(text, "  {time}  {stage}{}", word(record.event));
        match &one.by {
            Some(by) => {
                let _ = writeln!(text, "            by {}: {} ({})", by.author, by.why, by.commit.short());
            }
            None => {
                let _ = writeln!(text, "            {}", record.why.lines().next().unwrap_or_default());
            }
        }
        if record.event == Event::DecisionRejected && one.by.is_some() {
            let _ = writeln!(text, "            {}", record.why);
        }
    }
    text
}

/// Names an event in a few words.
pub(super) fn word(event: Event) -> &'static str {
    match event {
        Event::RolloutOpened => "opened",
        Event::StageStarted => "started",
        Event::StageWaiting => "waiting",
        Event::ConfirmAccepted => "confirmed",
        Event::DecisionRejected => "decision counts for nothing",
        Event::StageReverted => "gone back to",
        Event::AnalysisRun => "analysed",
        Event::Rescheduled => "rescheduled",
        Event::QuotaChanged => "quotas changed",
        Event::Paused => "paused",
        Event::Resumed => "resumed",
        Event::Stopped => "stopped",
        Event::Retried => "tries again",
        Event::Superseded => "superseded",
        Event::Aborting => "aborting",
        Event::Aborted => "aborted",
        Event::Reverted => "Git repaired",
        Event::Promoted => "promoted",
        Event::Completed => "completed",
        Event::DriftCorrected => "drift corrected",
        Event::LedgerRestored => "ledger restored",
        Event::Held => "held",
        Event::Applied => "applied",
    }
}
