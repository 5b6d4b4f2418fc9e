//! `audit`: the trail of records, whether it holds, and accepting that a part of it was lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::{
    decision,
    error::{Done, Error, Outcome},
    history::{By, Who, decided, word},
    output::{self, OutputArgs, columns},
    place::{ClusterArgs, Opened, Place, RepoArgs, no_such_app, ports},
};
use crate::{
    adapter::kube::NoCluster,
    controller::look::Look,
    core::{
        cluster::Cluster,
        ledger::{
            Record,
            audit::{Audited, DecisionFacts, RolloutFacts, Version, accepted, audit},
            journal,
        },
        names::{AppName, BlobId, Digest, Revision, RolloutId},
        repository::{EntryKind, Repository},
        rollout::plan,
    },
};

/// The largest ledger file that is read.
const LARGEST: u64 = 64 << 20;
const ACCEPTED: &str = "rollouts/accepted.yaml";

/// Reads and checks the trail of records
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Prints every record in order
    Log(LogArgs),
    /// Checks that the trail holds: chains, plans, decisions, and that nothing was rewritten
    Verify(LogArgs),
    /// Accepts that the branch was rewritten and a record lost, by a commit
    Accept(AcceptArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender audit log checkout -o json
  locktender audit verify

Exit codes: 0 done, 1 failed or the trail does not hold, 2 wrong usage.")]
pub(super) struct LogArgs {
    /// The application. Default: all
    app: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Accepts that the branch was rewritten and a record lost: commits rollouts/accepted.yaml, which names the record
///
/// The application's anchor in the cluster knows which record that is; --record names it where the cluster cannot be
/// asked. The controller goes on with what the branch has. A cluster that was restored from a backup, or is another than
/// the records tell of, is accepted in the same way: what Git has is put in place there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender audit accept checkout -m 'history was rewritten to drop a secret'

Exit codes: 0 committed and pushed, 1 nothing is lost or not pushed, 2 wrong usage.")]
pub(super) struct AcceptArgs {
    /// The application
    app: String,
    /// The id of the lost record, sha256:…
    #[arg(long, value_name = "ID", value_parser = Digest::parse)]
    record: Option<Digest>,
    /// Why, for the commit
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Log(args) => log(args).await,
        Command::Verify(args) => verify(args).await,
        Command::Accept(args) => accept(args).await,
    }
}

struct Trail {
    place: Place,
    opened: Opened,
    look: Look,
    head: Revision,
    apps: Vec<AppName>,
}

impl Trail {
    async fn read(args: &LogArgs) -> Result<Self, Error> {
        let place = args.repo.find()?;
        let opened = place.open().await?;
        let mut look = Look::new(ports(opened.repository.clone(), Arc::new(NoCluster)));
        let head = opened.read_and_say(&mut look).await?;
        let apps = match &args.app {
            Some(app) => {
                let app = AppName::new(app);
                if look.content(&app).is_none() {
                    return Err(no_such_app(&look, &app, &place.called));
                }
                vec![app]
            }
            None => look.apps(),
        };
        Ok(Self { place, opened, look, head, apps })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Logged {
    rollout: RolloutId,
    #[serde(flatten)]
    record: Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
}

async fn log(args: LogArgs) -> Outcome {
    let trail = Trail::read(&args).await?;
    let mut who = Who::default();
    let mut all = Vec::new();
    for app in &trail.apps {
        for state in trail.look.rollouts(app) {
            let rollout = &state.plan.rollout;
            for record in &state.records {
                let repository = trail.opened.repository.as_ref();
                let by = match decided(record) {
                    Some(file) => who.decided(repository, &trail.head, &record.head, rollout, file).await?,
                    None => None,
                };
                all.push(Logged { rollout: rollout.clone(), record: record.clone(), by });
            }
        }
    }
    // One application's records are in order already; those of several are laid side by side by time.
    all.sort_by_key(|logged| logged.record.time);
    args.output.print(&all, |all| {
        if all.is_empty() {
            return "there are no records yet\n".to_owned();
        }
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|logged| {
                let record = &logged.record;
                let stage = record.stage.as_ref().map(|stage| format!("{stage} ")).unwrap_or_default();
                let by = logged.by.as_ref().map(|by| format!("{}: {}", by.author, by.why));
                vec![
                    record.time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                    format!("{} {:04}", logged.rollout.app, logged.rollout.number),
                    record.seq.to_string(),
                    record.id.short(),
                    format!("{stage}{}", word(record.event)),
                    by.unwrap_or_else(|| record.why.lines().next().unwrap_or_default().to_owned()),
                ]
            })
            .collect();
        columns(&rows)
    })?;
    Ok(Done::Well)
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    head: Revision,
    applications: BTreeMap<AppName, Audited>,
}

async fn verify(args: LogArgs) -> Outcome {
    let trail = Trail::read(&args).await?;
    let repository = trail.opened.repository.as_ref();
    let mut facts = gather(&trail, repository).await?;
    let applications: BTreeMap<AppName, Audited> =
        trail.apps.iter().filter_map(|app| Some((app.clone(), audit(app, &facts.remove(app)?)))).collect();
    let ok = applications.values().all(|audited| audited.broken.is_none());
    let verified = Verified { ok, head: trail.head.clone(), applications };
    args.output.print(&verified, show)?;
    if ok {
        return Ok(Done::Well);
    }
    let broken = verified.applications.values().find_map(|audited| audited.broken.as_ref());
    let (place, why) = broken.cloned().unwrap_or_default();
    Err(Error::failed(format!("{place}: {why}"))
        .hint(format!("git log -p -- rollouts   in a clone of {} shows who changed it", trail.place.url)))
}

fn show(verified: &Verified) -> String {
    let mut text = String::new();
    let width = verified.applications.keys().map(|app| app.as_str().len()).max().unwrap_or(0).max(8);
    let many = |count: usize, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    for (app, audited) in &verified.applications {
        let counted = format!("{}, {}", many(audited.rollouts, "rollout"), many(audited.records, "record"));
        match &audited.broken {
            None => {
                let _ = writeln!(text, "{app:<width$}   {counted}, chain unbroken");
            }
            Some((place, why)) => {
                let _ = writeln!(text, "{app:<width$}   {}: {place}: {why}", "broken".red());
            }
        }
        if audited.analyses > 0 && audited.broken.is_none() {
            let analyses = if audited.analyses == 1 { "analysis" } else { "analyses" };
            let what = "every verdict follows from its samples";
            let _ = writeln!(text, "{:<width$}   {} {analyses}: {what}", "", audited.analyses);
        }
        if audited.confirms > 0 && audited.broken.is_none() {
            let confirms = many(audited.confirms, "confirm");
            let by = match audited.confirms - audited.by_people {
                0 => "all by people".to_owned(),
                others => format!("{others} by the controller's own identity"),
            };
            let _ = writeln!(text, "{:<width$}   {confirms}: {by}, all after what they confirm", "");
        }
        for note in &audited.notes {
            let _ = writeln!(text, "{:<width$}   note: {note}", "");
        }
    }
    if verified.ok {
        text.push_str(match verified.applications.is_empty() {
            true => "ok: there are no records yet\n",
            false => "ok: HEAD explains what stable is and how it became so\n",
        });
    }
    text
}

/// Collects what Git has of every rollout.
async fn gather(trail: &Trail, repository: &dyn Repository) -> Result<BTreeMap<AppName, Vec<RolloutFacts>>, Error> {
    let head = &trail.head;
    let at_head: BTreeMap<String, BlobId> =
        repository.files(head, "rollouts").await?.into_iter().map(|entry| (entry.path, entry.id)).collect();
    let identity = trail.look.branch().map(|branch| branch.settings.identity.clone());
    let own = identity.map(|identity| format!("{} <{}>", identity.name, identity.email)).unwrap_or_default();
    let mut rollouts: BTreeMap<RolloutId, RolloutFacts> = BTreeMap::new();
    for name in ["plan.yaml", "journal.yaml"] {
        for version in repository.versions(head, None, "rollouts", &[name]).await? {
            let directory = version.path.strip_prefix("rollouts/").and_then(|path| path.strip_suffix(name));
            let Some(id) = directory.and_then(|path| RolloutId::parse(path.trim_end_matches('/'))) else { continue };
            if !trail.apps.contains(&id.app) {
                continue;
            }
            let bytes = repository.read(&version.blob, LARGEST).await?;
            let text = String::from_utf8_lossy(&bytes);
            let here = at_head.get(&version.path) == Some(&version.blob);
            let facts = rollouts.entry(id.clone()).or_insert_with(|| RolloutFacts {
                id,
                plans: Vec::new(),
                journals: Vec::new(),
                decisions: BTreeMap::new(),
                unknown_heads: BTreeSet::new(),
            });
            let commit = version.commit;
            if name == "plan.yaml" {
                facts.plans.push(Version { commit, at_head: here, content: plan::read(&text) });
            } else {
                facts.journals.push(Version { commit, at_head: here, content: journal::read(&text) });
            }
        }
    }
    let mut who = Who::default();
    for (id, facts) in &mut rollouts {
        let chains = facts.journals.iter().filter_map(|version| version.content.as_ref().ok());
        let records = chains.max_by_key(|records| records.len()).cloned().unwrap_or_default();
        for decided_on in records.iter().map(|record| &record.head) {
            // A commit that is not there at all is in no history either.
            if !repository.is_ancestor(decided_on, head).await.unwrap_or(false) {
                facts.unknown_heads.insert(decided_on.clone());
            }
        }
        for record in &records {
            let Some(file) = accepted(record) else { continue };
            let path = format!("{}/{}", id.directory(), file.path);
            let was_there = match repository.files(&record.head, &id.directory()).await {
                Ok(entries) => entries.iter().any(|entry| {
                    entry.kind == EntryKind::File && entry.path == path && Some(&entry.id) == file.blob.as_ref()
                }),
                Err(_) => false,
            };
            let by = who.decided(repository, head, &record.head, id, file).await?;
            let by_controller = by.is_some_and(|by| by.author == own);
            facts.decisions.insert(record.id, DecisionFacts { was_there, by_controller });
        }
    }
    let mut by_app: BTreeMap<AppName, Vec<RolloutFacts>> = BTreeMap::new();
    for (id, facts) in rollouts {
        by_app.entry(id.app).or_default().push(facts);
    }
    Ok(by_app)
}

async fn accept(args: AcceptArgs) -> Outcome {
    let place = args.repo.find()?;
    let author = place.author()?;
    let opened = place.open().await?;
    let cluster: Arc<dyn Cluster> = match args.record {
        Some(_) => Arc::new(NoCluster),
        None => Arc::new(args.cluster.connect().await?),
    };
    let mut look = Look::new(ports(opened.repository.clone(), cluster));
    look.fetch().await?;
    let app = AppName::new(&args.app);
    // What Git has: once the cluster is asked, what the anchor remembers is beside it.
    let in_git: BTreeSet<Digest> =
        look.rollouts(&app).iter().flat_map(|state| state.records.iter().map(|record| record.id)).collect();
    let mut unknown = false;
    let lost = match args.record {
        Some(record) => BTreeSet::from([record]),
        None => {
            let asked = look.watch(Duration::from_secs(15)).await;
            asked.map_err(|why| {
                Error::failed(format!("the cluster cannot be asked which record is lost: {why}"))
                    .hint("`--record` names it: `id` of the last record in rollouts/<app>/<number>/journal.yaml of a clone that has it")
            })?;
            let named = look.named(&app);
            let lost: BTreeSet<Digest> = named.difference(&in_git).copied().collect();
            let unknown_here = look.unknown_here(&app).filter(|_| lost.is_empty());
            unknown = unknown_here.is_some();
            match (named.is_empty(), lost.is_empty()) {
                _ if unknown => unknown_here.into_iter().collect(),
                (false, true) => return Err(Error::failed(format!("no record of {app} is lost"))),
                (false, false) => lost,
                (true, _) => {
                    return Err(Error::failed(format!("nothing in the cluster names a record of {app}"))
                        .hint("`--record` names the lost record"));
                }
            }
        }
    };
    if let Some(known) = lost.intersection(&in_git).next().filter(|_| !unknown) {
        return Err(Error::failed(format!("record {} of {app} is not lost: the branch has it", known.short())));
    }
    let records = |lost: &BTreeSet<Digest>| {
        let names: Vec<String> = lost.iter().map(Digest::short).collect();
        match names.as_slice() {
            [one] if unknown => format!("the cluster knows nothing of {app} up to record {one}"),
            [one] => format!("record {one} of {app} was lost"),
            several => format!("records {} of {app} were lost", several.join(", ")),
        }
    };
    let repository = opened.repository.clone();
    for _ in 0..8 {
        let head = look.fetch().await?;
        let before = read_accepted(repository.as_ref(), &head).await?;
        let fresh: BTreeSet<Digest> = lost.iter().filter(|id| !before.contains(&id.to_string())).copied().collect();
        if fresh.is_empty() {
            let names: Vec<String> = lost.iter().map(Digest::short).collect();
            return Err(Error::failed(format!("record {} is accepted as lost already", names.join(", "))));
        }
        let because = args.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let lines: String = fresh.iter().map(|id| format!("- {id}   # of {app}\n")).collect();
        let content = format!("{before}{lines}");
        let edits = BTreeMap::from([(ACCEPTED.to_owned(), Some(content.into_bytes()))]);
        let message = format!("accept that {}{because}", records(&fresh));
        let pushed = decision::push_once(&place, repository.as_ref(), &head, edits, message, &author, look.now());
        if let Some(commit) = pushed.await? {
            let said = format!("accepted that {}", records(&fresh));
            output::data(&format!("{said}   (commit {}, pushed to {})\n", commit.short(), place.called));
            return Ok(Done::Well);
        }
    }
    Err(Error::failed(format!("could not push to {}", place.called)).hint("others push at the same time; try again"))
}

async fn read_accepted(repository: &dyn Repository, head: &Revision) -> Result<String, Error> {
    let entries = repository.directory(head, "rollouts").await?.unwrap_or_default();
    let Some(entry) = entries.iter().find(|entry| entry.path == ACCEPTED) else { return Ok(String::new()) };
    let mut text = String::from_utf8_lossy(&repository.read(&entry.id, 1 << 20).await?).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
