//! A server of metrics that asks who is there, over HTTP or HTTPS.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use rustls::ServerConfig;
use serde_json::json;

use super::tls::TlsListener;

/// What a server saw of every request: its path, and its header `Authorization`.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Lets in who sends this header `Authorization`, and tells everybody what they sent.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    seen: Seen,
    asks_for: Arc<Mutex<Option<String>>>,
    redirects_to: Arc<Mutex<Option<String>>>,
}

impl Server {
    pub async fn start(config: Option<Arc<ServerConfig>>) -> Self {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let server = Self { address, seen: Seen::default(), asks_for: Arc::default(), redirects_to: Arc::default() };
        let router = Router::new().fallback(answer).with_state(server.clone());
        match config {
            Some(config) => tokio::spawn(async move { axum::serve(TlsListener { tcp, config }, router).await }),
            None => tokio::spawn(async move { axum::serve(tcp, router).await }),
        };
        server
    }

    pub fn ask_for(&self, authorization: &str) {
        *self.asks_for.lock().unwrap() = Some(authorization.to_owned());
    }

    /// Sends everybody there from now on.
    pub fn redirect_to(&self, location: String) {
        *self.redirects_to.lock().unwrap() = Some(location);
    }

    /// Returns what was seen since it was asked last.
    pub fn seen(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn answer(State(server): State<Server>, request: Request<axum::body::Body>) -> Response {
    let sent = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    server.seen.lock().unwrap().push((request.uri().path().to_owned(), sent.clone()));
    if let Some(location) = server.redirects_to.lock().unwrap().clone() {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response();
    }
    let asks_for = server.asks_for.lock().unwrap().clone();
    let told = sent.clone().unwrap_or_default();
    if asks_for.is_some_and(|asked| sent != Some(asked)) {
        return (StatusCode::UNAUTHORIZED, format!("who is `{told}`?")).into_response();
    }
    if request.uri().path().contains("/api/v1/query") {
        let data = json!({ "resultType": "vector", "result": [{ "metric": {}, "value": [1.0, "0.5"] }] });
        return axum::Json(json!({ "status": "success", "data": data })).into_response();
    }
    axum::Json(json!({ "rate": 1.0, "told": told })).into_response()
}
