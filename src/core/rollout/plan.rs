//! A rollout's plan: its stages, fixed when it opens, named by its plan hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{
    quota::{self, Counts, ShareError},
    render::{Maker, Render, Workload},
    services, sides, stages,
};
use crate::core::{
    analysis::Metric,
    ledger::Quota,
    names::{AppName, BlobId, Digest, Revision, RolloutId, StageName},
    policy::{HumanDuration, Percent, PodPolicy, RollbackStages, RolloutPolicy, Update},
    traffic::{Affinity, HeaderRoute, Split},
};

/// One end of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// The commit whose tree is rendered.
    pub revision: Revision,
    /// The digest of everything rendered.
    pub digest: Digest,
    /// Each workload's digest: what is staged.
    #[serde(default)]
    pub workloads: BTreeMap<String, Digest>,
    /// The first container's image of each workload, as people call a version.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
}

/// The policy as it was when the rollout opened: strategy, deadlines and what to do on failure are pinned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PinnedPolicy {
    /// Its name.
    pub name: String,
    /// The digest of its normalised form.
    pub digest: Digest,
    /// All of it.
    pub spec: RolloutPolicy,
}

/// What the plan was rendered with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inputs {
    /// `plain/1`, or the program and its version.
    pub renderer: String,
    /// Every file that was read, and its blob.
    pub files: BTreeMap<String, BlobId>,
}

/// How a workload's pods get from one version to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// There is no older version.
    Install,
    /// Images are patched on the live pods.
    InPlace,
    /// Pods go from the unit's old slice to its new one.
    Recreate,
    /// Pods stay as they are; only their shares over the units change.
    Rebalance,
    /// The workload is not there any more.
    Remove,
}

/// What must hold before the next stage. In a plan it is a word: `health`, `confirm`, `pause 5m`,
/// `analysis success-rate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Gate {
    /// Every pod of the stage is ready.
    Health,
    /// A person confirms.
    Confirm,
    /// So much time has passed since the stage was there.
    Pause(HumanDuration),
    /// A metric of the policy is good.
    Analysis(String),
    /// A metric of the policy is not bad, as long as the stage lasts.
    Background(String),
}

impl Gate {
    /// Returns whether the stage waits for it once its pods are there.
    pub fn is_waited_for(&self) -> bool {
        !matches!(self, Self::Health | Self::Background(_))
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health => f.write_str("health"),
            Self::Confirm => f.write_str("confirm"),
            Self::Pause(duration) => write!(f, "pause {duration}"),
            Self::Analysis(metric) => write!(f, "analysis {metric}"),
            Self::Background(metric) => write!(f, "background {metric}"),
        }
    }
}

impl From<Gate> for String {
    fn from(gate: Gate) -> Self {
        gate.to_string()
    }
}

impl TryFrom<String> for Gate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(' ') {
            None if text == "health" => Ok(Self::Health),
            None if text == "confirm" => Ok(Self::Confirm),
            Some(("pause", duration)) => HumanDuration::parse(duration).map(Self::Pause),
            Some(("analysis", metric)) => Ok(Self::Analysis(metric.to_owned())),
            Some(("background", metric)) => Ok(Self::Background(metric.to_owned())),
            _ => Err(format!("`{text}` is no gate: health, confirm, pause, analysis or background")),
        }
    }
}

/// One part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stage {
    /// `start`, `beta`, `batch-1`, …
    pub name: StageName,
    /// How many pods of the new version there may be once the stage has started, by workload and unit.
    pub quota: Quota,
    /// What must hold before the next stage.
    pub gates: Vec<Gate>,
    /// The share of the traffic that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Percent>,
    /// With a router: requests that go to the new version whatever the weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderRoute>,
    /// With a router: the share of requests that the new version gets a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Percent>,
    /// With a router: how a client stays with the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

impl Stage {
    /// Makes the stage before any pod is touched.
    pub(super) fn start(gates: Vec<Gate>) -> Self {
        Self::of("start".into(), Quota::new(), gates)
    }

    fn of(name: StageName, quota: Quota, gates: Vec<Gate>) -> Self {
        Self { name, quota, gates, weight: None, headers: Vec::new(), mirror: None, affinity: None }
    }

