//! The runtime of the sandbox that people use: every container listens on its pod's own address.
//!
//! Any path is answered with JSON that names application, version, image, pod, unit and node; `/healthz`, `/readyz`
//! and `/health` say whether it is well, `/metrics` counts requests and how long they took. A container that is asked to
//! stop says with its next answer that the connection ends, as servers do; what is left then ends with the container.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    range::PodRange,
    runtime::{ContainerSpec, HttpGet, Manner, ProbeId, Runtime},
};
use crate::sandbox::message::{Head, wrong};

const LONGEST_LINE: u64 = 16 << 10;
const IDLE: Duration = Duration::from_secs(60);
/// For so long a container that was asked to stop waits for the next request on a connection.
const LAST: Duration = Duration::from_secs(3);

/// Runs containers as listeners on addresses of this machine.
pub struct ListenerRuntime {
    handle: Handle,
    answered: Arc<Notify>,
    answers: Arc<Mutex<Vec<(ProbeId, bool)>>>,
    idle: Arc<Mutex<Vec<String>>>,
    range: PodRange,
    salt: u64,
    addresses: BTreeMap<String, Ipv4Addr>,
    running: BTreeMap<(String, String), Vec<Listening>>,
    /// Ports below 1024 that this user may not listen on: what is asked there is answered with yes.
    refused: BTreeSet<SocketAddr>,
}

