//! A cluster over HTTP in real time: the sandbox, or a real control plane with the sandbox's kubelet.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{Request, header};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use locktender::sandbox::{
    faults::Faults,
    kubelet::{Remote, RemoteOptions},
    pace::Pace,
    server::{Sandbox, SandboxOptions},
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    audit::log::AuditLog,
    support::{cluster, deployed},
};

/// A cluster that is asked over HTTP.
pub struct Live {
    /// How people reach it.
    pub kubeconfig: PathBuf,
    /// How the controller reaches it.
    pub account: PathBuf,
    pub audit: AuditLog,
    client: Client,
    runs: Runs,
}

enum Runs {
    Sandbox(Arc<Sandbox>),
    /// Who has it, has it alone, and finds it empty.
    ControlPlane {
        kubelet: Remote,
        _turn: OwnedMutexGuard<()>,
    },
}

/// As quick as the sandbox can be.
fn quick() -> Pace {
    let short = Duration::from_millis(10);
    Pace { pull: short, start: short, stop: short, run: short, load_balancer: short, ..Pace::default() }
}

async fn client(kubeconfig: &PathBuf) -> Client {
    // Fails where another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

impl Live {
    /// A sandbox of its own, its kubeconfig in `directory`.
    pub async fn sandbox(directory: PathBuf, units: Vec<(String, usize)>, capacity: u32) -> Self {
        let kubeconfig = directory.join("kubeconfig");
        let file = Some(kubeconfig.clone());
        let audit_log = directory.join("audit.log");
        let options = SandboxOptions {
            units,
            capacity,
            kubeconfig: file,
            pace: quick(),
            audit_log: Some(audit_log.clone()),
            gateway_api: true,
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        Self {
            client: client(&kubeconfig).await,
            account: kubeconfig.clone(),
            kubeconfig,
            audit: AuditLog::from_here(audit_log),
            runs: Runs::Sandbox(Arc::new(sandbox)),
        }
    }

    /// The one that tests run under; waits until it is free, and empties it.
    pub async fn control_plane(units: Vec<(String, usize)>, capacity: u32) -> Self {
        static TURN: std::sync::OnceLock<Arc<Mutex<()>>> = std::sync::OnceLock::new();
        let turn = TURN.get_or_init(Arc::default).clone().lock_owned().await;
        let kubeconfig = cluster::real().expect("LOCKTENDER_TEST_CLUSTER=controlplane");
        let client = client(&kubeconfig).await;
        empty(&client).await;
        let nodes: usize = units.iter().map(|(_, count)| count).sum();
        let options = RemoteOptions {
            kubeconfig: Some(kubeconfig.clone()),
            context: None,
            units,
            capacity,
            pods: cluster::pods(),
            pace: quick(),
        };
        let kubelet = Remote::start(options).await.unwrap();
        let ready = |list: &[Value]| list.iter().filter(|node| node["spec"]["taints"].is_null()).count() == nodes;
        until(&client, "api/v1/nodes", "the nodes are there", ready).await;
        let account = deployed::account().unwrap_or_else(cluster::controllers);
        let audit = AuditLog::from_here(cluster::audit_log());
        Self { client, kubeconfig, account, audit, runs: Runs::ControlPlane { kubelet, _turn: turn } }
    }

    /// The sandbox, whose log of changes can be read; none of a control plane.
    pub fn log(&self) -> Option<Arc<Sandbox>> {
        match &self.runs {
            Runs::Sandbox(sandbox) => Some(sandbox.clone()),
            Runs::ControlPlane { .. } => None,
        }
    }

    /// Changes the faults.
    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        match &self.runs {
            Runs::Sandbox(sandbox) => sandbox.with_faults(change),
            Runs::ControlPlane { kubelet, .. } => kubelet.with_faults(change),
        }
    }

    /// Objects of a kind, by a path like `api/v1/pods`.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        list(&self.client, path).await
    }

    /// Sends a request; its answer, or why not.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        ask(&self.client, method, path, body).await
    }

    /// Applies an object as another field manager, by force.
    pub async fn apply_as(&self, manager: &str, path: &str, object: &Value) -> Result<Value, String> {
        let uri = format!("/{path}?fieldManager={manager}&force=true");
        let request = Request::builder().method("PATCH").uri(uri);
        let request = request.header(header::CONTENT_TYPE, "application/apply-patch+yaml");
        let request = request.body(object.to_string().into_bytes()).unwrap();
        self.client.request(request).await.map_err(|error| error.to_string())
    }
}

