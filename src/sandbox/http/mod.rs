//! Serves an [`Api`] over HTTP on loopback, to a real `kubectl` and to the `kube` client.
//!
//! Everything that a request means is in [`Api::handle`]; here are only bytes, the token and the waiting of watches.
//!
//! `kubectl` sends no credentials over plain HTTP, whatever its kubeconfig says (client-go's `IsConfigTransportTLS`).
//! So the token may also be the first segment of the path, and the kubeconfig's server address has it there.

mod audit;
mod backend;
mod stream;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::Response as HttpResponse,
};
use bytes::Bytes;
use tokio::{net::TcpListener, sync::watch};

pub use self::{
    audit::AuditLog,
    backend::{Backend, Shared},
};
use super::api::{Api, Body, Request, Response, Status};

/// Longest body of a request, in bytes, as the real server has it.
const LONGEST_BODY: usize = 3 * 1024 * 1024;

/// What every request needs.
struct Server<B> {
    backend: Arc<B>,
    token: String,
    audit: Option<Arc<AuditLog>>,
    /// True when the server is to stop: open watches end then.
    stopping: watch::Receiver<bool>,
}

impl<B> Clone for Server<B> {
    fn clone(&self) -> Self {
        Self {
            backend: self.backend.clone(),
            token: self.token.clone(),
            audit: self.audit.clone(),
            stopping: self.stopping.clone(),
        }
    }
}

/// Serves `backend` on `listener` until `stop` returns. Clients must send `token`. Every request of theirs goes to
/// `audit`.
///
/// # Errors
///
/// Where the listener fails.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    token: String,
    audit: Option<AuditLog>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopped, stopping) = watch::channel(false);
    let router = router(Server { backend, token, audit: audit.map(Arc::new), stopping });
    let stop = async move {
        stop.await;
        // Nobody listens when no watch is open.
        let _ = stopped.send(true);
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

/// Returns the address of a listener as a URL.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn router<B: Backend>(server: Server<B>) -> Router {
    Router::new().fallback(answer::<B>).layer(DefaultBodyLimit::max(LONGEST_BODY)).with_state(server)
}

async fn answer<B: Backend>(
    State(server): State<Server<B>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> HttpResponse {
    let Ok(body) = body else {
        let status = Status::new(413, "RequestEntityTooLarge", format!("limit is {LONGEST_BODY}"));
        return finished(status.into());
    };
    let mut request = read(&method, &uri, &headers, &body);
    let by_path = without_token(&request.path, &server.token).map(str::to_owned);
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default();
    if by_path.is_none() && !is_public(&request.path) && !is_same(bearer, &server.token) {
        return finished(Status::new(401, "Unauthorized", "Unauthorized").into());
    }
    let prefix = by_path.map(|path| {
        request.path = path;
        format!("/{}", server.token)
    });
    // A watch is opened and a request answered in one go: nothing is written in between.
    let opened = server.backend.with_api(|api: &mut Api| {
        let opened = match api.open_watch(&request) {
            Ok(Some(watch)) => Ok(watch),
            Ok(None) => Err(api.handle(&request)),
            Err(status) => Err(Response::from(status)),
        };
        if let Some(audit) = &server.audit {
            let code = opened.as_ref().err().map_or(200, |response| response.status);
            audit.write(&api.audited(&request, code));
        }
        opened
    });
    match opened {
        Ok(watch) => stream::stream(server.backend, watch, server.stopping),
        Err(mut response) => {
            if let (Some(prefix), "/openapi/v3") = (prefix, request.path.as_str()) {
                prefix_links(&mut response, &prefix);
            }
            finished(response)
        }
    }
}

/// Links between documents are absolute paths, so they have to have the token, too.
fn prefix_links(response: &mut Response, prefix: &str) {
    let Body::Json(body) = &mut response.body else { return };
    for (_, link) in body["paths"].as_object_mut().into_iter().flatten() {
        if let Some(url) = link["serverRelativeURL"].as_str() {
            link["serverRelativeURL"] = format!("{prefix}{url}").into();
        }
    }
}

fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz" | "/version")
}

/// Returns the rest of a path that starts with the token.
fn without_token<'a>(path: &'a str, token: &str) -> Option<&'a str> {
    let first = path.strip_prefix('/')?.split('/').next()?;
    is_same(first, token).then(|| &path[1 + first.len()..])
}

/// Compares in full, so that the time taken tells nothing.
fn is_same(sent: &str, token: &str) -> bool {
    sent.len() == token.len() && sent.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Request {
    let header = |name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    Request {
        method: method.as_str().to_owned(),
        path: decoded(uri.path(), false),
        query: uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(pair).collect(),
        content_type: header(header::CONTENT_TYPE),
        accept: header(header::ACCEPT),
        user_agent: header(header::USER_AGENT),
        impersonates: header(header::HeaderName::from_static("impersonate-user")),
        body: body.to_vec(),
    }
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (decoded(name, true), decoded(value, true))
}

/// Undoes percent encoding; in a query `+` is a space.
fn decoded(text: &str, query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' if query => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                let digits = ahead.next().zip(ahead.next()).map(|(high, low)| [high, low]);
                let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok());
                match value {
                    Some(value) => {
                        bytes.push(value);
                        rest = ahead;
                    }
                    None => bytes.push(byte),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn finished(response: Response) -> HttpResponse {
    let retry_after = response.value()["details"]["retryAfterSeconds"].as_u64();
    let mut made = HttpResponse::new(match response.body {
        Body::Json(value) => value.to_string().into(),
        Body::Text(text) => text.into(),
        Body::Bytes(bytes) => bytes.into(),
    });
    *made.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = made.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(response.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    for warning in &response.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(decoded("a%20b+c%3D%zz%", true), "a b c=%zz%");
        assert_eq!(decoded("a+b", false), "a+b");
    }
}
