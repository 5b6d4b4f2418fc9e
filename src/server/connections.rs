//! Connections of anybody: how many there are at once, and how long each may take, whatever it sends.

use std::{collections::VecDeque, future::Future, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one is there at most: for its request, and for the answer to be read. Each is for one request.
    pub within: Duration,
    /// How many there are at once. One more takes the place of the oldest, so that a probe is answered however many
    /// others send nothing.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { within: Duration::from_secs(10), at_once: 64 }
    }
}

/// How much is kept of what a connection has sent: the head of no request to us is longer.
const LONGEST_HEAD: usize = 16 << 10;

/// Answers by `router` until `stop` is ready, and lets what is under way end.
pub(super) async fn serve(mut listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(LONGEST_HEAD);
    let mut under_way = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _) = tokio::select! {
            () = &mut stop => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        while under_way.try_join_next().is_some() {}
        by_age.retain(|connection| !connection.is_finished());
        if by_age.len() >= limits.at_once
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        by_age.push_back(under_way.spawn(async move {
            // What strangers do on their connections is nothing to report.
            let _ = timeout(limits.within, connection).await;
        }));
    }
    while under_way.join_next().await.is_some() {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    /// A busy machine may take its time.
    const PATIENCE: Duration = Duration::from_secs(120);
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n";

    async fn start(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/healthz", get(async || "ok\n"));
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, router, limits, async { drop(stopped.await) }));
        (address, stop, served)
    }

    /// Everything that comes until the connection is closed, however it is.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut told = Vec::new();
        let read = async {
            let mut some = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut some).await {
                told.extend_from_slice(&some[..count]);
            }
        };
        timeout(PATIENCE, read).await.expect("it is never closed");
        String::from_utf8(told).unwrap()
    }

    async fn probe(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        rest(&mut stream).await
    }

    #[tokio::test]
    async fn a_request_is_answered_and_its_connection_closed() {
        let (address, stop, served) = start(Limits { within: PATIENCE * 2, ..Limits::default() }).await;
        let told = probe(address).await;
        assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.ends_with("ok\n"), "{told}");
        drop(stop);
        timeout(PATIENCE, served).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn fault_84_a_connection_that_sends_its_head_a_byte_at_a_time_is_closed() {
        let (address, _stop, _served) = start(Limits { within: Duration::from_millis(500), ..Limits::default() }).await;
        let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
        let dribbles = tokio::spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(20));
            // Never an end of the line, let alone of the head.
            for byte in b"GET /healthz HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
                every.tick().await;
                if to.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        let mut told = Vec::new();
        let closed = timeout(PATIENCE, from.read_to_end(&mut told)).await;
        assert!(closed.is_ok() && told.is_empty(), "{closed:?}: {told:?}");
        timeout(PATIENCE, dribbles).await.expect("what is sent after that goes nowhere").unwrap();
    }

    #[tokio::test]
    async fn fault_84_a_head_without_an_end_is_refused_and_not_kept() {
        let (address, _stop, _served) = start(Limits { within: PATIENCE * 2, ..Limits::default() }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.unwrap();
        let line = [b'x'; 1024];
        let sent = async { while stream.write_all(&line).await.is_ok() {} };
        timeout(PATIENCE, sent).await.expect("it takes any head");
    }

    #[tokio::test]
    async fn fault_84_probes_are_answered_however_many_connections_send_nothing() {
        let limits = Limits { within: PATIENCE * 2, at_once: 4 };
        let (address, _stop, _served) = start(limits).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(probe(address).await.ends_with("ok\n"));
        for oldest in &mut silent[..16] {
            assert_eq!(rest(oldest).await, "", "it made room for another");
        }
    }
}
