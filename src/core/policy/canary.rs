//! The canary strategy: the new version gets a growing share of a workload.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{IntOrPercent, Percent, PodPolicy, rollout_policy::seconds};
use crate::core::traffic::{Router, Split};

/// The canary strategy: pods of the new version beside the old ones, more of them at each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// How the pods change: always from the old slice to a new one.
    pub pods: PodPolicy,
    /// What must hold before the first pod.
    pub start: StepGates,
    /// The steps, the new version's share growing from each to the next; the last has everything.
    pub steps: Vec<Step>,
    /// What shares requests out; `None` leaves that to the number of pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Router>,
    /// With a router: how long the old side stays once it gets no requests any more.
    #[serde(default, with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub scale_down_delay: Duration,
    /// With a router: whether the old side keeps only as many pods as its share of the requests needs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dynamic_stable_scale: bool,
}

/// One step of a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// How much of the workload is new.
    pub size: Size,
    /// With a router: how it shares requests out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// What must hold before the next step.
    pub gates: StepGates,
}

impl Step {
    /// Returns whether all pods and all requests are the new version's.
    pub fn is_everything(&self) -> bool {
        self.size == Size::ALL && self.split.as_ref().is_none_or(|split| split.weight == Percent::ALL)
    }
}

/// What must hold before the next step, besides the pods' health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepGates {
    /// Whether a person has to confirm.
    pub confirm: bool,
    /// How long the step lasts at least, in whole seconds; 0 is no pause.
    #[serde(with = "seconds")]
    pub pause: Duration,
    /// The metrics that must be good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analysis: Vec<String>,
    /// The metrics that must not be bad from here on until the rollout is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub background: Vec<String>,
}

/// How much of a workload is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Size {
    /// A share of the traffic, 1 to 100 %. Without a router it is the share of the pods.
    Weight(Percent),
    /// As many pods as that share of the traffic needs, rounded up, where a router shares it out: the other pods stay.
    Capacity(Percent),
    /// A number or a share of the pods, at least 1.
    // A plan is YAML, in which a choice inside a choice is not written by its tag.
    Replicas(#[serde(with = "serde_yaml::with::singleton_map")] IntOrPercent),
}

impl Size {
    /// Everything.
    pub const ALL: Self = Self::Weight(Percent::ALL);

    /// Returns how many pods of `total` are new. A weight between leaves neither side empty, where there are two pods
    /// or more: of ten, 1 % is one pod, and 99 % are nine.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Weight(percent) if percent == Percent::ALL => total,
            Self::Weight(percent) => percent.half_up(total).clamp(1, total.saturating_sub(1).max(1)).min(total),
            Self::Capacity(percent) => percent.up(total).max(1).min(total),
            Self::Replicas(replicas) => replicas.half_up(total).max(1).min(total),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_keeps_every_size() {
        let share = IntOrPercent::Percent(Percent::QUARTER);
        for size in [Size::ALL, Size::Replicas(IntOrPercent::Count(3)), Size::Replicas(share)] {
            let kept = serde_yaml::to_string(&size).unwrap();
            assert_eq!(serde_yaml::from_str::<Size>(&kept).unwrap(), size, "{kept}");
        }
    }

    #[test]
    fn neither_side_is_empty_before_the_end() {
        let weight = |percent: u8, total: u32| Size::Weight(Percent::new(percent).unwrap()).of(total);
        assert_eq!([weight(1, 10), weight(5, 10), weight(20, 10), weight(99, 10), weight(100, 10)], [1, 1, 2, 9, 10]);
        assert_eq!([weight(50, 1), weight(50, 0), weight(50, 3)], [1, 0, 2]);
        for total in 2..50 {
            for percent in 1..100 {
                let new = weight(percent, total);
                assert!(new >= 1 && new < total, "{percent} % of {total} are {new}");
            }
        }
    }

    #[test]
    fn every_kind_of_step_is_written_into_a_plan_and_read_again() {
        use crate::core::traffic::{Affinity, HeaderRoute, Match, Matcher, Subject};

        let by = |subject, value| Match { subject, value };
        let headers = vec![HeaderRoute {
            matches: vec![
                by(Subject::Header("x-staff".to_owned()), Matcher::Exact("yes".to_owned())),
                by(Subject::Cookie("side".to_owned()), Matcher::Prefix("new".to_owned())),
            ],
        }];
        let max_age = Some(Duration::from_secs(60));
        let affinity = Some(Affinity { cookie: "side".to_owned(), value: String::new(), max_age });
        let split = Some(Split { headers, mirror: Some(Percent::HALF), affinity, ..Split::of(Percent::QUARTER) });
        let sizes = [
            Size::ALL,
            Size::Capacity(Percent::QUARTER),
            Size::Replicas(IntOrPercent::Count(3)),
            Size::Replicas(IntOrPercent::Percent(Percent::HALF)),
        ];
        for size in sizes {
            let step = Step { size, split: split.clone(), gates: StepGates::default() };
            let text = serde_yaml::to_string(&step).unwrap();
            assert_eq!(serde_yaml::from_str::<Step>(&text).unwrap(), step, "{text}");
        }
    }
}
