//! What a controller answers over HTTP: whether it lives, whether it is ready, and its metrics. Reads only, no secrets,
//! no credentials asked for.

pub mod connections;
pub mod health;
pub mod metrics;
pub mod page;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use self::{
    connections::Limits,
    health::{Answer, Health},
    metrics::Metrics,
};

/// What is shown.
#[derive(Clone)]
pub struct Shown {
    /// Whether it lives and is ready.
    pub health: Arc<Health>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
}

/// A server that has its address, and answers once it is [run](Server::run).
pub struct Server {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Takes an address; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Answers, until `stop` is ready.
    pub async fn run(self, shown: Shown, stop: impl Future<Output = ()>) {
        let router = Router::new()
            .route("/healthz", get(async |State(shown): State<Shown>| told(shown.health.lives())))
            .route("/readyz", get(async |State(shown): State<Shown>| told(shown.health.ready())))
            .route("/metrics", get(async |State(shown): State<Shown>| scraped(shown.metrics.text())))
            .with_state(shown);
        connections::serve(self.listener, router, Limits::default(), stop).await;
    }
}

fn told(answer: Answer) -> impl IntoResponse {
    let status = if answer.good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", answer.why))
}

fn scraped(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