    /// Returns how traffic is shared out at this stage, where it is otherwise than by the number of pods.
    pub fn split(&self) -> Option<Split> {
        let (headers, mirror, affinity) = (self.headers.clone(), self.mirror, self.affinity.clone());
        self.weight.map(|weight| Split { weight, headers, mirror, affinity })
    }

    /// Returns whether a person has to confirm.
    pub fn asks_for_confirm(&self) -> bool {
        self.gates.contains(&Gate::Confirm)
    }

    /// Returns how long the stage lasts at least once it is there.
    pub fn pause(&self) -> Option<HumanDuration> {
        self.gates.iter().find_map(|gate| match gate {
            Gate::Pause(duration) => Some(*duration),
            _ => None,
        })
    }

    /// Returns the metrics that must be good.
    pub fn analyses(&self) -> impl Iterator<Item = &str> {
        self.gates.iter().filter_map(|gate| match gate {
            Gate::Analysis(metric) => Some(metric.as_str()),
            _ => None,
        })
    }

    /// Returns the metrics that must not be bad as long as it lasts.
    pub fn in_background(&self) -> impl Iterator<Item = &str> {
        self.gates.iter().filter_map(|gate| match gate {
            Gate::Background(metric) => Some(metric.as_str()),
            _ => None,
        })
    }

    /// Returns whether it waits for a person or for time once it is there.
    pub fn waits(&self) -> bool {
        self.asks_for_confirm() || self.pause().is_some()
    }
}

/// A rollout's plan. Never changes once it is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// `locktender.dev/v1alpha1`.
    pub api_version: String,
    /// `Plan`.
    pub kind: String,
    /// `checkout/0007`.
    pub rollout: RolloutId,
    /// Stable when the rollout opened; absent for a first install.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<End>,
    /// The target.
    pub to: End,
    /// Absent for an application without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PinnedPolicy>,
    /// What the target was rendered with.
    pub inputs: Inputs,
    /// How each staged workload is changed.
    #[serde(default)]
    pub methods: BTreeMap<String, Method>,
    /// The units' totals by workload.
    #[serde(default)]
    pub totals: Quota,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// Objects that are removed at the end, where they are so many that somebody must confirm it at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prunes: Vec<String>,
    /// The application that was renamed to this one: its pods are taken over as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherits: Option<AppName>,
    /// How many pods that run already must move to another unit, by workload.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moves: BTreeMap<String, u32>,
    /// SHA-256 over digests, policy and stages.
    pub hash: Digest,
}

/// The API version of plans.
pub const API_VERSION: &str = "locktender.dev/v1alpha1";

/// Why a plan cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `unitReplicas` does not fit the replicas.
    #[error("{workload}: {error}")]
    Shares {
        /// `Deployment/checkout`.
        workload: String,
        /// What does not fit.
        error: ShareError,
    },
    /// `InPlaceOnly`, and the change cannot be in place.
    #[error("{workload} can only be recreated ({reason}), and its policy says InPlaceOnly")]
    NotInPlace {
        /// `Deployment/checkout`.
        workload: String,
        /// What differs besides images.
        reason: String,
    },
    /// The change is refused by a rule.
    #[error("{0}")]
    Refused(String),
}

/// What a plan is made from.
pub struct PlanRequest<'a> {
    /// The application.
    pub app: &'a AppName,
    /// The rollout's number.
    pub number: u32,
    /// Stable; `None` for a first install.
    pub stable: Option<&'a Render>,
    /// Where to; `None` removes the application.
    pub target: Option<&'a Render>,
    /// HEAD.
    pub head: &'a Revision,
    /// The policy: the target's, or stable's where the application is removed.
    pub policy: Option<&'a RolloutPolicy>,
    /// Replicas of workloads whose manifest names none, from the cluster.
    pub live_replicas: &'a BTreeMap<String, u32>,
    /// Pods of DaemonSets by unit, from the cluster.
    pub live_units: &'a Quota,
    /// Whether the target was stable lately, so that confirms are not asked for.
    pub known: bool,
    /// Objects that would be removed, and how many there are in all.
    pub prunes: (Vec<String>, usize),
    /// Whether everything that stable has is rendered by other applications now.
    pub handed_over: bool,
    /// The application that was renamed to this one.
    pub inherits: Option<AppName>,
    /// Workloads that run already as the target says, though nothing of them was ever released: they are taken over.
    pub runs: BTreeSet<String>,
    /// How many of a workload's pods must move to another unit so that each has its total, by the node label of units.
    pub moves: &'a dyn Fn(&Workload, &Counts, &str) -> u32,
}

