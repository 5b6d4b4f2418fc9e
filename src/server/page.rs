//! Pages of numbers, each by its name: what analyses ask of whoever counts.

use std::{io, sync::Arc};

use axum::{Json, Router, extract::Path, routing::get};
use serde_json::Value;
use tokio::net::TcpListener;

/// Answers `/{name}` with what `page` tells of the name, as JSON, until it is dropped.
///
/// # Errors
///
/// The listener fails.
pub async fn serve(listener: TcpListener, page: impl Fn(&str) -> Value + Send + Sync + 'static) -> io::Result<()> {
    let page = Arc::new(page);
    let answer = async move |Path(name): Path<String>| Json(page(&name));
    axum::serve(listener, Router::new().route("/{name}", get(answer))).await
}