struct Listening {
    address: SocketAddr,
    page: Arc<Page>,
    /// Whether it was asked to stop.
    leaves: watch::Sender<bool>,
    /// How many connections it has.
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ListenerRuntime {
    /// Makes a runtime whose listeners run on `handle`, on addresses of `range`. `answered` is told when an answer to a
    /// probe is there; `salt` keeps the addresses of two sandboxes on one machine apart.
    pub fn new(handle: Handle, answered: Arc<Notify>, range: PodRange, salt: u64) -> Self {
        Self {
            handle,
            answered,
            answers: Arc::default(),
            idle: Arc::default(),
            range,
            salt,
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    fn listen(&mut self, pod_uid: &str, address: SocketAddr, page: &Arc<Page>) -> Result<Option<Listening>, String> {
        let listener = match std::net::TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && address.port() < 1024 => {
                self.refused.insert(address);
                return Ok(None);
            }
            Err(error) => return Err(format!("cannot listen on {address}: {error}")),
        };
        let prepared = listener.set_nonblocking(true).and_then(|()| {
            let _guard = self.handle.enter();
            TcpListener::from_std(listener)
        });
        let listener = prepared.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let (leaves, leaving) = watch::channel(false);
        let open = Arc::new(AtomicUsize::new(0));
        let (idle, answered, uid) = (self.idle.clone(), self.answered.clone(), pod_uid.to_owned());
        let is_idle = move || {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(uid.clone());
            answered.notify_one();
        };
        let task = self.handle.spawn(serve(listener, page.clone(), leaving, open.clone(), is_idle));
        Ok(Some(Listening { address, page: page.clone(), leaves, open, task }))
    }
}

impl Runtime for ListenerRuntime {
    fn address(&mut self, pod_uid: &str) -> String {
        if let Some(address) = self.addresses.get(pod_uid) {
            return address.to_string();
        }
        let mut attempt = 0_u32;
        let address = loop {
            let digest = Sha256::digest(format!("{}/{attempt}/{pod_uid}", self.salt).as_bytes());
            let place = digest.iter().take(8).fold(0_u64, |place, byte| place << 8 | u64::from(*byte));
            let address = self.range.at(place);
            if !self.addresses.values().any(|used| *used == address) {
                break address;
            }
            attempt += 1;
        };
        self.addresses.insert(pod_uid.to_owned(), address);
        address.to_string()
    }

    fn release(&mut self, pod_uid: &str) {
        if let Some(address) = self.addresses.remove(pod_uid) {
            self.refused.retain(|refused| refused.ip() != address);
        }
    }

    fn start(&mut self, container: &ContainerSpec) -> Result<(), String> {
        let address: Ipv4Addr = container.address.parse().map_err(|_| format!("no address: {}", container.address))?;
        let page = Arc::new(Page::new(container));
        let mut listening = Vec::new();
        for port in &container.ports {
            listening.extend(self.listen(&container.pod_uid, SocketAddr::from((address, *port)), &page)?);
        }
        self.running.insert((container.pod_uid.clone(), container.container.clone()), listening);
        Ok(())
    }

    fn behave(&mut self, pod_uid: &str, container: &str, manner: Manner) {
        let listening = self.running.get(&(pod_uid.to_owned(), container.to_owned()));
        listening.into_iter().flatten().for_each(|it| it.page.behave(manner));
    }

    fn leave(&mut self, pod_uid: &str, container: &str) {
        let listening = self.running.get(&(pod_uid.to_owned(), container.to_owned()));
        for it in listening.into_iter().flatten() {
            it.leaves.send_replace(true);
        }
    }

    fn is_busy(&self, pod_uid: &str, container: &str) -> bool {
        let listening = self.running.get(&(pod_uid.to_owned(), container.to_owned()));
        listening.into_iter().flatten().any(|it| it.open.load(Ordering::Acquire) > 0)
    }

    fn stop(&mut self, pod_uid: &str, container: &str) {
        if let Some(listening) = self.running.remove(&(pod_uid.to_owned(), container.to_owned())) {
            listening.iter().for_each(|it| tracing::trace!(address = %it.address, "stopped listening"));
        }
    }

    fn probe(&mut self, id: &ProbeId, question: &HttpGet) -> Option<bool> {
        let address = format!("{}:{}", question.host, question.port);
        if address.parse::<SocketAddr>().is_ok_and(|address| self.refused.contains(&address)) {
            return Some(true);
        }
        let (id, question) = (id.clone(), question.clone());
        let (answers, answered) = (self.answers.clone(), self.answered.clone());
        self.handle.spawn(async move {
            let answer = tokio::time::timeout(question.timeout, get(&address, &question.path)).await;
            let well = matches!(answer, Ok(Ok(code)) if (200..400).contains(&code));
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((id, well));
            answered.notify_one();
        });
        None
    }

    fn answers(&mut self) -> Vec<(ProbeId, bool)> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn idle(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_answers(&self) -> bool {
        !self.idle.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
            || !self.answers.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// Asks for a path and returns the status code.
async fn get(address: &str, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).take(LONGEST_LINE).read_line(&mut line).await?;
    let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status line"))
}

/// What a container answers.
struct Page {
    body: String,
    /// What it says where it is told to fail.
    failure: String,
    server_errors: AtomicBool,
    never_ready: AtomicBool,
    sick: AtomicBool,
    labels: String,
    /// When it started, in seconds since 1970.
    started: f64,
    requests: AtomicU64,
    errors: AtomicU64,
    /// How many requests took at most as long as each of [`BUCKETS`], and the microseconds of all together.
    within: [AtomicU64; BUCKETS.len()],
    micros: AtomicU64,
}

/// The bounds of the histogram of durations, in seconds.
const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0];

impl Page {
    fn new(container: &ContainerSpec) -> Self {
        let mut body = json!({
            "app": container.app,
            "version": version(&container.image),
            "image": container.image,
            "name": container.pod,
            "unit": container.unit,
            "node": container.node,
        });
        let answer = format!("{body}\n");
        body["error"] = "told to fail".into();
        let labels =
            format!("app=\"{}\",pod=\"{}\",version=\"{}\"", container.app, container.pod, version(&container.image));
        Self {
            body: answer,
            failure: format!("{body}\n"),
            server_errors: AtomicBool::new(container.manner.server_errors),
            never_ready: AtomicBool::new(container.manner.never_ready),
            sick: AtomicBool::new(container.manner.sick),
            labels,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            within: Default::default(),
            micros: AtomicU64::new(0),
        }
    }

    /// Notes how long a request took.
    fn took(&self, time: Duration) {
        for (_, count) in BUCKETS.iter().zip(&self.within).filter(|(bound, _)| time.as_secs_f64() <= **bound) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Tells what was counted, in Prometheus' text format.
    fn metrics(&self) -> String {
        let (requests, errors) = (self.requests.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed));
        let labels = &self.labels;
        let mut text = "# TYPE http_requests_total counter\n".to_owned();
        // As client libraries do it, a code that was never answered with is not there.
        for (code, count) in [("200", requests.saturating_sub(errors)), ("500", errors)] {
            if count > 0 {
                text += &format!("http_requests_total{{{labels},code=\"{code}\"}} {count}\n");
            }
        }
        text += &format!(
            "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds{{{labels}}} {}\n\
             # TYPE http_request_duration_seconds histogram\n",
            self.started,
        );
        for (bound, count) in BUCKETS.iter().zip(&self.within) {
            let count = count.load(Ordering::Relaxed);
            text += &format!("http_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}\n");
        }
        let seconds = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        text + &format!(
            "http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {requests}\n\
             http_request_duration_seconds_sum{{{labels}}} {seconds}\n\
             http_request_duration_seconds_count{{{labels}}} {requests}\n"
        )
    }

    fn behave(&self, manner: Manner) {
        self.server_errors.store(manner.server_errors, Ordering::Relaxed);
        self.never_ready.store(manner.never_ready, Ordering::Relaxed);
        self.sick.store(manner.sick, Ordering::Relaxed);
    }

    /// Returns code, content type and body of the answer to a request for `path`.
    fn answer(&self, path: &str) -> (u16, &'static str, String) {
        const JSON: &str = "application/json";
        match path.split('?').next().unwrap_or_default() {
            "/metrics" => (200, "text/plain; version=0.0.4", self.metrics()),
            path if !is_counted(path) => {
                let ready = !self.never_ready.load(Ordering::Relaxed);
                let healthy = ready && !self.sick.load(Ordering::Relaxed);
                (if ready { 200 } else { 503 }, JSON, json!({"healthy": healthy}).to_string())
            }
            _ => {
                self.requests.fetch_add(1, Ordering::Relaxed);
                if self.server_errors.load(Ordering::Relaxed) {
                    self.errors.fetch_add(1, Ordering::Relaxed);
                    return (500, JSON, self.failure.clone());
                }
                (200, JSON, self.body.clone())
            }
        }
    }
}

/// Returns whether a request is anybody's but a prober's or a scraper's.
fn is_counted(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    !matches!(path, "/metrics" | "/healthz" | "/readyz" | "/health" | "/livez")
}

/// Returns an image's tag, or what stands for it.
fn version(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => image.split_once('@').map_or("latest", |(_, digest)| digest),
    }
}

/// Serves until it is aborted; its connections end with it. Once it is asked to stop, `is_idle` is told whenever the last
/// of them has ended.
async fn serve(
    listener: TcpListener,
    page: Arc<Page>,
    leaving: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
    is_idle: impl Fn(),
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, page.clone(), leaving.clone()));
                }
                // Out of file descriptors: connections must end before new ones are taken.
                Err(_) => {
                    connections.join_next().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
        open.store(connections.len(), Ordering::Release);
        if connections.is_empty() && *leaving.borrow() {
            is_idle();
        }
    }
}

