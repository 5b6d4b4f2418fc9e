//! The sandbox in real time: a real `kubectl` against it, and pods that are real listeners.

use std::{path::Path, process::Stdio};

use locktender::sandbox::{
    faults::{Fault, Target},
    kubelet::{Remote, RemoteOptions},
    server::{Sandbox, SandboxOptions},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use super::*;

async fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Each test's kubectl keeps its own discovery cache.
    command.env("HOME", kubeconfig.parent().unwrap()).env_remove("KUBECONFIG");
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

async fn pods_of(kubeconfig: &Path) -> Vec<Value> {
    let listed = kubectl(kubeconfig, &["get", "pods", "-l", "app=checkout", "-o", "json"], "").await;
    serde_json::from_str::<Value>(&listed).unwrap()["items"].as_array().unwrap().clone()
}

/// Asks over HTTP and returns the status code and the body.
async fn ask(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((code, answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned()))
}

fn address(pod: &Value) -> String {
    format!("{}:9080", pod["status"]["podIP"].as_str().unwrap())
}

async fn start(directory: &Path) -> Sandbox {
    let kubeconfig = Some(directory.join("kubeconfig"));
    Sandbox::start(SandboxOptions { kubeconfig, ..SandboxOptions::default() }).await.unwrap()
}

fn manifests() -> String {
    let mut deployment = deployment(3, "registry.example/checkout:1.0");
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1});
    format!("{}\n{deployment}", service())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_answer_over_http_with_their_version_and_keep_who_they_are_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = start(directory.path()).await;
    let kubeconfig = sandbox.kubeconfig.clone().unwrap();
    kubectl(&kubeconfig, &["apply", "-f", "-"], &manifests()).await;
    kubectl(&kubeconfig, &["rollout", "status", "deployment/checkout", "--timeout=60s"], "").await;
    let pods = pods_of(&kubeconfig).await;
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        let (code, body) = ask(&address(pod), "/").await.unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &answer["version"], &answer["app"]), (200, &json!("1.0"), &json!("checkout")));
        assert_eq!((&answer["name"], &answer["node"]), (&pod["metadata"]["name"], &pod["spec"]["nodeName"]));
        assert!(answer["node"].as_str().unwrap().starts_with(answer["unit"].as_str().unwrap()));
    }

    let before = &pods[0];
    let pod_name = name(before);
    let patch = json!({"spec": {"containers": [{"name": "checkout", "image": "registry.example/checkout:2.0"}]}});
    kubectl(&kubeconfig, &["patch", "pod", &pod_name, "-p", &patch.to_string()], "").await;
    let restarted = "jsonpath={.status.containerStatuses[0].restartCount}=1";
    kubectl(&kubeconfig, &["wait", "pod", &pod_name, "--for", restarted, "--timeout=60s"], "").await;
    kubectl(&kubeconfig, &["wait", "pod", &pod_name, "--for=condition=Ready", "--timeout=60s"], "").await;
    let after = pods_of(&kubeconfig).await.into_iter().find(|pod| name(pod) == pod_name).unwrap();
    for path in [["metadata", "uid"], ["spec", "nodeName"], ["status", "podIP"]] {
        assert_eq!(before[path[0]][path[1]], after[path[0]][path[1]], "{path:?}");
    }
    let (_, body) = ask(&address(&after), "/any/path").await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["version"], "2.0");
    let (_, metrics) = ask(&address(&after), "/metrics").await.unwrap();
    assert!(metrics.contains("http_requests_total{app=\"checkout\""), "{metrics}");

    kubectl(&kubeconfig, &["delete", "deployment", "checkout", "--timeout=60s"], "").await;
    kubectl(&kubeconfig, &["wait", "pods", "-l", "app=checkout", "--for=delete", "--timeout=60s"], "").await;
    assert!(ask(&address(before), "/").await.is_err(), "nobody listens any more");
    sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sets_faults_with_kubectl_and_takes_them_back() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = start(directory.path()).await;
    let kubeconfig = sandbox.kubeconfig.clone().unwrap();
    let faults = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "locktender-sandbox-faults", "namespace": "kube-system"},
        "data": {"5xx": "image=*:1.0", "never-ready": "pod=other-*"},
    });
    kubectl(&kubeconfig, &["apply", "-f", "-"], &faults.to_string()).await;
    kubectl(&kubeconfig, &["apply", "-f", "-"], &manifests()).await;
    kubectl(&kubeconfig, &["rollout", "status", "deployment/checkout", "--timeout=60s"], "").await;
    let pod = pods_of(&kubeconfig).await.remove(0);
    assert_eq!(ask(&address(&pod), "/").await.unwrap().0, 500);
    assert_eq!(ask(&address(&pod), "/health").await.unwrap().1, r#"{"healthy":true}"#);
    kubectl(&kubeconfig, &["-n", "kube-system", "delete", "configmap", "locktender-sandbox-faults"], "").await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while ask(&address(&pod), "/").await.unwrap().0 != 200 {
        assert!(std::time::Instant::now() < deadline, "it still answers with 500");
    }
    sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_alone_runs_the_pods_of_an_api_server_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let no_nodes =
        SandboxOptions { kubeconfig: Some(kubeconfig.clone()), units: Vec::new(), ..SandboxOptions::default() };
    let sandbox = Sandbox::start(no_nodes).await.unwrap();
    let options = RemoteOptions {
        kubeconfig: Some(kubeconfig.clone()),
        context: None,
        units: vec![("dca".to_owned(), 1), ("dcb".to_owned(), 1)],
        capacity: 10,
        pods: "127.252.0.0/16".parse().unwrap(),
        pace: Pace::default(),
    };
    let kubelet = Remote::start(options).await.unwrap();
    let balanced =
        manifests().replacen("\"metadata\":{", "\"metadata\":{\"labels\":{\"locktender.dev/sandbox-lb\":\"true\"},", 1);
    kubectl(&kubeconfig, &["apply", "-f", "-"], &balanced).await;
    kubectl(&kubeconfig, &["rollout", "status", "deployment/checkout", "--timeout=60s"], "").await;
    let protected = "jsonpath={.metadata.finalizers[0]}=slb.example.com/protected";
    kubectl(&kubeconfig, &["wait", "pod", "-l", "app=checkout", "--for", protected, "--timeout=60s"], "").await;
    let pods = pods_of(&kubeconfig).await;
    let (code, body) = ask(&address(&pods[0]), "/").await.unwrap();
    assert!(code == 200 && body.contains("\"version\":\"1.0\"") && address(&pods[0]).starts_with("127.252."), "{body}");

    kubelet.with_faults(|faults| faults.add(Target::image("*:2.0"), Fault::BadImage));
    let pod_name = name(&pods[0]);
    let patch = json!({"spec": {"containers": [{"name": "checkout", "image": "registry.example/checkout:2.0"}]}});
    kubectl(&kubeconfig, &["patch", "pod", &pod_name, "-p", &patch.to_string()], "").await;
    let pulling = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff";
    kubectl(&kubeconfig, &["wait", "pod", &pod_name, "--for", pulling, "--timeout=60s"], "").await;

    kubectl(&kubeconfig, &["delete", "deployment", "checkout", "--wait=false"], "").await;
    kubectl(&kubeconfig, &["wait", "pod", "-l", "app=checkout", "--for=delete", "--timeout=60s"], "").await;
    assert!(ask(&address(&pods[1]), "/").await.is_err(), "nobody listens there any more");
    kubelet.shutdown().await;
    sandbox.shutdown().await;
}
