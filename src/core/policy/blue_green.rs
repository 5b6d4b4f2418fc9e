//! The blue-green strategy: the new version comes up in full beside the old one, then all traffic switches at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HealthCheck, IntOrPercent, PodPolicy, StepGates, rollout_policy::seconds};
use crate::core::traffic::Router;

/// The blue-green strategy: two sides in full, of which one gets the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// How the pods change: always from the old slice to a new one, with room for both.
    pub pods: PodPolicy,
    /// What must hold before the first pod.
    pub start: StepGates,
    /// The Service that sends to the new side before the switch; `None` is one made for each Service, `<service>-preview`.
    pub preview_service: Option<String>,
    /// How many new pods there are until the switch is confirmed; `None` is all of them.
    pub preview_replicas: Option<IntOrPercent>,
    /// What every new pod answers before requests are switched to it; `None` is that its readiness is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheck>>,
    /// What must hold before the switch, besides the pods' health.
    pub before: StepGates,
    /// What must hold after the switch before the old side goes; no gate at all is no stage of its own.
    pub watch: StepGates,
    /// How long the old side stays once it gets no requests any more: until then going back is at once.
    #[serde(with = "seconds")]
    pub scale_down_delay: Duration,
    /// What sends requests from outside the cluster; `None` leaves that to the Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Router>,
}

/// How old pods stay beside new ones until traffic has left them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside<'a> {
    /// The Service that sends to the new side, where the policy names one.
    pub preview_service: Option<&'a str>,
    /// What follows a Service's name in that of the one that is made for the new side: `preview`.
    pub suffix: &'static str,
    /// What shares requests out, besides the Services.
    pub router: Option<&'a Router>,
    /// What every new pod answers before it gets requests.
    pub health_check: Option<&'a HealthCheck>,
    /// How long the old side stays once it gets no requests any more.
    pub scale_down_delay: Duration,
    /// Whether the old side keeps only as many pods as its share of the requests needs.
    pub scales_stable: bool,
}
