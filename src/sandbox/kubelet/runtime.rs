//! What runs containers: a model in simulations, real listeners in the sandbox that people use.

use std::time::Duration;

/// A container that is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The pod's UID.
    pub pod_uid: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// What the application is called.
    pub app: String,
    /// The image, as the pod names it.
    pub image: String,
    /// The node's name.
    pub node: String,
    /// The node's unit.
    pub unit: String,
    /// The pod's address.
    pub address: String,
    /// The ports that it listens on.
    pub ports: Vec<u16>,
    /// How it answers.
    pub manner: Manner,
}

/// How a container answers requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// With 500.
    pub server_errors: bool,
    /// Asked whether it is well, it says that it is not ready.
    pub never_ready: bool,
    /// Asked whether it is well, it says that it is not, with status 200: probes succeed.
    pub sick: bool,
}

/// Which probe a question or an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId {
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
    /// How often the container had been started: an answer of an earlier run counts for nothing.
    pub run: u32,
    /// Which of the three probes.
    pub kind: ProbeKind,
}

/// The three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Holds the others back until it succeeds; restarts the container when it fails.
    Startup,
    /// Decides whether the pod takes requests.
    Readiness,
    /// Restarts the container when it fails.
    Liveness,
}

/// An HTTP question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// The address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, with its query.
    pub path: String,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// Runs containers. Nothing here waits.
pub trait Runtime: Send {
    /// Returns the address of a pod, its own as long as it lives.
    fn address(&mut self, pod_uid: &str) -> String;

    /// Takes an address back.
    fn release(&mut self, pod_uid: &str);

    /// Starts a container.
    ///
    /// # Errors
    ///
    /// Says why it could not be started; it is tried again.
    fn start(&mut self, container: &ContainerSpec) -> Result<(), String>;

    /// Changes how a running container answers.
    fn behave(&mut self, pod_uid: &str, container: &str, manner: Manner);

    /// Asks a container to stop, as SIGTERM does: it answers what it is asked, keeps no connection after that, and is
    /// stopped once it has none, or its time is over.
    fn leave(&mut self, pod_uid: &str, container: &str);

    /// Returns whether a container that was asked to stop still has connections.
    fn is_busy(&self, pod_uid: &str, container: &str) -> bool;

    /// Stops a container; nothing where it does not run.
    fn stop(&mut self, pod_uid: &str, container: &str);

    /// Asks over HTTP whether it is well: the answer, or `None` where it comes later, through [`Runtime::answers`].
    fn probe(&mut self, id: &ProbeId, question: &HttpGet) -> Option<bool>;

    /// Returns the answers that came since the last call.
    fn answers(&mut self) -> Vec<(ProbeId, bool)>;

    /// Returns the UIDs of the pods of which a container that was asked to stop lost its last connection since then.
    fn idle(&mut self) -> Vec<String>;

    /// Returns whether there are answers to be fetched, or pods that are idle now.
    fn has_answers(&self) -> bool;

    /// Returns whether a probe may be answered differently without anything being done: then it must be repeated.
    fn is_real(&self) -> bool;
}
