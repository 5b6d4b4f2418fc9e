//! A proxy between the controller and the API server, which does to requests and watches what it is told.
//!
//! Plain HTTP on loopback to the controller, with a kubeconfig of its own; to the server as the client that it is given,
//! so with a certificate over TLS where that is a real one. Only the controller's requests come by here: what a test
//! itself asks for goes past it.

mod asked;
mod fault;

use std::{
    convert::Infallible,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header, request::Parts};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use locktender::adapter::kube::Verb;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tokio_stream::wrappers::ReceiverStream;

use self::fault::{Faults, Struck};
pub use self::{
    asked::Asked,
    fault::{Change, Effect, Injection, On, Refusal},
};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The proxy, until it is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    directory: tempfile::TempDir,
    server: AbortHandle,
}

struct Shared {
    client: Client,
    faults: Faults,
    asked: Mutex<Vec<Asked>>,
    /// As whom the server is asked, where not as the client.
    user: Mutex<Option<String>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// Starts one before the server of a kubeconfig.
    pub async fn before(kubeconfig: &PathBuf) -> Self {
        // Fails where another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = Kubeconfig::read_from(kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        // What the server said is told as it is.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let shared = Shared { client, faults: Faults::default(), asked: Mutex::default(), user: Mutex::default() };
        let shared = Arc::new(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "users": [{"name": "proxy", "user": {}}],
        });
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let server = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Self { shared, directory, server }
    }

    /// How the controller reaches the cluster through it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Lets a fault be in force until what is returned is dropped.
    pub fn inject(&self, on: On, effect: Effect) -> Injection {
        self.shared.faults.add(on, effect)
    }

    /// Everything that was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The writes that were sent so far.
    pub fn writes(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(Asked::is_write).collect()
    }

    /// Forgets what was asked for so far.
    pub fn forget(&self) {
        self.shared.asked.lock().unwrap().clear();
    }

    /// Lets the server be asked as somebody else from now on.
    pub fn acts_as(&self, user: &str) {
        *self.shared.user.lock().unwrap() = Some(user.to_owned());
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the proxy.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        let service = hyper::service::service_fn(move |request| answer(Arc::clone(&shared), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // One that breaks is what faults are about.
            let _ = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Why a connection is to break.
fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "a fault")
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked::read(&parts, &body);
    let at = {
        let mut all = shared.asked.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    let mut struck = shared.faults.strike(&asked);
    match struck.as_ref().map(|struck| &struck.effect) {
        Some(Effect::Reset) => return Err(broken()),
        Some(Effect::Hang) => std::future::pending().await,
        Some(Effect::Refused(refusal)) => return Ok(refused(refusal)),
        Some(Effect::Page(code)) => return Ok(page(*code)),
        Some(Effect::Changed(change)) => {
            let mut sent = asked.body.clone();
            change(&mut sent);
            body = sent.to_string().into();
        }
        _ => {}
    }
    let answer = forward(&shared, parts, body).await;
    if let Some(asked) = shared.asked.lock().unwrap().get_mut(at) {
        asked.answered = answer.as_ref().ok().map(|answer| answer.status().as_u16());
    }
    let answer = answer?;
    if asked.verb == Verb::Watch && answer.status() == 200 {
        let (head, body) = answer.into_parts();
        return Ok(Response::from_parts(head, watched(Arc::clone(&shared), asked, body)));
    }
    // Whatever becomes of the answer, the server has said all of it.
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    match struck.as_mut() {
        Some(Struck { effect: Effect::AnswerLost, .. }) => return Err(broken()),
        Some(struck @ Struck { effect: Effect::AnswerHeld, .. }) => struck.over().await,
        Some(Struck { effect: Effect::Closed, .. }) => {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    Ok(Response::from_parts(head, whole(body)))
}

/// Asks the server.
async fn forward(shared: &Shared, parts: Parts, body: Bytes) -> io::Result<Response<Body>> {
    let mut request = Request::builder().method(parts.method).uri(parts.uri);
    for name in [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT] {
        if let Some(value) = parts.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    if let Some(user) = shared.user.lock().unwrap().as_ref() {
        request = request.header("impersonate-user", user).header("impersonate-group", "system:authenticated");
    }
    let request = request.body(Body::from(body.to_vec())).map_err(io::Error::other)?;
    shared.client.send(request).await.map_err(io::Error::other)
}

fn whole(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn refused(refusal: &Refusal) -> Answer {
    let Refusal { code, reason, message, retry_after } = *refusal;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code,
    });
    let answer = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    let answer = retry_after.into_iter().fold(answer, |answer, wait| answer.header(header::RETRY_AFTER, wait));
    answer.body(whole(status.to_string())).unwrap()
}

fn page(code: u16) -> Answer {
    Response::builder().status(code).body(whole(format!("<html><h1>{code}</h1></html>"))).unwrap()
}

/// A watch's events, with what befalls them.
fn watched(shared: Arc<Shared>, watch: Asked, body: Body) -> UnsyncBoxBody<Bytes, io::Error> {
    let (events, stream) = mpsc::channel(16);
    tokio::spawn(async move {
        // Whoever listens may be gone, and then there is nothing left to do.
        let relayed = relay(&shared.faults, &watch, body, &events);
        tokio::select! {
            _ = relayed => {}
            () = events.closed() => {}
        }
    });
    UnsyncBoxBody::new(StreamBody::new(ReceiverStream::new(stream)))
}

type Events = mpsc::Sender<io::Result<Frame<Bytes>>>;

/// Relays a watch line by line. Ends where it is over, or nobody listens.
async fn relay(faults: &Faults, watch: &Asked, mut body: Body, events: &Events) -> Option<()> {
    let mut pending = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(end + 1).freeze();
            let Some(mut struck) = faults.strike_event(watch) else {
                say(events, line).await?;
                continue;
            };
            match struck.effect {
                Effect::EventCut => {
                    say(events, line.slice(..line.len() / 2)).await?;
                    return events.send(Err(broken())).await.ok();
                }
                Effect::Expired => {
                    let status = json!({
                        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
                        "message": "too old resource version", "code": 410,
                    });
                    return say(events, format!("{}\n", json!({"type": "ERROR", "object": status})).into()).await;
                }
                Effect::Held => struck.over().await,
                Effect::Silent => std::future::pending().await,
                Effect::Trickled => {
                    for at in 0..line.len() {
                        say(events, line.slice(at..=at)).await?;
                        // The fault itself is a pace.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    continue;
                }
                _ => {}
            }
            say(events, line).await?;
        }
    }
    Some(())
}

async fn say(events: &Events, data: Bytes) -> Option<()> {
    events.send(Ok(Frame::data(data))).await.ok()
}
