//! `plan`: what merging would release, before anybody merges.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    error::{Done, Error, Outcome},
    output::{self, OutputArgs},
    place::{ClusterArgs, Opened, RepoArgs, no_such_app, ports},
    print,
};
use crate::{
    adapter::{kube::NoCluster, render::KustomizeRenderer},
    controller::{
        look::{Look, Preview},
        source::{Snapshot, Source},
    },
    core::{
        cluster::Cluster,
        names::{AppName, Revision, Unit},
        policy::{OnAbort, Strategy, Update},
        problem::Problem,
        repository::{Repository, RepositoryError},
        rollout::{
            input::HeadContent,
            plan::{Method, Plan, Stage},
            render::{Maker, Render, Workload},
            report::{Activity, Reason},
        },
    },
};

/// Shows what merging the working tree would release, stage by stage
///
/// Takes the working tree as it is, committed or not, over what is stable in the watched branch. The plan's hash is the
/// one that the controller computes once it is merged. Needs no cluster; with --kubeconfig, replicas that Git leaves to
/// an autoscaler or to people are taken from there, and so is what would be pruned.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender plan checkout
  locktender plan --revision origin/checkout-2 -o yaml

Exit codes: 0 done, 1 failed or it does not render, 2 wrong usage, 3 the policy refuses such a change.")]
pub(super) struct Args {
    /// The application. Default: all that would change
    app: Option<String>,
    /// A commit instead of the working tree: a branch, a tag, an id
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What would happen to one application.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Planned {
    /// The application.
    pub app: AppName,
    /// In one word.
    pub outcome: Effect,
    /// The rollout's plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// By workload: how its pods change.
    pub workloads: BTreeMap<String, String>,
    /// How configuration that pods read changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// What an abort would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<String>,
    /// Everything else to know.
    pub notes: Vec<String>,
    /// Whether the target is the working tree as it is, which no commit in the repository has.
    pub is_working_tree: bool,
}

/// What merging would do to an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Effect {
    /// A rollout opens.
    Opens,
    /// It is put in place at once.
    Applied,
    /// Nothing changes.
    Nothing,
    /// The running rollout goes back: stable is rendered again.
    GoesBack,
    /// Nothing can be opened.
    Refused,
}

/// A working tree or commit that would be merged.
pub(super) struct Merged {
    /// What reads ledger, stable and the cluster.
    pub look: Look,
    /// What the branch would be.
    pub snapshot: Snapshot,
    /// Whether that is the working tree as it is.
    pub is_working_tree: bool,
    /// Whether the cluster is asked what runs there.
    asks_cluster: bool,
    /// Kept open as long as anything reads it.
    _opened: Opened,
}

pub(super) async fn run(args: Args) -> Outcome {
    let cluster: Arc<dyn Cluster> = match args.cluster.kubeconfig.is_some() || args.cluster.context.is_some() {
        true => Arc::new(args.cluster.connect().await?),
        false => Arc::new(NoCluster),
    };
    let asks = args.cluster.kubeconfig.is_some() || args.cluster.context.is_some();
    let mut merged = Merged::read(&args.repo, args.revision.as_deref(), cluster, asks).await?;
    let apps = match &args.app {
        Some(app) => vec![merged.one(app)?],
        None => merged.all(),
    };
    let mut planned = Vec::new();
    let mut broken: Vec<Problem> = Vec::new();
    for app in apps {
        if let Some(HeadContent::Broken(problems)) = merged.snapshot.apps.get(&app) {
            broken.extend(problems.iter().cloned());
            continue;
        }
        let Some(preview) = merged.look.preview(&app, &merged.snapshot).await else { continue };
        planned.push(describe(&app, &preview, &merged));
    }
    if args.app.is_none() {
        planned.retain(|one| one.outcome != Effect::Nothing);
    }
    if !planned.is_empty() || broken.is_empty() {
        args.output.print(&planned, |planned| print::plan::show(planned))?;
    }
    if !broken.is_empty() {
        let problems: Vec<String> = broken.iter().map(|problem| problem.render(None)).collect();
        output::say(&format!("{}\n", problems.join("\n")));
        let what = args.app.as_deref().map_or_else(|| "some applications do".to_owned(), |app| format!("{app} does"));
        return Err(Error::failed(format!("{what} not render")).hint("`locktender validate` shows everything"));
    }
    match planned.iter().find(|one| one.outcome == Effect::Refused) {
        Some(refused) => {
            let why = refused.notes.first().cloned().unwrap_or_default();
            Err(Error::refused(format!("{}: {why}", refused.app)))
        }
        None => Ok(Done::Well),
    }
}