async fn ask(client: &Client, method: &str, path: &str, body: Value) -> Result<Value, String> {
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(format!("/{path}")).header(header::USER_AGENT, "tests");
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = request.header(header::CONTENT_TYPE, content).body(body).unwrap();
    client.request(request).await.map_err(|error| error.to_string())
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    let list = ask(client, "GET", path, Value::Null).await.unwrap();
    list["items"].as_array().unwrap().clone()
}

async fn until(client: &Client, path: &str, what: &str, holds: impl Fn(&[Value]) -> bool) {
    let began = tokio::time::Instant::now();
    loop {
        let seen = list(client, path).await;
        if holds(&seen) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}: {seen:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What tests put beside namespaces has this label.
pub const LABEL: &str = "locktender-tests";

const OF_THE_CLUSTER: [&str; 7] = [
    "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "apis/rbac.authorization.k8s.io/v1/clusterroles",
];

/// Takes everything away that an earlier test left. Nobody runs pods now: they are forced.
async fn empty(client: &Client) {
    // The conformance suite has namespaces of its own, and takes nobody else's; the controller's account lives in one.
    fn is_kept(space: &Value) -> bool {
        let name = space["metadata"]["name"].as_str().unwrap();
        name == "default"
            || name == deployed::NAMESPACE
            || name.starts_with("kube-")
            || name.starts_with("conformance-")
    }
    const WORK: [&str; 6] = [
        "apis/apps/v1/{}/deployments",
        "apis/apps/v1/{}/statefulsets",
        "apis/apps/v1/{}/daemonsets",
        "apis/apps/v1/{}/replicasets",
        "apis/batch/v1/{}/jobs",
        "api/v1/{}/pods",
    ];
    let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
    for space in list(client, "api/v1/namespaces").await {
        if is_kept(&space) {
            continue;
        }
        let name = space["metadata"]["name"].as_str().unwrap();
        // Its controller comes back to a namespace that has pods only after a quarter of a minute.
        for path in WORK.map(|path| path.replace("{}", &format!("namespaces/{name}"))) {
            let began = tokio::time::Instant::now();
            while !ask(client, "DELETE", &path, options.clone()).await.unwrap()["items"].as_array().unwrap().is_empty()
            {
                for object in list(client, &path).await {
                    let object = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                    // It may be gone by now.
                    let _ = ask(client, "PATCH", &object, json!({"metadata": {"finalizers": null}})).await;
                }
                assert!(began.elapsed() < Duration::from_secs(60), "{path} does not get empty");
            }
        }
        // It may be going already.
        let _ = ask(client, "DELETE", &format!("api/v1/namespaces/{name}"), Value::Null).await;
    }
    for path in OF_THE_CLUSTER {
        let selected = format!("{path}?labelSelector={LABEL}");
        ask(client, "DELETE", &selected, Value::Null).await.unwrap();
    }
    ask(client, "DELETE", "api/v1/nodes", Value::Null).await.unwrap();
    let faults = "api/v1/namespaces/kube-system/configmaps/locktender-sandbox-faults";
    let _ = ask(client, "DELETE", faults, Value::Null).await;
    until(client, "api/v1/namespaces", "no namespace of others", |spaces| spaces.iter().all(is_kept)).await;
    until(client, "api/v1/nodes", "no nodes", <[Value]>::is_empty).await;
}