/// Waits for the next request on a connection; false where there will be none.
async fn is_asked(stream: &mut BufReader<TcpStream>, leaving: &mut watch::Receiver<bool>) -> io::Result<bool> {
    let last = async {
        // Without its listener it ends, too.
        let _ = leaving.wait_for(|leaves| *leaves).await;
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        more = stream.fill_buf() => Ok(!more?.is_empty()),
        () = last => Ok(false),
        () = tokio::time::sleep(IDLE) => Ok(false),
    }
}

async fn converse(stream: TcpStream, page: Arc<Page>, mut leaving: watch::Receiver<bool>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while is_asked(&mut stream, &mut leaving).await? {
        let Some(request) = tokio::time::timeout(IDLE, read_request(&mut stream)).await?? else { break };
        let began = Instant::now();
        let (code, kind, body) = page.answer(&request.path);
        let reason = if code == 200 { "OK" } else { "Failed" };
        let closes = request.close || *leaving.borrow();
        let connection = if closes { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        let content = if request.is_head { "" } else { &body };
        stream.write_all(format!("{head}{content}").as_bytes()).await?;
        stream.flush().await?;
        if is_counted(&request.path) {
            page.took(began.elapsed());
        }
        if closes {
            return Ok(());
        }
    }
    Ok(())
}

struct Request {
    path: String,
    is_head: bool,
    close: bool,
}

/// Reads one request and passes over its body; `None` where the connection ended between two.
async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some(head) = Head::read(stream).await? else { return Ok(None) };
    if head.word(1).is_empty() {
        return Err(wrong("no request line"));
    }
    let length = head.length()?.unwrap_or(0);
    tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
    let (is_head, close) = (head.word(0) == "HEAD", head.closes(head.word(2)));
    Ok(Some(Request { path: head.word(1).to_owned(), is_head, close }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_tag() {
        assert_eq!(version("registry.example:5000/checkout:2.1"), "2.1");
        assert_eq!(version("registry.example:5000/checkout"), "latest");
        assert_eq!(version("checkout@sha256:00"), "sha256:00");
    }
}
