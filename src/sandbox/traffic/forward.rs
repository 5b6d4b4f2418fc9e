//! A way to a Service: connections, each to a ready endpoint.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::endpoints;
use crate::sandbox::http::Backend;

/// An address that leads to a Service, as its cluster address does elsewhere: every new connection goes to the next
/// ready endpoint, and stays there as long as it lives. Closed when it is dropped, with its connections.
#[derive(Debug)]
pub struct Forward {
    /// Where to connect to.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forward {
    /// Opens a way to a Service's port. A Service that is not there yet has no endpoints.
    pub(in crate::sandbox) async fn open<B: Backend>(
        cluster: Arc<B>,
        namespace: &str,
        service: &str,
        port: u16,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (namespace, service) = (namespace.to_owned(), service.to_owned());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for turn in 0_usize.. {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of file descriptors: connections must end before new ones are taken.
                    connections.join_next().await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let ready = cluster.with_api(|api| endpoints(api, &namespace, &service, port.into()));
                let ready = ready.unwrap_or_default();
                // Without an endpoint the connection is closed, as a packet filter would refuse it.
                if let Some(endpoint) = ready.get(turn % ready.len().max(1)).copied() {
                    connections.spawn(relay(stream, endpoint));
                }
            }
        });
        Ok(Self { address, task })
    }
}

async fn relay(mut stream: TcpStream, endpoint: SocketAddr) {
    let Ok(mut pod) = TcpStream::connect(endpoint).await else { return };
    // Either side may end it whenever it likes.
    let _ = copy_bidirectional(&mut stream, &mut pod).await;
}