impl Merged {
    /// Reads the watched branch, what is stable there, and what would be merged.
    pub(super) async fn read(
        repo: &RepoArgs,
        revision: Option<&str>,
        cluster: Arc<dyn Cluster>,
        asks_cluster: bool,
    ) -> Result<Self, Error> {
        let place = repo.find()?;
        let opened = place.open().await?;
        let mut look = Look::new(ports(opened.repository.clone(), cluster));
        match look.fetch().await {
            // Nothing was merged yet: everything is a first install.
            Ok(_) | Err(RepositoryError::NoBranch(_)) => {}
            Err(error) => {
                // What is known of the branch is good enough to plan with.
                let known = opened.repository.tip().await?.ok_or_else(|| Error::from(error.clone()))?;
                output::say(&format!("warning: {error}; planned on {} as it was seen last\n", known.short()));
                look.read(&known).await?;
            }
        }
        if asks_cluster {
            look.watch(Duration::from_secs(20))
                .await
                .map_err(|why| Error::failed(format!("the cluster cannot be asked: {why}")))?;
        }
        let (target, at): (Arc<dyn Repository>, Revision) = match (&place.here, revision) {
            (Some(here), Some(name)) => {
                let at = here.resolve(name)?;
                (Arc::new(here.at(at.clone())?), at)
            }
            (Some(here), None) => {
                let repository = here.as_is()?;
                let at = repository.fetch().await?;
                (Arc::new(repository), at)
            }
            (None, revision) => {
                let head = look.head().cloned().ok_or_else(|| Error::failed("the branch has no commit"))?;
                (opened.repository.clone(), revision.map_or(head, Revision::new))
            }
        };
        let mut source = Source::new(target, Arc::new(KustomizeRenderer::default()));
        if asks_cluster {
            for (kind, scope) in look.learn_scopes().await {
                source.learn(kind, scope);
            }
        }
        let snapshot = source.snapshot(&at).await?;
        let is_working_tree = place.here.is_some() && revision.is_none();
        Ok(Self { look, snapshot, is_working_tree, asks_cluster, _opened: opened })
    }

    /// Finds one application, there or to be.
    pub(super) fn one(&self, app: &str) -> Result<AppName, Error> {
        let app = AppName::new(app);
        let known = self.snapshot.apps.contains_key(&app) || !self.look.rollouts(&app).is_empty();
        if known { Ok(app) } else { Err(no_such_app(&self.look, &app, "the working tree")) }
    }

    /// Returns every application, there or to be.
    pub(super) fn all(&self) -> Vec<AppName> {
        let mut apps: Vec<AppName> = self.look.apps().into_iter().chain(self.snapshot.apps.keys().cloned()).collect();
        apps.sort();
        apps.dedup();
        apps
    }
}

fn describe(app: &AppName, preview: &Preview, merged: &Merged) -> Planned {
    let decision = &preview.decision;
    let target = match merged.snapshot.apps.get(app) {
        Some(HeadContent::Rendered(render)) => Some(render.as_ref()),
        _ => None,
    };
    let stable = preview.stable.as_deref();
    let mut notes: Vec<String> = Vec::new();
    let plan = decision.open.as_ref().map(|(plan, _)| plan.clone());
    let held = decision.report.reasons.iter().find_map(|reason| match reason {
        Reason::Held { why } if decision.report.activity == Activity::Held => Some(why.clone()),
        _ => None,
    });
    let recorded = |event| decision.records.iter().any(|(_, draft)| draft.event == event);
    let objections = Some(preview.objections.join("; ")).filter(|objections| !objections.is_empty());
    let outcome = match (&plan, &held) {
        _ if objections.is_some() => {
            notes.extend(objections.map(|why| format!("nothing of it would be put in place: {why}")));
            Effect::Refused
        }
        (Some(_), _) => Effect::Opens,
        (None, Some(why)) => {
            notes.push(why.clone());
            Effect::Refused
        }
        (None, None) if recorded(crate::core::ledger::Event::Aborting) => Effect::GoesBack,
        (None, None) if recorded(crate::core::ledger::Event::Applied) => Effect::Applied,
        (None, None) => Effect::Nothing,
    };
    if let Some(id) = &preview.supersedes {
        notes.push(format!("supersedes {} {:04}, which goes back to stable first", id.app, id.number));
    }
    if let Some(freeze) = &preview.frozen {
        notes.push(format!("frozen by {freeze}: opens when that ends"));
    }
    if let Some(full) = preview.full.clone() {
        notes.push(Reason::Full(full).to_string());
    }
    if plan.as_ref().is_some_and(|plan| !plan.prunes.is_empty()) {
        let count = plan.as_ref().map_or(0, |plan| plan.prunes.len());
        notes.push(format!("removes {count} objects, so it asks for a confirm before anything is touched"));
    }
    notes.extend(plan.iter().flat_map(|plan| handed_over(plan, stable, target)));
    notes.extend(plan.iter().flat_map(rough_weights));
    notes.extend(plan.iter().flat_map(routed));
    let is_first = plan.as_ref().is_some_and(|plan| plan.from.is_none() && plan.policy.is_some());
    if is_first && !merged.asks_cluster {
        let why = "no cluster was asked: a workload that runs there already is taken over instead; --kubeconfig asks";
        notes.push(why.to_owned());
    }
    let workloads = plan.as_ref().map(|plan| methods(plan, stable, target)).unwrap_or_default();
    let config = plan.as_ref().filter(|plan| plan.policy.is_some()).and(target).map(|target| config(stable, target));
    let abort = plan.as_ref().map(|plan| abort(app, plan));
    let is_working_tree = merged.is_working_tree;
    Planned { app: app.clone(), outcome, plan, workloads, config, abort, notes, is_working_tree }
}