/// Shares a workload's replicas out over the units of its policy and its application's overrides.
///
/// # Errors
///
/// The sums do not fit.
pub fn totals_of(workload: &Workload, total: u32, pods: &PodPolicy) -> Result<Counts, PlanError> {
    let units = workload.maker().units(pods);
    let shares = match (&workload.unit_replicas, &pods.topology) {
        _ if workload.maker() != Maker::Slices => BTreeMap::new(),
        (Some(shares), _) => shares.clone(),
        (None, Some(topology)) => topology.unit_replicas.clone(),
        (None, None) => BTreeMap::new(),
    };
    quota::share_out(total, &units, &shares).map_err(|error| PlanError::Shares { workload: workload.id.clone(), error })
}

/// Makes a plan. The same request gives the same plan.
///
/// # Errors
///
/// Says why there can be none; nothing has been done then.
pub fn make(request: &PlanRequest<'_>) -> Result<Plan, PlanError> {
    let to = match (request.target, request.stable) {
        (Some(target), _) => target.end(),
        (None, _) => End {
            revision: request.head.clone(),
            digest: Digest::of(b"nothing"),
            workloads: BTreeMap::new(),
            images: BTreeMap::new(),
        },
    };
    let from = request.stable.map(Render::end);
    let mut plan = Plan {
        api_version: API_VERSION.to_owned(),
        kind: "Plan".to_owned(),
        rollout: RolloutId { app: request.app.clone(), number: request.number },
        from,
        to,
        policy: request.policy.map(|policy| PinnedPolicy {
            name: policy.name.clone(),
            digest: policy.digest(),
            spec: policy.clone(),
        }),
        inputs: request.target.map(|target| target.inputs.clone()).unwrap_or_default(),
        methods: BTreeMap::new(),
        totals: Quota::new(),
        stages: Vec::new(),
        prunes: Vec::new(),
        inherits: request.inherits.clone(),
        moves: BTreeMap::new(),
        hash: Digest::of(b""),
    };
    match request.policy {
        Some(policy) => stage_pods(&mut plan, request, policy)?,
        None => {
            let gates = vec![Gate::Health];
            plan.stages.push(Stage::of("all".into(), Quota::new(), gates));
        }
    }
    guard_the_start(&mut plan, request);
    plan.hash = hash(&plan);
    Ok(plan)
}

