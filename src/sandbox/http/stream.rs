//! A watch as a body that grows: one JSON document a line.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response as HttpResponse,
};
use bytes::Bytes;
use futures::stream;
use tokio::{sync::watch, time::Instant};

use super::Backend;
use crate::sandbox::api::{Api, Frame, Watch};

/// How often a quiet watch is told where it stands.
const BOOKMARKS: Duration = Duration::from_secs(60);

struct State<B> {
    backend: Arc<B>,
    watch: Watch,
    stopping: watch::Receiver<bool>,
    /// When the client wants to stop listening.
    end: Option<Instant>,
    bookmark: Instant,
    over: bool,
    started: bool,
}

/// Returns the answer to a watch.
pub fn stream<B: Backend>(backend: Arc<B>, watch: Watch, stopping: watch::Receiver<bool>) -> HttpResponse {
    let now = Instant::now();
    let end = watch.timeout_seconds.map(|seconds| now + Duration::from_secs(seconds.min(86_400)));
    let state = State { backend, watch, stopping, end, bookmark: now + BOOKMARKS, over: false, started: false };
    let body = stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), state))
    });
    let mut response = HttpResponse::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

impl<B: Backend> State<B> {
    /// Returns the next lines; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.started {
            // The headers go out at once, whether or not there is anything to tell.
            self.started = true;
            return Some(lines(&self.backend.with_api(|api: &mut Api| api.poll(&mut self.watch))));
        }
        loop {
            if self.over || self.watch.is_over() || *self.stopping.borrow() {
                return None;
            }
            let frames = self.backend.with_api(|api: &mut Api| api.poll(&mut self.watch));
            if !frames.is_empty() {
                return Some(lines(&frames));
            }
            let end = self.end.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                () = self.backend.changed(self.watch.revision()) => {}
                // An error means that the server is gone.
                stopped = self.stopping.changed() => self.over |= stopped.is_err(),
                () = tokio::time::sleep_until(end) => {
                    self.over = true;
                    return self.bookmark();
                }
                () = tokio::time::sleep_until(self.bookmark) => {
                    self.bookmark = Instant::now() + BOOKMARKS;
                    if let Some(line) = self.bookmark() {
                        return Some(line);
                    }
                }
            }
        }
    }

    fn bookmark(&self) -> Option<Bytes> {
        if !self.watch.bookmarks {
            return None;
        }
        Some(lines(&[self.backend.with_api(|api: &mut Api| api.bookmark(&self.watch))]))
    }
}

fn lines(frames: &[Frame]) -> Bytes {
    frames.iter().fold(String::new(), |text, frame| text + &frame.to_string() + "\n").into()
}