/// Says what becomes of pods that are taken over, given back, or must go to another unit.
fn handed_over(plan: &Plan, stable: Option<&Render>, target: Option<&Render>) -> Vec<String> {
    let mut notes = Vec::new();
    let name = |id: &String| id.rsplit('/').next().unwrap_or(id).to_owned();
    match (stable.map(|stable| &stable.policy), target.map(|target| &target.policy)) {
        (Some(None), Some(Some(_))) => {
            notes.push("running pods are taken over first: they are handed over as they are, none restarts".to_owned());
        }
        (Some(Some(_)), Some(None)) => {
            notes.push("its workloads are given back first: they get all their pods, none restarts".to_owned());
            let workloads = stable.into_iter().flat_map(|stable| stable.workloads.values());
            let reading: Vec<String> =
                workloads.filter(|workload| !workload.config.is_empty()).map(|workload| name(&workload.id)).collect();
            if !reading.is_empty() {
                let names = reading.join(", ");
                notes.push(format!(
                    "{names}: configuration has its plain name again, so a rolling update of its own replaces the pods"
                ));
            }
        }
        _ => {}
    }
    let moves = plan.moves.iter().map(|(id, count)| format!("{count} of {}", name(id))).collect::<Vec<_>>().join(", ");
    if !moves.is_empty() {
        notes
            .push(format!("moves pods to another unit ({moves}), so it asks for a confirm before anything is touched"));
    }
    notes
}

/// Says who shares requests out, and which go to the new version whatever its weight.
fn routed(plan: &Plan) -> Vec<String> {
    let router = plan.policy.as_ref().and_then(|policy| policy.spec.strategy.beside()?.router);
    // An install has no other side to share with.
    let Some(router) = router.filter(|_| plan.stages.len() > 1) else { return Vec::new() };
    let mut notes = vec![format!("requests are shared out by {router}")];
    for (before, stage) in plan.stages.iter().zip(plan.stages.iter().skip(1)) {
        for route in stage.headers.iter().filter(|route| !before.headers.contains(route)) {
            notes.push(format!("{}: requests with {route} go to the new version", stage.name));
        }
        let copies = stage.mirror.filter(|_| stage.mirror != before.mirror);
        notes.extend(
            copies.map(|share| format!("{}: the new version gets a copy of {share} of the requests", stage.name)),
        );
        if let Some(affinity) = stage.affinity.as_ref().filter(|_| before.affinity.is_none()) {
            notes.push(format!(
                "{}: who was on the new version stays there, by the cookie {}",
                stage.name, affinity.cookie
            ));
        }
    }
    notes
}

/// Says which weights so few pods cannot have.
fn rough_weights(plan: &Plan) -> Vec<String> {
    if plan.policy.as_ref().is_none_or(|policy| policy.spec.strategy.beside().is_some()) {
        return Vec::new();
    }
    let rough = |stage: &Stage| {
        let weight = u32::from(stage.weight?.get());
        let one = |(id, quota): (&String, &BTreeMap<Unit, u32>)| {
            let total: u32 = plan.totals.get(id)?.values().sum();
            let new: u32 = quota.values().sum();
            let name = id.rsplit('/').next().unwrap_or(id);
            (new * 100 != weight * total && total > 0).then(|| {
                let share = (f64::from(new) * 100.0 / f64::from(total)).round();
                format!(
                    "{}: without a router the weight is that of the pods: {new} of {total} of {name}, {share}%",
                    stage.name
                )
            })
        };
        Some(stage.quota.iter().filter_map(one).collect::<Vec<_>>())
    };
    plan.stages.iter().filter_map(rough).flatten().collect()
}

