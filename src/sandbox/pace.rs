//! How long things take in the sandbox.

use std::time::Duration;

/// The times of kubelet and controllers. The defaults are short, so that a demonstration moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Pulling an image that the node does not have.
    pub pull: Duration,
    /// From the image being there to the container running.
    pub start: Duration,
    /// From asking a container to stop until it has; never longer than the pod's grace period.
    pub stop: Duration,
    /// How long an ordinary init container, or the container of a job, runs.
    pub run: Duration,
    /// Until a container that is told to be slow is ready.
    pub slow: Duration,
    /// How long a container that is told to crash lives.
    pub crash: Duration,
    /// The first wait before a container that ended, or an image that could not be pulled, is tried again; doubled each
    /// time.
    pub back_off: Duration,
    /// The longest such wait.
    pub back_off_limit: Duration,
    /// How long the load balancer takes to take a pod in or out.
    pub load_balancer: Duration,
    /// How often a node renews its lease; `None` where nobody reads it.
    pub heartbeat: Option<Duration>,
    /// How long a node is silent before it counts as lost.
    pub node_grace: Duration,
    /// How long pods tolerate a lost node that do not say so themselves.
    pub eviction: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pull: Duration::from_millis(300),
            start: Duration::from_millis(300),
            stop: Duration::from_millis(300),
            run: Duration::from_millis(500),
            slow: Duration::from_secs(20),
            crash: Duration::from_secs(1),
            back_off: Duration::from_secs(10),
            back_off_limit: Duration::from_secs(300),
            load_balancer: Duration::from_millis(500),
            heartbeat: Some(Duration::from_secs(10)),
            node_grace: Duration::from_secs(5),
            eviction: Duration::from_secs(10),
        }
    }
}

impl Pace {
    /// Returns the pace of simulations: as the default, without heartbeats.
    pub fn simulated() -> Self {
        Self { heartbeat: None, ..Self::default() }
    }
}
