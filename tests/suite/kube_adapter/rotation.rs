//! Credentials that are rotated while a client lives: it goes on with the new ones, and nobody starts it anew.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use locktender::{
    adapter::kube::{KubeCluster, Settings, connect_with},
    core::cluster::{Cluster, ClusterError},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// An API server whose certificate and token can be changed. Each connection is for one request.
struct Server {
    files: TempDir,
    state: Arc<Mutex<State>>,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    tls: Arc<ServerConfig>,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes an authority, and a certificate for 127.0.0.1 by it.
fn certificate(directory: &Path, name: &str) -> Arc<ServerConfig> {
    let file = |end: &str| directory.join(format!("{name}{end}")).display().to_string();
    let openssl = |args: &[&str]| {
        let status = Command::new("openssl").args(args).stderr(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.unwrap().success(), "openssl {args:?}");
    };
    let (ca, ca_key, key, asked, made) = (file("-ca.crt"), file("-ca.key"), file(".key"), file(".csr"), file(".crt"));
    let subject = format!("/CN={name}");
    let new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    openssl(&[&["req", "-x509", "-subj", &subject, "-keyout", &ca_key, "-out", &ca], &new[..]].concat());
    let names = ["-addext", "subjectAltName=IP:127.0.0.1"];
    openssl(&[&["req", "-subj", "/CN=api", "-keyout", &key, "-out", &asked], &new[..5], &names[..]].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        &asked,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-copy_extensions",
        "copy",
        "-days",
        "2",
        "-out",
        &made,
    ]);
    let chain = vec![CertificateDer::from_pem_file(made).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap())
}

impl Server {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let state = State { tls: certificate(files.path(), "one"), token: "first".to_owned() };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, token) = {
                    let state = shared.lock().unwrap();
                    (state.tls.clone(), state.token.clone())
                };
                tokio::spawn(async move {
                    let Ok(mut stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let answer = answer(&String::from_utf8(head).unwrap(), &token);
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { files, state, port, task }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.files.path().join(file), text).unwrap();
    }

    fn trust(&self, name: &str) {
        std::fs::copy(self.files.path().join(format!("{name}-ca.crt")), self.files.path().join("ca.crt")).unwrap();
    }

    fn kubeconfig(&self, user: &serde_json::Value) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": "ca.crt",
            }}],
            "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        self.write("kubeconfig", &config.to_string());
    }

    async fn client(&self) -> KubeCluster {
        connect_with(Some(&self.files.path().join("kubeconfig")), None, Settings::default()).await.unwrap()
    }
}

fn answer(head: &str, token: &str) -> String {
    let asked = head.lines().next().unwrap_or_default();
    let trusted = head.lines().any(|line| line.to_lowercase() == format!("authorization: bearer {token}"));
    let (status, body) = if !trusted {
        ("401 Unauthorized", json!({"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "who are you"}))
    } else if asked.contains(" /api/v1 ") {
        let pods = json!({"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["get"], "singularName": "pod"});
        ("200 OK", json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]}))
    } else {
        ("200 OK", super::pod("a", "7"))
    };
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks again until it is answered, as the controller does; for a few seconds at most.
async fn answered(cluster: &KubeCluster) -> Result<(), ClusterError> {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        match cluster.read(&super::pods(), "shop", "a").await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() > end => return Err(error),
            // The controller's own first wait.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

#[tokio::test]
async fn fault_86_a_token_in_the_kubeconfig_is_rotated() {
    let server = Server::start().await;
    server.trust("one");
    server.kubeconfig(&json!({"token": "first"}));
    let cluster = server.client().await;
    answered(&cluster).await.unwrap();
    server.state.lock().unwrap().token = "second".to_owned();
    assert!(matches!(cluster.read(&super::pods(), "shop", "a").await, Err(ClusterError::Forbidden(_))));
    // Half of it is written first.
    server.write("kubeconfig", "{\"apiVersion\": \"v1\", \"kind\"");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(matches!(cluster.read(&super::pods(), "shop", "a").await, Err(ClusterError::Forbidden(_))));
    server.kubeconfig(&json!({"token": "second"}));
    answered(&cluster).await.unwrap();
}

#[tokio::test]
async fn fault_86_a_token_file_as_a_pod_has_it_is_rotated() {
    let server = Server::start().await;
    server.trust("one");
    server.write("token", "first");
    server.kubeconfig(&json!({"tokenFile": server.files.path().join("token")}));
    let cluster = server.client().await;
    answered(&cluster).await.unwrap();
    server.state.lock().unwrap().token = "second".to_owned();
    server.write("token", "second");
    answered(&cluster).await.unwrap();
}

#[tokio::test]
async fn fault_86_the_authority_is_rotated() {
    let server = Server::start().await;
    server.trust("one");
    server.kubeconfig(&json!({"token": "first"}));
    let cluster = server.client().await;
    answered(&cluster).await.unwrap();
    let two = certificate(server.files.path(), "two");
    server.state.lock().unwrap().tls = two;
    assert!(matches!(cluster.read(&super::pods(), "shop", "a").await, Err(ClusterError::Unreachable(_))));
    server.trust("two");
    answered(&cluster).await.unwrap();
}