fn stage_pods(plan: &mut Plan, request: &PlanRequest<'_>, policy: &RolloutPolicy) -> Result<(), PlanError> {
    let pods = policy.strategy.pods();
    let mut staged: BTreeMap<String, Vec<Counts>> = BTreeMap::new();
    for workload in request.target.into_iter().flat_map(|target| target.workloads.values()) {
        let before = request.stable.and_then(|stable| stable.workloads.get(&workload.id));
        let live = request.live_replicas.get(&workload.id).copied();
        let total = workload.replicas.or(live).unwrap_or(1);
        let totals = match workload.maker() {
            Maker::Nodes => request.live_units.get(&workload.id).cloned().unwrap_or_default(),
            _ => totals_of(workload, total, pods)?,
        };
        let method = match request.runs.contains(&workload.id) {
            true => Method::Rebalance,
            false => method_of(workload, before, pods)?,
        };
        if let Some(topology) = &pods.topology {
            let moves = (request.moves)(workload, &totals, &topology.unit_type);
            plan.moves.extend((moves > 0).then(|| (workload.id.clone(), moves)));
        }
        if method != Method::Rebalance {
            let stages = quota::stages(&totals, &workload.maker().units(pods), &policy.strategy);
            staged.insert(workload.id.clone(), stages);
        }
        plan.methods.insert(workload.id.clone(), method);
        plan.totals.insert(workload.id.clone(), totals);
    }
    for workload in request.stable.into_iter().flat_map(|stable| stable.workloads.keys()) {
        if !plan.methods.contains_key(workload) {
            plan.methods.insert(workload.clone(), Method::Remove);
        }
    }
    if let Some(beside) = policy.strategy.beside() {
        let has_sides = plan.methods.values().any(|method| *method == Method::Recreate);
        if has_sides || beside.router.is_some() {
            refuse_what_cannot_switch(request, policy)?;
        }
        if has_sides && beside.scales_stable {
            refuse_to_scale_stable(request, policy)?;
        }
        if !has_sides {
            // There is no other side: nothing is looked at before it serves, and nothing switches.
            staged.values_mut().for_each(|stages| drop(stages.drain(..stages.len() - 1)));
        }
    }
    let count = staged.values().map(Vec::len).max().unwrap_or(1).max(1);
    for (id, stages) in &mut staged {
        // A workload that needs fewer batches than another is done earlier and stays there.
        let last = stages.last().cloned().unwrap_or_default();
        stages.resize(count, last);
        let maker = request.target.and_then(|target| target.workloads.get(id)).map(Workload::maker);
        keep_one_back(maker.unwrap_or(Maker::Slices), stages);
    }
    let skipped = request.known && policy.rollback.stages == RollbackStages::Skip;
    // Of a first install there is no other version to be compared with.
    let comparable = |gate: &Gate| match gate {
        Gate::Analysis(name) | Gate::Background(name) if request.stable.is_none() => {
            !policy.metrics.get(name).is_some_and(Metric::compares)
        }
        _ => true,
    };
    let allowed = |gates: Vec<Gate>| -> Vec<Gate> {
        gates.into_iter().filter(|gate| !skipped || *gate == Gate::Health).filter(comparable).collect()
    };
    let start = allowed(stages::before_any_pod(&policy.strategy));
    if !start.is_empty() && !staged.is_empty() {
        plan.stages.push(Stage::start(start));
    }
    for (index, shape) in stages::shapes(&policy.strategy, count).into_iter().enumerate() {
        let quota = staged
            .iter()
            .filter_map(|(workload, stages)| Some((workload.clone(), stages.get(index)?.clone())))
            .collect();
        let split = shape.split.unwrap_or_default();
        // Who was on an earlier version would be on this one at once.
        let affinity = split.affinity.map(|affinity| Affinity { value: plan.to.digest.short().to_owned(), ..affinity });
        plan.stages.push(Stage {
            weight: shape.weight,
            headers: split.headers,
            mirror: split.mirror,
            affinity,
            ..Stage::of(shape.name, quota, allowed(shape.gates))
        });
    }
    Ok(())
}

/// Keeps a StatefulSet's last pod for the last stage, where it has several: as soon as all are at the new version its
/// controller takes that for the current one, and the old one cannot be gone back to pod by pod.
pub(super) fn keep_one_back(maker: Maker, stages: &mut [Counts]) {
    let Some((last, before)) = stages.split_last_mut().filter(|_| maker == Maker::Ordinals) else { return };
    for count in before.iter_mut().flatten().map(|(_, count)| count) {
        let total: u32 = last.values().sum();
        *count = (*count).min(total.saturating_sub(1).max(1));
    }
}

/// Refuses Services that cannot be switched, and pods that cannot be asked for their health.
fn refuse_what_cannot_switch(request: &PlanRequest<'_>, policy: &RolloutPolicy) -> Result<(), PlanError> {
    let renders = [request.target, request.stable].into_iter().flatten();
    let cannot_ask = request.target.and_then(|target| services::cannot_ask(target, &policy.strategy));
    match renders.filter_map(|render| services::cannot_switch(render, &policy.strategy)).next().or(cannot_ask) {
        Some(why) => Err(PlanError::Refused(why)),
        None => Ok(()),
    }
}

/// Refuses to scale down a stable version that somebody else than this policy's router sends to, or will again: going back is
/// by the policy that stable was released by where that has units, or where it has none.
fn refuse_to_scale_stable(request: &PlanRequest<'_>, policy: &RolloutPolicy) -> Result<(), PlanError> {
    let by = request.stable.and_then(|stable| stable.policy.as_ref());
    let why = match by {
        None => "was not staged",
        Some(by) if by.strategy.pods().topology.is_some() => "was released in units",
        Some(by) if sides::router_of(by).is_some_and(|router| Some(router) != sides::router_of(policy)) => {
            "was released by another router"
        }
        Some(_) => return Ok(()),
    };
    Err(PlanError::Refused(format!(
        "dynamicStableScale cannot be used yet: what is stable {why}; release once by this policy without it"
    )))
}

/// Names the version that a plan starts from.
pub(super) fn from_version(plan: &Plan) -> String {
    super::decide::versions(plan).split(" → ").next().unwrap_or_default().to_owned()
}

