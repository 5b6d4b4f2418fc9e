//! People with requests: on connections of their own, and on such that are kept.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use locktender::sandbox::message::{Head, wrong};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};

/// An answer.
pub struct Reply {
    pub status: u16,
    pub head: Head,
    pub body: String,
}

impl Reply {
    /// The version that answered.
    pub fn version(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["version"].as_str().unwrap_or("none").to_owned()
    }
}

/// A connection that is kept.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> io::Result<Reply> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example.com\r\n{headers}\r\n");
        self.0.write_all(request.as_bytes()).await?;
        self.0.flush().await?;
        let head = Head::read(&mut self.0).await?.ok_or_else(|| wrong("no answer"))?;
        let mut body = vec![0; usize::try_from(head.length()?.ok_or_else(|| wrong("no length"))?).unwrap()];
        self.0.read_exact(&mut body).await?;
        let status = head.word(1).parse().map_err(|_| wrong("no status"))?;
        Ok(Reply { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Asks on a connection of its own.
pub async fn ask(address: SocketAddr, headers: &[(&str, &str)]) -> io::Result<Reply> {
    let headers = [headers, &[("Connection", "close")]].concat();
    Connection::open(address).await?.get("/", &headers).await
}

/// Who answered, and what went wrong.
#[derive(Debug, Default)]
pub struct Seen {
    pub versions: BTreeMap<String, usize>,
    pub failed: Vec<String>,
}

impl Seen {
    fn note(&mut self, reply: io::Result<Reply>) {
        match reply {
            Ok(reply) if reply.status == 200 => *self.versions.entry(reply.version()).or_default() += 1,
            Ok(reply) => self.failed.push(format!("{}: {}", reply.head.first, reply.body.trim())),
            Err(error) => self.failed.push(error.to_string()),
        }
    }

    pub fn of(&self, version: &str) -> usize {
        self.versions.get(version).copied().unwrap_or(0)
    }
}

/// Counts who answers so many requests, each on a connection of its own.
pub async fn count(address: SocketAddr, requests: usize, headers: &[(&str, &str)]) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..requests {
        seen.note(ask(address, headers).await);
    }
    assert_eq!(seen.failed, Vec::<String>::new());
    seen
}

/// A load that goes on until it is stopped: each worker asks again once it was answered.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<Seen>,
}

/// More requests than this no worker sends, whatever happens.
const MOST: usize = 100_000;

impl Load {
    /// Starts workers on fresh connections, and on kept ones.
    pub fn start(address: SocketAddr, fresh: usize, kept: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for worker in 0..fresh + kept {
            let stop = stop.clone();
            workers.spawn(async move {
                let mut seen = Seen::default();
                let mut connection = None;
                for _ in 0..MOST {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if worker < fresh {
                        seen.note(ask(address, &[]).await);
                    } else {
                        connection = keep_on(connection, address, &mut seen).await;
                    }
                    // The machine has two cores, and others on them.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                seen
            });
        }
        Self { stop, workers }
    }

    /// Stops and returns what was seen.
    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        while let Some(seen) = self.workers.join_next().await {
            let seen = seen.unwrap();
            all.failed.extend(seen.failed);
            for (version, count) in seen.versions {
                *all.versions.entry(version).or_default() += count;
            }
        }
        all
    }
}

/// Asks on a kept connection, on a new one where the last answer said that it ends.
async fn keep_on(connection: Option<Connection>, address: SocketAddr, seen: &mut Seen) -> Option<Connection> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => match Connection::open(address).await {
            Ok(connection) => connection,
            Err(error) => {
                seen.note(Err(error));
                return None;
            }
        },
    };
    let reply = connection.get("/", &[]).await;
    let ends = reply.as_ref().map_or(true, |reply| reply.head.closes(""));
    seen.note(reply);
    (!ends).then_some(connection)
}