fn methods(plan: &Plan, stable: Option<&Render>, target: Option<&Render>) -> BTreeMap<String, String> {
    let strategy = plan.policy.as_ref().map(|policy| &policy.spec.strategy);
    let update = strategy.map(|strategy| strategy.pods().update);
    let runs_already =
        |id: &String| stable.is_none_or(|stable| stable.policy.is_none() || !stable.workloads.contains_key(id));
    let one = |(id, method): (&String, &Method)| {
        let before = stable.and_then(|stable| stable.workloads.get(id));
        let after = target.and_then(|target| target.workloads.get(id));
        let maker = after.or(before).map_or(Maker::Slices, Workload::maker);
        let text = match method {
            Method::Install if maker == Maker::Nodes => "installed on every node at once".to_owned(),
            Method::Install => "installed: there is no older version".to_owned(),
            Method::InPlace => format!("image only: updated in place, {}", in_place(maker)),
            Method::Rebalance if runs_already(id) => "runs already: taken over as it is, no pod restarts".to_owned(),
            Method::Rebalance => "unchanged: pods stay as they are".to_owned(),
            Method::Remove => "removed".to_owned(),
            Method::Recreate => {
                let obstacle = before.zip(after).and_then(|(before, after)| after.obstacle_to_in_place(before));
                match (obstacle, update) {
                    (obstacle, _) if maker != Maker::Slices => {
                        format!("{}: {}", made_anew(maker), obstacle.as_deref().unwrap_or("the policy says so"))
                    }
                    _ if strategy.and_then(Strategy::beside).is_some_and(|beside| beside.scales_stable) => {
                        "new pods come beside the old ones, which go as requests leave them, and come back before they do"
                            .to_owned()
                    }
                    _ if matches!(strategy, Some(Strategy::Canary(_))) => {
                        "new pods come beside the old ones, which go once as many are ready".to_owned()
                    }
                    _ if matches!(strategy, Some(Strategy::BlueGreen(_))) => {
                        "new pods come beside the old ones, which go after the switch".to_owned()
                    }
                    (Some(obstacle), _) => format!("recreated in the same unit: {obstacle}"),
                    (None, Some(Update::Recreate)) => "recreated in the same unit: the policy says so".to_owned(),
                    (None, _) => "recreated in the same unit".to_owned(),
                }
            }
        };
        (id.clone(), text)
    };
    plan.methods.iter().map(one).collect()
}

/// Says how pods that are updated in place go.
fn in_place(maker: Maker) -> &'static str {
    match maker {
        Maker::Slices => "pods keep name, node and IP",
        Maker::Ordinals => "the highest ordinal first, pods keep UID, node and IP",
        Maker::Nodes => "node by node, pods keep name and IP; one that dies meanwhile may come back new",
    }
}

/// Says how pods that are made anew go.
fn made_anew(maker: Maker) -> &'static str {
    match maker {
        Maker::Slices => "recreated in the same unit",
        Maker::Ordinals => "made anew one by one, the highest ordinal first",
        Maker::Nodes => "made anew node by node, and one that dies meanwhile may come back new",
    }
}

fn config(stable: Option<&Render>, target: &Render) -> String {
    let names = |render: &Render| {
        let all = render.workloads.values().flat_map(|workload| &workload.config);
        all.map(|object| format!("{}/{}", object.key().kind, object.name())).collect::<std::collections::BTreeSet<_>>()
    };
    let before = stable.map(names).unwrap_or_default();
    let fresh: Vec<String> = names(target).difference(&before).cloned().collect();
    match fresh.as_slice() {
        [] => "unchanged".to_owned(),
        fresh => format!("goes with the pods: {}", fresh.join(", ")),
    }
}

fn abort(app: &AppName, plan: &Plan) -> String {
    let Some(from) = &plan.from else {
        // What is only taken over was there before, and stays.
        if plan.methods.values().any(|method| *method == Method::Rebalance) {
            return "leaves what runs already as it is, and removes what is new; Git is left as it is, and the \
                    application is held"
                .to_owned();
        }
        return "removes what was installed; Git is left as it is, and the application is held".to_owned();
    };
    let versions = crate::core::rollout::versions(plan);
    let version = versions.split(" → ").next().unwrap_or(from.revision.short()).to_owned();
    match plan.policy.as_ref().map(|policy| policy.spec.on_abort) {
        // Its workloads are what they were: there is nothing in Git to go back to for them.
        _ if from.workloads == plan.to.workloads => format!("returns to {version} and leaves Git as it is: held"),
        Some(OnAbort::Hold) => format!("returns to {version} and leaves Git as it is: held"),
        _ => format!("returns to {version} and repairs apps/{app} in Git"),
    }
}
