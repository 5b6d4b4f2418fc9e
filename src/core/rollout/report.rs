//! Why a rollout is where it is: one value that the CLI, events and records all print.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::Serialize;

use super::turn::Full;
use crate::core::{
    names::{AppName, Digest, RolloutId, StageName, Unit},
    policy::Percent,
};

/// Why nothing, or not more, is done now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Reason {
    /// A person must confirm.
    ConfirmNeeded {
        /// The stage.
        stage: StageName,
        /// Since when it waits.
        since: Timestamp,
        /// What the rollout removes, where that is why it waits.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        removes: Vec<String>,
    },
    /// The stage lasts for a time.
    Pause {
        /// The stage.
        stage: StageName,
        /// Until when.
        until: Timestamp,
    },
    /// A metric is measured.
    Analysing {
        /// The stage.
        stage: StageName,
        /// The metric.
        metric: String,
        /// Since when.
        since: Timestamp,
        /// How many samples were good or bad.
        done: u32,
        /// How many there must be.
        of: u32,
        /// How many were taken: those that told nothing, too.
        taken: u32,
    },
    /// Pods of this stage are not ready for long enough yet.
    PodsNotReady {
        /// `Deployment/checkout`.
        workload: String,
        /// The unit; empty without a topology.
        unit: Unit,
        /// How many the stage wants.
        want: u32,
        /// How many there are.
        have: u32,
        /// What keeps them, in the kubelet's or scheduler's words, and how many it keeps.
        trouble: Vec<(String, u32)>,
    },
    /// Not every pod of the new version answers its health check as it should: requests are not sent there.
    NotAllHealthy {
        /// `Deployment/checkout`.
        workload: String,
        /// How many must.
        want: u32,
        /// How many do.
        have: u32,
        /// What those said that do not, and the pods that said it.
        trouble: Vec<(String, Vec<String>)>,
    },
    /// A pod is being taken out of service.
    Draining {
        /// The pod.
        pod: String,
        /// What it waits for.
        waits: String,
    },
    /// A pod that was changed is not back in service yet.
    Returning {
        /// The pod.
        pod: String,
        /// What it waits for.
        waits: String,
    },
    /// The stage was stepped back to, and pods of the stages after it are still on their way.
    SteppingBack {
        /// How many.
        pods: u32,
    },
    /// The side that was left stays for a while, should it be gone back to.
    OldStays {
        /// `Deployment/checkout`.
        workload: String,
        /// Until when.
        until: Timestamp,
    },
    /// Stable was scaled down, and gets requests back only as its pods get ready.
    StableReturns {
        /// `Deployment/checkout`.
        workload: String,
        /// How many pods it needs for what it is to get.
        want: u32,
        /// How many are ready for long enough.
        have: u32,
        /// The share that the new version keeps until then.
        keeps: Percent,
    },
    /// As many pods as may be are out of service.
    MaxUnavailable {
        /// `Deployment/checkout`.
        workload: String,
        /// How many are available.
        available: u32,
        /// How many must stay.
        floor: u32,
    },
    /// An object is not healthy yet.
    NotHealthy {
        /// `Job/migrate`.
        object: String,
        /// Why.
        why: String,
    },
    /// The cluster has not followed yet.
    Following {
        /// What is waited for.
        what: String,
    },
    /// A router was told, and does not do it yet.
    RouterNotYet {
        /// `HTTPRoute/checkout`, `HAProxy's backend checkout`.
        router: String,
        /// What it says.
        why: String,
    },
    /// It cannot be known what a router does.
    RouterUnknown {
        /// `HTTPRoute/checkout`, `HAProxy's backend checkout`.
        router: String,
        /// Why not.
        why: String,
    },
    /// `pause.yaml` is there.
    Paused,
    /// A freeze applies.
    Frozen {
        /// Its name, and until when.
        freeze: String,
    },
    /// It would open, but as many rollouts are under way as may be: it waits for its turn.
    Full(Full),
    /// It failed, and waits for `retry.yaml` or a new revision.
    Stopped {
        /// Why it failed.
        why: String,
    },
    /// HEAD cannot be used.
    HeadBroken {
        /// The first problem.
        problem: String,
    },
    /// Git is away: no record can be pushed, so nothing goes forward.
    GitAway {
        /// What the remote said.
        why: String,
    },
    /// The branch was rewritten: our last record is not reachable.
    HistoryRewritten {
        /// What is missing, and what a person can do.
        why: String,
    },
    /// What is known of the cluster may be old.
    ClusterStale {
        /// Which kinds.
        why: String,
    },
    /// The application is on stable, and Git says something else.
    Held {
        /// Why.
        why: String,
    },
    /// Somebody changed what is ours, and the policy says only to report it.
    Drifted {
        /// The objects and fields.
        objects: Vec<String>,
    },
    /// The API server stores something else than what is sent: a webhook or a policy changes it. It is left so.
    MadeInto {
        /// `ConfigMap/settings`.
        object: String,
        /// The fields.
        fields: Vec<String>,
    },
    /// The API server refuses a write.
    Refused {
        /// What, and its words.
        why: String,
    },
    /// A decision counts for nothing.
    Useless {
        /// Its path in the rollout's directory: `confirm/batch1.yaml`. Where it is in none that there is, its path in the
        /// repository: `rollouts/checkout/0042/abort.yaml`.
        decision: String,
        /// Why not.
        why: String,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfirmNeeded { stage, since, removes } => {
                write!(f, "{stage} waits for a confirm since {}", clock(*since))?;
                if !removes.is_empty() {
                    write!(f, ": it removes {}", removes.join(", "))?;
                }
                Ok(())
            }
            Self::Pause { stage, until } => write!(f, "{stage} lasts until {}", clock(*until)),
            Self::Analysing { metric, since, done, of, taken, .. } => {
                let samples = if *of == 1 { "sample" } else { "samples" };
                write!(f, "{metric} is analysed since {}: {done} of {of} {samples}", clock(*since))?;
                match taken.saturating_sub(*done) {
                    0 => Ok(()),
                    1 => f.write_str(", and one that told nothing"),
                    more => write!(f, ", and {more} that told nothing"),
                }
            }
            Self::PodsNotReady { workload, unit, want, have, trouble } => {
                let place = if unit.as_str().is_empty() { String::new() } else { format!(" in {unit}") };
                write!(f, "{workload}: {have} of {want} ready{place}")?;
                for (index, (what, count)) in trouble.iter().enumerate() {
                    let pods = if *count == 1 { "pod" } else { "pods" };
                    write!(f, "{}{what} ({count} {pods})", if index == 0 { ": " } else { "; " })?;
                }
                Ok(())
            }
            Self::NotAllHealthy { workload, want, have, trouble } => {
                write!(f, "{workload}: {have} of {want} healthy")?;
                for (index, (said, pods)) in trouble.iter().enumerate() {
                    write!(f, "{}{said} ({})", if index == 0 { ": " } else { "; " }, first_and_more(pods))?;
                }
                Ok(())
            }
            Self::Draining { pod, waits } => write!(f, "{pod} leaves service: {waits}"),
            Self::Returning { pod, waits } => write!(f, "{pod} is not back in service yet: {waits}"),
            Self::SteppingBack { pods } => {
                write!(f, "going back: {pods} {} on the way", if *pods == 1 { "pod is" } else { "pods are" })
            }
            Self::OldStays { workload, until } => {
                write!(f, "{workload}: the old pods stay until {}, should it be gone back to them", clock(*until))
            }
            Self::StableReturns { workload, want, have, keeps } => {
                write!(
                    f,
                    "{workload}: stable has {have} of {want} ready, and the new version keeps {keeps} of the requests"
                )
            }
            Self::MaxUnavailable { workload, available, floor } => {
                write!(f, "{workload}: {available} available, and {floor} must stay")
            }
            Self::NotHealthy { object, why } => write!(f, "{object}: {why}"),
            Self::Following { what } => write!(f, "waiting until {what}"),
            Self::RouterNotYet { router, why } => write!(f, "{router} has not followed: {why}"),
            Self::RouterUnknown { router, why } => write!(f, "{router} cannot be asked: {why}"),
            Self::Paused => f.write_str("paused: remove pause.yaml to go on"),
            Self::Frozen { freeze } => write!(f, "frozen by {freeze}"),
            Self::Full(full) => write!(f, "waits for its turn: {full}"),
            Self::Stopped { why } => write!(f, "stopped: {why}"),
            Self::HeadBroken { problem } => write!(f, "HEAD cannot be used: {problem}"),
            Self::GitAway { why } => write!(f, "Git is away, so nothing goes forward: {why}"),
            Self::HistoryRewritten { why } => write!(f, "the branch was rewritten: {why}"),
            Self::ClusterStale { why } => write!(f, "what is known of the cluster may be old: {why}"),
            Self::Held { why } => write!(f, "held at stable: {why}"),
            Self::Drifted { objects } => write!(f, "drifted: {}", objects.join(", ")),
            Self::MadeInto { object, fields } => {
                write!(f, "{object} is not stored as Git says: the API server changes {}", fields.join(", "))
            }
            Self::Refused { why } => write!(f, "refused: {why}"),
            Self::Useless { decision, why } => write!(f, "{decision} counts for nothing: {why}"),
        }
    }
}

