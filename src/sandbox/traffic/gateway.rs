//! The gateway: listeners that follow the table, and what they do with a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

use super::table::{Table, Target};
use crate::sandbox::{
    http::Backend,
    message::{Head, LONGEST_BODY, wrong},
};

const IDLE: Duration = Duration::from_secs(60);
/// Headers that are about one connection.
const HOP: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "content-length"];

/// Follows the cluster for ever: what is asked is routed by the newest table before any status says so.
pub async fn run<B: Backend>(cluster: Arc<B>, salt: u64) {
    let shared = Arc::new(Shared::default());
    let mut listening = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let (revision, (table, told)) = cluster.with_api(|api| (api.revision(), Table::read(api, salt)));
        let wanted: BTreeSet<SocketAddr> = table.listeners.keys().copied().collect();
        listening.retain(|address, task: &mut AbortHandle| {
            let kept = wanted.contains(address);
            if !kept {
                task.abort();
            }
            kept
        });
        for address in wanted {
            if listening.contains_key(&address) {
                continue;
            }
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    listening.insert(address, tasks.spawn(serve(listener, address, shared.clone())));
                }
                Err(error) => tracing::warn!(%address, %error, "the gateway cannot listen"),
            }
        }
        *shared.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        cluster.with_api(|api| {
            for object in told {
                // Somebody changed it meanwhile: it is read again, for the revision is another.
                if let Err(refused) = api.update(object, Some("status")) {
                    tracing::debug!(?refused, "the gateway could not say so");
                }
            }
        });
        cluster.changed(revision).await;
    }
}

#[derive(Default)]
struct Shared {
    table: Mutex<Arc<Table>>,
    /// How many choices of each kind were made: of a backend, of an endpoint, of a copy.
    choices: [AtomicU64; 3],
}

impl Shared {
    fn table(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the next number below `most` of a sequence that is spread evenly, however short a piece of it is taken.
    fn next(&self, kind: usize, most: u64) -> u64 {
        let turn = self.choices[kind].fetch_add(1, Ordering::Relaxed);
        let spread = u128::from(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        u64::try_from((spread * u128::from(most)) >> 64).unwrap_or(0)
    }

    fn backend<'t>(&self, backends: &'t [Target]) -> Option<&'t Target> {
        let sum: u64 = backends.iter().map(|backend| backend.weight).sum();
        let mut at = self.next(0, sum);
        backends.iter().find(|backend| match at.checked_sub(backend.weight) {
            Some(left) => {
                at = left;
                false
            }
            None => true,
        })
    }

    fn endpoint(&self, target: &Target) -> Option<SocketAddr> {
        let ready = target.endpoints.as_ref()?;
        let at = self.next(1, ready.len() as u64);
        ready.get(usize::try_from(at).unwrap_or(0)).copied()
    }
}

async fn serve(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, address, shared.clone()));
                }
                // Out of file descriptors: connections must end before new ones are taken.
                Err(_) => {
                    connections.join_next().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, address: SocketAddr, shared: Arc<Shared>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = tokio::time::timeout(IDLE, Head::read(&mut stream)).await?? {
        let mut body = vec![0; usize::try_from(request.length()?.unwrap_or(0)).unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        let close = request.closes(request.word(2));
        let (mut head, content) = answer(&request, &body, address, &shared).await;
        head.headers.retain(|(name, _)| !HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)));
        let connection = if close { "close" } else { "keep-alive" };
        head.headers.push(("Content-Length".to_owned(), content.len().to_string()));
        head.headers.push(("Connection".to_owned(), connection.to_owned()));
        let content = if request.word(0) == "HEAD" { &[] } else { content.as_slice() };
        stream.write_all(&message(&head, content)).await?;
        stream.flush().await?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}

fn message(head: &Head, body: &[u8]) -> Vec<u8> {
    let headers: String = head.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    [format!("{}\r\n{headers}\r\n", head.first).as_bytes(), body].concat()
}

fn own(status: &str, why: &str) -> (Head, Vec<u8>) {
    let headers = vec![("Content-Type".to_owned(), "text/plain".to_owned())];
    (Head { first: format!("HTTP/1.1 {status}"), headers }, format!("{why}\n").into_bytes())
}

/// Sends a request on and returns the answer.
async fn answer(request: &Head, body: &[u8], address: SocketAddr, shared: &Arc<Shared>) -> (Head, Vec<u8>) {
    let table = shared.table();
    let Some(rule) = table.rule(address, request) else { return own("404 Not Found", "no rule takes it") };
    for (copy, percent) in &rule.mirrors {
        let endpoint = (shared.next(2, 100) < *percent).then(|| shared.endpoint(copy)).flatten();
        if let Some(endpoint) = endpoint {
            let (request, body) = (request.clone(), body.to_owned());
            // What becomes of a copy is nobody's affair.
            tokio::spawn(async move { ask(endpoint, &request, &body).await.ok() });
        }
    }
    let Some(target) = shared.backend(&rule.backends) else {
        return own("500 Internal Server Error", "the rule has no backend with a weight");
    };
    let Some(endpoint) = shared.endpoint(target) else {
        let gone = target.endpoints.is_none();
        let status = if gone { "500 Internal Server Error" } else { "503 Service Unavailable" };
        return own(status, if gone { "the backend is not there" } else { "the backend has no ready endpoint" });
    };
    match ask(endpoint, request, body).await {
        Ok((mut head, content)) => {
            head.headers.extend(target.added.iter().cloned());
            (head, content)
        }
        Err(error) => own("502 Bad Gateway", &format!("{endpoint}: {error}")),
    }
}

/// Asks a pod, on a connection of the request's own.
async fn ask(endpoint: SocketAddr, request: &Head, body: &[u8]) -> io::Result<(Head, Vec<u8>)> {
    let mut request = request.clone();
    request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    request.headers.push(("Connection".to_owned(), "close".to_owned()));
    let mut stream = BufReader::new(TcpStream::connect(endpoint).await?);
    stream.write_all(&message(&request, body)).await?;
    stream.flush().await?;
    let head = Head::read(&mut stream).await?.ok_or_else(|| wrong("it closed the connection"))?;
    let length = head.length()?;
    let mut content = Vec::new();
    if request.word(0) != "HEAD" {
        stream.take(length.unwrap_or(LONGEST_BODY)).read_to_end(&mut content).await?;
        if length.is_some_and(|length| length != content.len() as u64) {
            return Err(wrong("it closed the connection in the middle"));
        }
    }
    Ok((head, content))
}
