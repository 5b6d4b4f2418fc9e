//! Sends requests: one place for time limits, the rate limit, counting, and what a failed connection is called.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use tokio::sync::Semaphore;

use super::{
    Settings,
    counts::{RequestCounts, Verb},
    pace::Pace,
    renew::Clients,
};
use crate::core::cluster::{Account, ClusterError};

/// More than this of one answer is refused.
const LARGEST_ANSWER: usize = 512 << 20;

/// In whose name a request is made.
const IMPERSONATE_USER: &str = "Impersonate-User";

/// More than this without a line's end is no watch event.
const LONGEST_LINE: usize = 16 << 20;

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) verb: Verb,
    /// `deployments.apps`, for counting.
    pub(super) resource: String,
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    /// Content type and content.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
}

impl Call {
    /// Builds a request that only reads.
    pub(super) fn reading(verb: Verb, resource: &str, target: String) -> Self {
        Self { verb, resource: resource.to_owned(), method: Method::GET, target, body: None }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// `Retry-After`, in seconds; a date there is not read.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

impl Reply {
    /// Returns whether the request was carried out.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What a watch was answered with.
pub(super) enum Opened {
    /// Events, a line each.
    Lines(Lines),
    /// Something else than 200.
    Refused(Reply),
}

/// The way to the API server.
pub(super) struct Transport {
    clients: Clients,
    pace: Option<Pace>,
    in_flight: Semaphore,
    pub(super) counts: Arc<RequestCounts>,
}

impl Transport {
    pub(super) fn new(clients: Clients, settings: &Settings) -> Self {
        Self {
            clients,
            pace: settings.rate.map(Pace::new),
            in_flight: Semaphore::new(settings.in_flight.clamp(1, Semaphore::MAX_PERMITS)),
            counts: Arc::default(),
        }
    }

    /// Sends a request and reads the whole answer, within `limit` from when it is its turn.
    pub(super) async fn call(&self, call: &Call, limit: Duration) -> Result<Reply, ClusterError> {
        self.call_as(None, call, limit).await
    }

    /// The same in an account's name.
    pub(super) async fn call_as(
        &self,
        account: Option<&Account>,
        call: &Call,
        limit: Duration,
    ) -> Result<Reply, ClusterError> {
        let reply = self.call_within(account, call, limit, LARGEST_ANSWER).await?;
        let too_large = || format!("{} {}: the answer is larger than {LARGEST_ANSWER} bytes", call.verb, call.resource);
        reply.ok_or_else(|| ClusterError::Unreachable(too_large()))
    }

    /// The same; `None` for an answer of more bytes than `largest`, the rest of which is not read.
    pub(super) async fn call_within(
        &self,
        account: Option<&Account>,
        call: &Call,
        limit: Duration,
        largest: usize,
    ) -> Result<Option<Reply>, ClusterError> {
        // The semaphore is never closed; without a permit the request goes all the same.
        let _permit = self.in_flight.acquire().await.ok();
        let answer = async {
            let response = self.send(call, account).await?;
            let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
            let body = match Limited::new(response.into_body(), largest).collect().await {
                Ok(body) => Some(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => None,
                Err(error) => return Err(unreachable(call, &*error)),
            };
            Ok((status, body.map(|body| Reply { status, retry_after, body })))
        };
        self.turn().await;
        let answer = within(limit, call, answer).await;
        self.answered(call, answer.as_ref().ok().map(|(status, _)| *status));
        Ok(answer?.1)
    }

    /// Opens a watch; `limit` is how long its first answer may take.
    pub(super) async fn open(&self, call: &Call, limit: Duration) -> Result<Opened, ClusterError> {
        self.turn().await;
        let response = within(limit, call, self.send(call, None)).await;
        self.answered(call, response.as_ref().ok().map(|response| response.status().as_u16()));
        let response = response?;
        let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
        if status == 200 {
            return Ok(Opened::Lines(Lines { body: response.into_body(), pending: BytesMut::new() }));
        }
        let body = within(limit, call, async {
            let body = Limited::new(response.into_body(), LONGEST_LINE).collect().await;
            Ok(body.map_err(|error| unreachable(call, &*error))?.to_bytes())
        });
        Ok(Opened::Refused(Reply { status, retry_after, body: body.await? }))
    }

    /// Notes an answer's status, or that there was none.
    fn answered(&self, call: &Call, status: Option<u16>) {
        self.counts.answered(call.verb, &call.resource, status);
        if matches!(status, None | Some(401)) {
            self.clients.doubt();
        }
    }

    async fn turn(&self) {
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
    }

    async fn send(&self, call: &Call, account: Option<&Account>) -> Result<Response<Body>, ClusterError> {
        self.counts.add(call.verb, &call.resource);
        let request = Request::builder()
            .method(call.method.clone())
            .uri(&call.target)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("locktender/", env!("CARGO_PKG_VERSION")));
        let request = match account {
            Some(account) => request.header(IMPERSONATE_USER, account.to_string()),
            None => request,
        };
        let request = match &call.body {
            Some((content_type, content)) => {
                request.header(header::CONTENT_TYPE, *content_type).body(Body::from(content.clone()))
            }
            None => request.body(Body::empty()),
        };
        let request = request.map_err(|error| ClusterError::Invalid(format!("`{}`: {error}", call.target)))?;
        self.clients.current().await.send(request).await.map_err(|error| unreachable(call, &error))
    }
}

/// The lines of a watch.
pub(super) struct Lines {
    body: Body,
    pending: BytesMut,
}

impl Lines {
    /// Returns the next whole line without its end; `None` when the server closed the watch. What is left of a line
    /// that was cut off is dropped. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.pending.split_to(searched + at + 1);
                line.truncate(searched + at);
                return Ok(Some(line.freeze()));
            }
            searched = self.pending.len();
            if searched > LONGEST_LINE {
                return Err("an event is too long".into());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(chain(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: &Call,
    answer: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => {
            Err(ClusterError::Unreachable(format!("{} {}: no answer within {limit:?}", call.verb, call.resource)))
        }
    }
}

fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn unreachable(call: &Call, error: &(dyn Error + 'static)) -> ClusterError {
    ClusterError::Unreachable(format!("{} {}: {}", call.verb, call.resource, chain(error)))
}

/// Joins an error and its causes, leaving out those that only repeat what was said.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
