//! What goes over the wire: tokens, limits, and watches that grow line by line.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use locktender::sandbox::http::{self, Backend, Shared};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

use super::pod;

struct Served {
    address: std::net::SocketAddr,
    backend: Arc<Shared>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
}

async fn serve() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Arc::new(Shared::new(7));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let server = tokio::spawn(http::serve(listener, backend.clone(), "secret".into(), None, stopped));
    Served { address, backend, stop, server }
}

impl Served {
    async fn open(&self, head: &str, body: &[u8]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head}\r\nHost: sandbox\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may hang up on a body that is too long before it has read it.
        let _ = stream.write_all(body).await;
        BufReader::new(stream)
    }

    /// Returns the status code and all the rest.
    async fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut answer = Vec::new();
        let _ = self.open(head, body).await.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }
}

/// Reads on to the next event of a watch.
async fn event(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return None;
        }
        if line.starts_with("{\"") {
            return Some(serde_json::from_str(&line).unwrap());
        }
    }
}

#[tokio::test]
async fn only_health_and_version_are_told_without_the_token() {
    let served = serve().await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1", 200),
        ("GET /version HTTP/1.1", 200),
        ("GET /api/v1/pods HTTP/1.1", 401),
        ("GET /guess/api/v1/pods HTTP/1.1", 401),
        ("GET /api/v1/pods HTTP/1.1\r\nAuthorization: Bearer guess!", 401),
        ("GET /api/v1/pods HTTP/1.1\r\nAuthorization: Bearer secret", 200),
        ("GET /secret/api/v1/pods HTTP/1.1", 200),
    ] {
        assert_eq!(served.ask(head, b"").await.0, status, "{head}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let served = serve().await;
    let head = "POST /secret/api/v1/namespaces/default/configmaps HTTP/1.1\r\nContent-Type: application/json";
    let long = |name: &str, length: usize| {
        let text = "x".repeat(length);
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"a":"{text}"}}}}"#)
    };
    assert_eq!(served.ask(head, long("a", 1_000_000).as_bytes()).await.0, 201);
    let (status, answer) = served.ask(head, long("b", 2_000_000).as_bytes()).await;
    assert_eq!(status, 413, "{answer}");
    assert!(answer.contains("etcdserver: request is too large"), "{answer}");
    let (status, answer) = served.ask(head, long("c", 4_000_000).as_bytes()).await;
    assert_eq!(status, 413, "{answer}");
}

#[tokio::test]
async fn a_watch_tells_each_change_as_it_happens_and_ends_when_the_server_stops() {
    let served = serve().await;
    let mut watch = served.open("GET /secret/api/v1/pods?watch=true HTTP/1.1", b"").await;
    for name in ["a", "b"] {
        served.backend.with_api(|api| api.create(pod(name))).unwrap();
        let told = event(&mut watch).await.unwrap();
        assert_eq!((told["type"].as_str(), told["object"]["metadata"]["name"].as_str()), (Some("ADDED"), Some(name)));
    }
    served.stop.send(()).unwrap();
    assert_eq!(event(&mut watch).await, None);
    served.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let served = serve().await;
    let head = "GET /secret/api/v1/pods?watch=true&timeoutSeconds=1&allowWatchBookmarks=true HTTP/1.1";
    let mut watch = served.open(head, b"").await;
    let told = event(&mut watch).await.unwrap();
    let revision = served.backend.with_api(|api| api.revision().to_string());
    assert_eq!((&told["type"], &told["object"]["metadata"]["resourceVersion"]), (&"BOOKMARK".into(), &revision.into()));
    assert_eq!(event(&mut watch).await, None);
}

#[tokio::test]
async fn a_watch_from_a_revision_that_is_gone_says_so() {
    let served = serve().await;
    served.backend.with_api(|api| {
        api.create(pod("a")).unwrap();
        api.compact(api.revision());
    });
    let mut watch = served.open("GET /secret/api/v1/pods?watch=true&resourceVersion=1 HTTP/1.1", b"").await;
    let told = event(&mut watch).await.unwrap();
    assert_eq!((&told["type"], &told["object"]["code"]), (&"ERROR".into(), &410.into()));
    assert_eq!(event(&mut watch).await, None);
}
