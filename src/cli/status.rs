//! `status`: where applications are, from Git and the cluster directly.

use std::sync::Arc;

use super::{
    error::{Done, Error, Outcome},
    output::{self, OutputArgs},
    place::{ClusterArgs, Opened, PATIENCE, Place, RepoArgs, list, no_such_app, ports},
    print::report::{self, Shown},
    validate::no_application,
};
use crate::{
    adapter::kube::NoCluster,
    controller::{look::Look, source},
    core::{
        cluster::Cluster,
        lease,
        manifest::Object,
        names::AppName,
        rollout::{
            input::HeadContent,
            plan::Gate,
            report::{Activity, Reason, Report},
            state::{Phase, State},
        },
    },
};

/// Shows where applications are, and why they are not further
///
/// Reads Git and the cluster itself, so it works with the controller dead. Without a cluster it still says what Git
/// says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender status
  locktender status checkout -o json

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct Args {
    /// The application. Default: all, one line each
    app: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a controller's Lease is called, or begins with.
const LEASE: &str = "locktender";

/// Git and the cluster, looked at together.
pub(super) struct Sight {
    /// What was seen.
    pub look: Look,
    /// The release repository.
    pub place: Place,
    /// Why the cluster cannot be asked.
    pub cluster_away: Option<String>,
    /// When a controller was seen last, where its lease says that none is there.
    pub no_controller: Option<String>,
    _opened: Opened,
}

impl Sight {
    /// Looks at Git, and at the cluster where there is one.
    pub(super) async fn new(repo: &RepoArgs, cluster: &ClusterArgs) -> Result<Self, Error> {
        let place = repo.find()?;
        let opened = place.open().await?;
        let named = cluster.kubeconfig.is_some() || cluster.context.is_some();
        let (client, mut cluster_away): (Arc<dyn Cluster>, Option<String>) = match cluster.connect().await {
            Ok(client) => (Arc::new(client), None),
            Err(error) if named => return Err(error),
            Err(_) => (Arc::new(NoCluster), Some("no kubeconfig was found".to_owned())),
        };
        let mut look = Look::new(ports(opened.repository.clone(), client));
        opened.read(&mut look).await?;
        if cluster_away.is_none()
            && let Err(why) = look.watch(PATIENCE).await
        {
            cluster_away = Some(format!("it cannot be asked ({why})"));
        }
        Ok(Self { look, place, cluster_away, no_controller: None, _opened: opened })
    }

    /// Looks whether a controller holds its lease. Where there is none, or it may not be seen, nothing is said.
    async fn look_for_controller(&mut self, cluster: &ClusterArgs) {
        let Ok(client) = cluster.connect().await else { return };
        let Ok(leases) = list(&client, &lease::kind()).await else { return };
        let own = format!("{LEASE}-{}", self.place.key());
        let ours = |one: &&Object| one.name() == LEASE || one.name().starts_with(&format!("{LEASE}-"));
        let named: Vec<&Object> = leases.iter().filter(ours).collect();
        // The controller may know the repository by another URL: the only one that there is must be its.
        let found = named.iter().find(|one| one.name() == own).or(match named.as_slice() {
            [only] => Some(only),
            _ => None,
        });
        self.no_controller = found.and_then(|one| lease::abandoned(one, self.look.now()));
    }

    /// Lists directories that look like applications and are none, and those of none in which people decided: one line
    /// each.
    async fn warnings(&self) -> Vec<String> {
        let Some((at, paths)) = self.look.head().zip(self.look.branch().map(|branch| &branch.settings.paths)) else {
            return Vec::new();
        };
        let repository = self.look.repository();
        let strays = source::strays(repository.as_ref(), at, paths).await.unwrap_or_default();
        let apps = self.look.apps().into_iter().collect();
        let homeless = source::homeless(repository.as_ref(), at, &apps).await.unwrap_or_default();
        strays.iter().map(|directory| no_application(directory)).chain(homeless).collect()
    }

    /// Says where one application is.
    pub(super) async fn show(&mut self, app: &AppName) -> Option<Shown> {
        let mut decision = self.look.decide(app).await?;
        // The cluster was looked at after Git: its anchor may name a record that was pushed in between.
        let is_lost = |reason: &Reason| matches!(reason, Reason::HistoryRewritten { .. });
        if decision.report.reasons.iter().any(is_lost) && self.look.fetch().await.is_ok() {
            decision = self.look.decide(app).await?;
        }
        let rollouts = self.look.rollouts(app).to_vec();
        let mut decided = decision.report;
        if self.cluster_away.is_none() {
            decided.reasons.extend(self.look.refusals(&decision.actions).await);
            decided.reasons.extend(self.look.refused(app));
            decided.reasons.sort();
            decided.reasons.dedup();
        }
        let content = self.look.content(app).cloned();
        if rollouts.is_empty() && content.is_none_or(|content| matches!(content, HeadContent::Removed)) {
            return None;
        }
        let stable = report::stable(&rollouts);
        let state = rollouts.last().cloned();
        let report = match &self.cluster_away {
            None => decided,
            Some(_) => as_git_says(decided, state.as_ref()),
        };
        let (cluster_away, no_controller) = (self.cluster_away.clone(), self.no_controller.clone());
        Some(Shown { report, stable, cluster_away, no_controller, state })
    }
}

/// Leaves of a report what Git alone can tell.
fn as_git_says(mut report: Report, state: Option<&State>) -> Report {
    report.units.clear();
    report.reasons.retain(|reason| {
        matches!(
            reason,
            Reason::ConfirmNeeded { .. }
                | Reason::Analysing { .. }
                | Reason::Paused
                | Reason::Frozen { .. }
                | Reason::Full(_)
                | Reason::Stopped { .. }
                | Reason::HeadBroken { .. }
                | Reason::GitAway { .. }
                | Reason::HistoryRewritten { .. }
                | Reason::Held { .. }
                | Reason::Useless { .. }
        )
    });
    let Some(state) = state.filter(|state| matches!(state.phase, Phase::Running) && !state.paused) else {
        return report;
    };
    let stage = state.current();
    let waiting = state.waiting.get(&stage.name).filter(|_| stage.asks_for_confirm());
    if let Some(waiting) = waiting
        && !report.reasons.iter().any(|reason| matches!(reason, Reason::ConfirmNeeded { .. }))
    {
        let removes = if stage.gates.contains(&Gate::Health) { Vec::new() } else { state.plan.prunes.clone() };
        let reason = Reason::ConfirmNeeded { stage: stage.name.clone(), since: state.waits_since(waiting), removes };
        report.reasons.insert(0, reason);
    }
    let analysed = report.reasons.iter().any(|reason| matches!(reason, Reason::Analysing { .. }));
    report.activity = if waiting.is_some() || analysed { Activity::Waiting } else { Activity::Progressing };
    report
}

pub(super) async fn run(args: Args) -> Outcome {
    let mut sight = Sight::new(&args.repo, &args.cluster).await?;
    if sight.cluster_away.is_none() {
        sight.look_for_controller(&args.cluster).await;
    }
    let now = sight.look.now();
    if let Some(app) = &args.app {
        let app = AppName::new(app);
        let shown = sight.show(&app).await.ok_or_else(|| no_such_app(&sight.look, &app, &sight.place.called))?;
        args.output.print(&shown, |shown| report::block(shown, now))?;
        return Ok(Done::Well);
    }
    let mut all = Vec::new();
    for app in sight.look.apps() {
        all.extend(sight.show(&app).await);
    }
    args.output.print(&all, |all| {
        let away = sight.cluster_away.as_ref();
        let note = away.map(|why| format!("\nno cluster: {why}: this is what Git says\n")).unwrap_or_default();
        let gone = sight.no_controller.as_ref().map(|seen| format!("\ncontroller: {seen}\n")).unwrap_or_default();
        format!("{}{note}{gone}", report::table(all))
    })?;
    for warning in sight.warnings().await {
        output::say(&format!("warning: {warning}\n"));
    }
    Ok(Done::Well)
}