fn first_and_more(pods: &[String]) -> String {
    let first = pods.first().map_or("", String::as_str);
    match pods.len() {
        0 | 1 => first.to_owned(),
        count => format!("{first} and {} more", count - 1),
    }
}

/// Shows a time of day as people read it in a terminal.
pub fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M:%S").to_string()
}

/// How far one workload is in one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitReport {
    /// Pods wanted in all.
    pub total: u32,
    /// Pods of the new version that are done.
    pub done: u32,
    /// Pods of the new version that are not done yet.
    pub coming: u32,
    /// Pods of the new version that something is wrong with.
    pub failing: u32,
}

/// One stage, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageReport {
    /// Its name.
    pub name: StageName,
    /// Quotas by workload and unit.
    pub quota: BTreeMap<String, BTreeMap<Unit, u32>>,
    /// Whether somebody must confirm after it.
    pub confirm: bool,
    /// How long it lasts at least once it is there: `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<String>,
    /// The metrics that must be good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub analysis: Vec<String>,
}

/// What an application is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Activity {
    /// Nothing has been released yet.
    New,
    /// At rest on stable.
    Stable,
    /// Moving pods forward.
    Progressing,
    /// Waiting at a gate.
    Waiting,
    /// Paused by a person.
    Paused,
    /// Failed and waiting.
    Stopped,
    /// Going back to stable.
    Aborting,
    /// On stable while Git says something else.
    Held,
}

/// Why an application is where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The application.
    pub app: AppName,
    /// The rollout that runs, or that ran last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// In one word.
    pub activity: Activity,
    /// Version before: what people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Version after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The policy's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The current stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// When the rollout opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Timestamp>,
    /// The plan's hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Digest>,
    /// Every stage.
    pub stages: Vec<StageReport>,
    /// How far it is, by workload and unit.
    pub units: BTreeMap<String, BTreeMap<Unit, UnitReport>>,
    /// Why not more is done now.
    pub reasons: Vec<Reason>,
}

impl Report {
    /// Builds a report of an application of which nothing more is known.
    pub fn bare(app: AppName, activity: Activity) -> Self {
        Self {
            app,
            rollout: None,
            activity,
            from: None,
            to: None,
            policy: None,
            stage: None,
            opened: None,
            plan: None,
            stages: Vec::new(),
            units: BTreeMap::new(),
            reasons: Vec::new(),
        }
    }
}