/// Decides how a workload's pods are changed.
///
/// # Errors
///
/// The policy allows only changes in place, and this is none.
pub fn method_of(workload: &Workload, before: Option<&Workload>, pods: &PodPolicy) -> Result<Method, PlanError> {
    let Some(before) = before else { return Ok(Method::Install) };
    if before.digest == workload.digest {
        return Ok(Method::Rebalance);
    }
    let obstacle = workload.obstacle_to_in_place(before);
    match (pods.update, obstacle) {
        (Update::Recreate, _) | (Update::InPlaceIfPossible, Some(_)) => Ok(Method::Recreate),
        (Update::InPlaceOnly, Some(reason)) => Err(PlanError::NotInPlace { workload: workload.id.clone(), reason }),
        (Update::InPlaceIfPossible | Update::InPlaceOnly, None) => Ok(Method::InPlace),
    }
}

/// Puts a stage without pods first where somebody must confirm before anything is touched: a removed application, a
/// large prune, pods that move between units.
fn guard_the_start(plan: &mut Plan, request: &PlanRequest<'_>) {
    let (prunes, of) = &request.prunes;
    let guard = request.policy.map_or(50, |policy| policy.prune.confirm_above.get());
    let many = prunes.len() > 1 && prunes.len() * 100 > of * usize::from(guard);
    let removed = request.target.is_none() && !request.handed_over;
    if many || removed {
        plan.prunes.clone_from(prunes);
    }
    if many || removed || !plan.moves.is_empty() {
        match plan.stages.first_mut().filter(|first| !first.gates.contains(&Gate::Health)) {
            Some(start) if start.asks_for_confirm() => {}
            Some(start) => start.gates.push(Gate::Confirm),
            None => plan.stages.insert(0, Stage::start(vec![Gate::Confirm])),
        }
    }
}

/// Computes the plan hash: over digests, policy and stages, so that it can be told before the merge.
pub fn hash(plan: &Plan) -> Digest {
    let workloads = |end: &End| end.workloads.clone();
    let mut covered = serde_json::json!({
        "app": plan.rollout.app,
        "from": plan.from.as_ref().map(workloads),
        "to": workloads(&plan.to),
        "digest": plan.to.digest,
        "policy": plan.policy.as_ref().map(|policy| policy.digest),
        "methods": plan.methods,
        "totals": plan.totals,
        "stages": plan.stages,
        "prunes": plan.prunes,
        "inherits": plan.inherits,
    });
    if !plan.moves.is_empty() {
        // Plans of before have none, and the hash that they had.
        covered["moves"] = serde_json::json!(plan.moves);
    }
    Digest::of(covered.to_string().as_bytes())
}

/// Writes a plan as people read it.
pub fn write(plan: &Plan) -> String {
    serde_yaml::to_string(plan).unwrap_or_default()
}

/// Returns the API version of a plan that another version of Locktender wrote; `None` where it is ours, or no plan.
pub fn newer_version(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Heading {
        api_version: String,
        kind: String,
    }
    let heading: Heading = serde_yaml::from_str(text).ok()?;
    let ours = heading.kind == "Plan" && heading.api_version.starts_with("locktender.dev/");
    (ours && heading.api_version != API_VERSION).then_some(heading.api_version)
}

/// Reads a plan and checks its hash.
///
/// # Errors
///
/// Says what is wrong with the text.
pub fn read(text: &str) -> Result<Plan, String> {
    let plan: Plan = serde_yaml::from_str(text).map_err(|error| format!("the plan cannot be read: {error}"))?;
    if plan.api_version != API_VERSION {
        return Err(format!("the plan is of version `{}`; this program reads `{API_VERSION}`", plan.api_version));
    }
    if hash(&plan) != plan.hash {
        return Err("the plan was changed: its content does not hash to its hash".to_owned());
    }
    if plan.stages.is_empty() {
        return Err("the plan has no stages".to_owned());
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_another_version_is_told_from_ours() {
        let text =
            |version: &str| format!("apiVersion: {version}\nkind: Plan\nrollout: a/0001\nextra: {{0001: 1e999}}\n");
        assert_eq!(newer_version(&text("locktender.dev/v2")), Some("locktender.dev/v2".to_owned()));
        assert_eq!(newer_version(&text(API_VERSION)), None);
        assert_eq!(newer_version("kind: Plan\n"), None);
    }
}
