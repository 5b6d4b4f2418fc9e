//! `status`: where applications are, from Git and the cluster directly.

use std::{sync::Arc, time::Duration};

use super::{
    error::{Done, Error, Outcome},
    output::OutputArgs,
    place::{ClusterArgs, Opened, Place, RepoArgs, no_such_app, ports},
    print::report::{self, Shown},
};
use crate::{
    adapter::kube::NoCluster,
    controller::look::Look,
    core::{
        cluster::Cluster,
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

/// How long the cluster may take to list everything.
const PATIENCE: Duration = Duration::from_secs(15);

/// Git and the cluster, looked at together.
pub(super) struct Sight {
    /// What was seen.
    pub look: Look,
    /// The release repository.
    pub place: Place,
    /// Why the cluster cannot be asked.
    pub cluster_away: Option<String>,
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
        Ok(Self { look, place, cluster_away, _opened: opened })
    }

    /// Says where one application is.
    pub(super) async fn show(&mut self, app: &AppName) -> Option<Shown> {
        let rollouts = self.look.rollouts(app).to_vec();
        let decision = self.look.decide(app).await?;
        let mut decided = decision.report;
        if self.cluster_away.is_none() {
            decided.reasons.extend(self.look.refusals(&decision.actions).await);
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
        Some(Shown { report, stable, cluster_away: self.cluster_away.clone(), state })
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
                | Reason::Stopped { .. }
                | Reason::HeadBroken { .. }
                | Reason::GitAway { .. }
                | Reason::HistoryRewritten { .. }
                | Reason::Held { .. }
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
        let reason = Reason::ConfirmNeeded { stage: stage.name.clone(), since: waiting.since, removes };
        report.reasons.insert(0, reason);
    }
    let analysed = report.reasons.iter().any(|reason| matches!(reason, Reason::Analysing { .. }));
    report.activity = if waiting.is_some() || analysed { Activity::Waiting } else { Activity::Progressing };
    report
}

pub(super) async fn run(args: Args) -> Outcome {
    let mut sight = Sight::new(&args.repo, &args.cluster).await?;
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
        format!("{}{note}", report::table(all))
    })?;
    Ok(Done::Well)
}
