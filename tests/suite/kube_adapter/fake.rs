//! An API server that answers what a test tells it to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::StatusCode,
    response::Response,
};
use futures::{StreamExt, stream};
use locktender::adapter::kube::{KubeCluster, Settings, connect_with};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub content_type: String,
    pub user_agent: String,
    pub body: Value,
}

impl Seen {
    pub fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// `list pods`, `watch pods from 7`: what happened, without the rest.
    pub fn short(&self) -> String {
        let resource = self.path.rsplit('/').next().unwrap_or_default();
        match self.method.as_str() {
            "GET" if self.is_watch() => format!("watch {resource} from {}", self.parameter("resourceVersion")),
            "GET" if self.path.ends_with("/v1") => format!("discover {}", self.path),
            "GET" if !self.parameter("continue").is_empty() => {
                format!("list {resource} after {}", self.parameter("continue"))
            }
            "GET" if !self.parameter("limit").is_empty() => format!("list {resource}"),
            "GET" => format!("get {resource}"),
            other => format!("{other} {}", self.path),
        }
    }
}

/// What a request is answered with.
pub enum Answer {
    Json(u16, Value),
    /// A status and `Retry-After`, in seconds.
    RetryAfter(u16, u64),
    Text(u16, &'static str),
    /// A watch: these chunks, and then; a chunk `None` breaks the connection off.
    Watch(Vec<Option<String>>, After),
    Hang,
}

/// How a watch goes on.
pub enum After {
    Close,
    Silence,
    Say(mpsc::UnboundedReceiver<String>),
}

impl Answer {
    pub fn status(code: u16, reason: &str, details: Value) -> Self {
        let message = format!("{reason} it is");
        Self::Json(
            code,
            json!({"kind": "Status", "reason": reason, "message": message, "code": code, "details": details}),
        )
    }

    /// A watch that says `lines` and is closed.
    pub fn closed_watch(lines: &[String]) -> Self {
        Self::Watch(lines.iter().cloned().map(Some).collect(), After::Close)
    }

    /// A watch that says `lines`, and nothing more for ever.
    pub fn silent_watch(lines: &[String]) -> Self {
        Self::Watch(lines.iter().cloned().map(Some).collect(), After::Silence)
    }

    /// A watch that says `lines`, and then what is sent.
    pub fn open_watch(lines: &[String]) -> (Self, mpsc::UnboundedSender<String>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self::Watch(lines.iter().cloned().map(Some).collect(), After::Say(receiver)), sender)
    }
}

pub fn line(what: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": what, "object": object}))
}

type Script = dyn FnMut(&Seen) -> Answer + Send;

/// The server, and a cluster that talks to it.
pub struct Fake {
    pub cluster: KubeCluster,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
    pub directory: tempfile::TempDir,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub async fn start(settings: Settings, script: impl FnMut(&Seen) -> Answer + Send + 'static) -> Self {
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| {
            let (script, log) = (Arc::clone(&script), Arc::clone(&log));
            async move {
                let seen = read(request).await;
                log.lock().unwrap().push(seen.clone());
                let answer = (script.lock().unwrap())(&seen);
                respond(answer).await
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_for(&format!("http://{address}"))).unwrap();
        let cluster = connect_with(Some(&kubeconfig), None, settings).await.unwrap();
        Self { cluster, seen, server, directory }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn short(&self) -> Vec<String> {
        self.seen().iter().map(Seen::short).collect()
    }
}

pub fn kubeconfig_for(server: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "users": [{"name": "fake", "user": {"token": "t0ken"}}],
    })
    .to_string()
}

async fn read(request: Request) -> Seen {
    let (parts, body) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(header("authorization"), "Bearer t0ken");
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        content_type: header("content-type"),
        user_agent: header("user-agent"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

async fn respond(answer: Answer) -> Response {
    let builder = |code: u16| Response::builder().status(StatusCode::from_u16(code).unwrap());
    match answer {
        Answer::Json(code, value) => builder(code).body(Body::from(value.to_string())).unwrap(),
        Answer::RetryAfter(code, seconds) => {
            builder(code).header("retry-after", seconds.to_string()).body(Body::empty()).unwrap()
        }
        Answer::Text(code, text) => builder(code).body(Body::from(text)).unwrap(),
        Answer::Hang => std::future::pending().await,
        Answer::Watch(chunks, rest) => {
            let first = stream::iter(chunks).then(|chunk| async move {
                if chunk.is_none() {
                    // Lets the chunks before it out.
                    tokio::task::yield_now().await;
                }
                chunk.map(Bytes::from).ok_or("broken off")
            });
            let rest = stream::unfold(rest, |rest| async {
                let mut receiver = match rest {
                    After::Close => return None,
                    After::Silence => std::future::pending().await,
                    After::Say(receiver) => receiver,
                };
                let chunk = receiver.recv().await?;
                Some((Ok(Bytes::from(chunk)), After::Say(receiver)))
            });
            builder(200).body(Body::from_stream(first.chain(rest))).unwrap()
        }
    }
}

/// Answers discovery of the core group, of `apps/v1`, and of definitions.
pub fn discovery(seen: &Seen) -> Option<Answer> {
    let resource =
        |name: &str, kind: &str, namespaced: bool| json!({"name": name, "kind": kind, "namespaced": namespaced});
    let resources = match seen.path.as_str() {
        "/api/v1" => vec![
            resource("pods", "Pod", true),
            resource("pods/status", "Pod", true),
            resource("namespaces", "Namespace", false),
            resource("secrets", "Secret", true),
        ],
        "/apis/apps/v1" => {
            vec![resource("deployments", "Deployment", true), resource("deployments/scale", "Scale", true)]
        }
        "/apis/apiextensions.k8s.io/v1" => {
            vec![resource("customresourcedefinitions", "CustomResourceDefinition", false)]
        }
        _ => return None,
    };
    Some(Answer::Json(200, json!({"kind": "APIResourceList", "resources": resources})))
}
