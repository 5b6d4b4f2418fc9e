//! Servers on loopback in front of bare repositories: `git daemon`, and `git http-backend` behind a small CGI server
//! that can be told to fail.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use tokio::io::AsyncWriteExt as _;

use super::tls::TlsListener;

/// A `git daemon` for the repositories below one directory; ends with this value.
pub struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    /// Starts one that also takes pushes, and waits until it answers.
    pub fn start(base: &Path) -> Self {
        // The daemon cannot choose a port itself; somebody may take it between these two lines, so try again.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
            let programs = Command::new("git").arg("--exec-path").output().expect("git");
            let programs = PathBuf::from(String::from_utf8_lossy(&programs.stdout).trim());
            let mut child = Command::new(programs.join("git-daemon"))
                .args(["--reuseaddr", "--listen=127.0.0.1", "--export-all", "--enable=receive-pack"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", base.display()))
                .arg(base)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .stderr(Stdio::null())
                .spawn()
                .expect("git daemon");
            while matches!(child.try_wait(), Ok(None)) {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, port };
                }
                std::thread::yield_now();
            }
        }
        panic!("git daemon does not start");
    }

    /// The URL of the repository `release.git`.
    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/release.git", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the HTTP server does instead of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers every request with this status.
    Status(u16),
    /// Redirects every request to this origin.
    Redirect(String),
    /// Carries a push out, and cuts the connection instead of saying so.
    LosePushReply,
    /// Takes the request and never answers.
    Hang,
    /// Answers everything that is about pushing with 403.
    ReadOnly,
}

/// Called when a request was let in.
type Watcher = Box<dyn Fn() + Send + Sync>;

/// `git http-backend` behind HTTP or HTTPS; ends with the test's runtime.
pub struct HttpServer {
    scheme: &'static str,
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    base: PathBuf,
    fault: Mutex<Option<Fault>>,
    requests: Mutex<Vec<String>>,
    /// What the header `Authorization` may be, where anything is asked for, and what it was instead.
    authorization: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    watcher: Mutex<Option<Watcher>>,
}

/// The header of basic authentication.
pub fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

impl HttpServer {
    /// Serves the repositories below `base`, pushes included.
    pub async fn start(base: &Path) -> Self {
        Self::serve(base, None).await
    }

    /// The same over TLS.
    pub async fn start_tls(base: &Path, config: Arc<rustls::ServerConfig>) -> Self {
        Self::serve(base, Some(config)).await
    }

    async fn serve(base: &Path, config: Option<Arc<rustls::ServerConfig>>) -> Self {
        let shared = Arc::new(Shared {
            base: base.to_owned(),
            fault: Mutex::default(),
            requests: Mutex::default(),
            authorization: Mutex::default(),
            refused: Mutex::default(),
            watcher: Mutex::default(),
        });
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = tcp.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let scheme = if config.is_some() { "https" } else { "http" };
        match config {
            Some(config) => tokio::spawn(async move { axum::serve(TlsListener { tcp, config }, router).await }),
            None => tokio::spawn(async move { axum::serve(tcp, router).await }),
        };
        Self { scheme, address, shared }
    }

    /// The URL of the repository `release.git`.
    pub fn url(&self) -> String {
        format!("{}://{}/release.git", self.scheme, self.address)
    }

    /// Fails from now on, or no longer.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().expect("no poison") = fault;
    }

    /// Lets in who sends this header `Authorization`, and from now on nobody who sends none.
    pub fn ask_for(&self, authorization: String) {
        self.shared.authorization.lock().expect("no poison").push(authorization);
    }

    /// Lets in nobody any more who sends this header.
    pub fn no_longer(&self, authorization: &str) {
        self.shared.authorization.lock().expect("no poison").retain(|known| known != authorization);
    }

    /// Calls `watcher` at every request that is let in.
    pub fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        *self.shared.watcher.lock().expect("no poison") = Some(Box::new(watcher));
    }

    /// What was asked so far: method and path with query.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("no poison").clone()
    }

    /// The wrong headers `Authorization` that were sent so far.
    pub fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().expect("no poison").clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let line = format!("{} {}", request.method(), request.uri());
    shared.requests.lock().expect("no poison").push(line);
    let fault = shared.fault.lock().expect("no poison").clone();
    let status = |code: u16| Response::builder().status(StatusCode::from_u16(code).expect("a status"));
    let sent = request.headers().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let wanted = shared.authorization.lock().expect("no poison").clone();
    if !wanted.is_empty() && !sent.as_ref().is_some_and(|sent| wanted.contains(sent)) && fault.is_none() {
        shared.refused.lock().expect("no poison").extend(sent);
        return status(401).header("www-authenticate", "Basic realm=\"git\"").body(Body::empty()).expect("a response");
    }
    if let Some(watcher) = &*shared.watcher.lock().expect("no poison") {
        watcher();
    }
    match fault {
        Some(Fault::Status(code)) => status(code).body(Body::empty()).expect("a response"),
        Some(Fault::Redirect(origin)) => {
            let location = format!("{origin}{}", request.uri());
            status(302).header("location", location).body(Body::empty()).expect("a response")
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::LosePushReply) if request.uri().path().ends_with("/git-receive-pack") => {
            backend(&shared.base, request).await;
            let cut = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            status(200).body(Body::from_stream(cut)).expect("a response")
        }
        Some(Fault::ReadOnly) if request.uri().to_string().contains("git-receive-pack") => {
            status(403).body(Body::empty()).expect("a response")
        }
        Some(Fault::LosePushReply | Fault::ReadOnly) | None => backend(&shared.base, request).await,
    }
}

/// Runs `git http-backend` as CGI asks for.
async fn backend(base: &Path, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROJECT_ROOT", base)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "test")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git http-backend");
    let mut stdin = child.stdin.take().expect("stdin");
    let feed = async move {
        // It may have refused the request without reading it.
        let _ = stdin.write_all(&body).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.expect("output").stdout;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").expect("CGI headers");
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").expect("a CGI header");
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().expect("a status")),
            name => response.header(name, value),
        };
    }
    response.body(Body::from(output[end + 4..].to_vec())).expect("a response")
}
