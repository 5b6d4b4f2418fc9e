//! Watching one kind: a list, then a watch from the list's resource version, for ever.
//!
//! # Flow
//!
//! ```text
//!          ┌─────────────── 410, too many failures, time to heal ──────────────┐
//!          ▼                                                                   │
//!       list ──ok──▶ Listed ──▶ watch ──event──▶ Applied | Deleted ──▶ watch ──┤
//!        │ ▲                     ▲  │                                          │
//!  fails ▼ │ after a while       │  └─ closed, silent, cut off: from where it was
//!       Lost (once)              └─────────────────────────────────────────────┘
//! ```
//!
//! # Guarantees
//!
//! A list is read whole before it is told, and from etcd (no `resourceVersion`), so it is never older than a write
//! that was answered before. A watch goes on from the last event or bookmark that was told; events may be told twice.
//!
//! # Assumptions
//!
//! A resource version of a list or bookmark stands for everything before it, of this kind.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{
    Shared, complete,
    counts::Verb,
    is_definition,
    refusal::Subject,
    requests::{Query, everywhere_path},
    transport::{Call, Lines, Opened},
};
use crate::core::{
    cluster::{ClusterError, ClusterEvent, Kind},
    manifest::Object,
};

/// A watch that cannot be opened this often in a row is lost.
const FAILURES_IN_A_ROW: u32 = 3;

/// A watch that stood for this long was a good one, even if it said nothing.
const STANDS: Duration = Duration::from_secs(5);

/// The task of one kind.
pub(super) struct Watcher {
    kind: Kind,
    shared: Arc<Shared>,
    events: mpsc::Sender<ClusterEvent>,
    definitions: broadcast::Receiver<String>,
    backoff: ExponentialBackoff,
    /// The last `Lost` that was told, until a `Listed` is.
    lost: Option<String>,
    /// How many objects a page of a list has.
    page: u32,
}

/// Why a watch is over.
enum Over {
    /// The list is too old, or due anew: nothing is wrong.
    Relist,
    /// It cannot be opened.
    Failed(ClusterError),
    /// Nobody takes events any more.
    Unheard,
}

/// One line of a watch.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    what: String,
    object: Value,
}

/// One page of a list.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    // `null` where a Go server has an empty list.
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    resource_version: String,
    r#continue: Option<String>,
}

impl Watcher {
    pub(super) fn new(kind: Kind, shared: Arc<Shared>, events: mpsc::Sender<ClusterEvent>) -> Self {
        let (definitions, backoff) = (shared.definitions.subscribe(), backoff(&shared));
        let page = shared.settings.page_size;
        Self { kind, shared, events, definitions, backoff, lost: None, page }
    }

    /// Lists and watches until nobody takes the events.
    pub(super) async fn run(mut self) {
        loop {
            let over = match self.list().await {
                Ok((objects, version)) => {
                    if self.lost.take().is_some() {
                        tracing::info!(kind = ?self.kind, "a kind is watched again");
                    }
                    let (kind, resource_version) = (self.kind.clone(), version.clone());
                    if self.tell(ClusterEvent::Listed { kind, objects, resource_version }).await {
                        self.follow(version).await
                    } else {
                        Over::Unheard
                    }
                }
                Err(error) => Over::Failed(error),
            };
            match over {
                Over::Relist => {}
                Over::Failed(error) => {
                    if !self.tell_lost(&error).await {
                        return;
                    }
                    self.rest(asked_wait(&error)).await;
                }
                Over::Unheard => return,
            }
        }
    }

    /// Reads all objects of the kind and the version that they are at.
    async fn list(&mut self) -> Result<(Vec<Object>, String), ClusterError> {
        // Definitions up to now are seen by this try.
        self.definitions = self.definitions.resubscribe();
        let resource = self.shared.resource(&self.kind).await?;
        let path = everywhere_path(&self.kind, &resource)?;
        let name = resource.name(&self.kind);
        let (mut objects, mut from): (Vec<Object>, Option<String>) = (Vec::new(), None);
        let mut limit = Some(self.page);
        loop {
            let mut query = Query::new();
            if let Some(limit) = limit {
                query.add("limit", &limit.to_string());
            }
            if let Some(from) = &from {
                query.add("continue", from);
            }
            let call = Call::reading(Verb::List, &name, format!("{path}{}", query.0));
            let (settings, transport) = (&self.shared.settings, &self.shared.transport);
            let reply = if limit.is_some_and(|limit| limit > 1) {
                transport.call_within(None, &call, settings.list_timeout, settings.page_bytes).await?
            } else {
                Some(transport.call(&call, settings.list_timeout).await?)
            };
            let Some(reply) = reply else {
                // Objects as large as these come a few at a time, from now on: another size of page is another list.
                self.page = (self.page / 4).max(1);
                (objects, from, limit) = (Vec::new(), None, Some(self.page));
                continue;
            };
            if reply.status == 410 && from.is_some() {
                // The list was too slow for the server's memory: once more, in one piece.
                (objects, from, limit) = (Vec::new(), None, None);
                continue;
            }
            if !reply.is_success() {
                return Err(self.shared.refused(&reply, &self.subject(format!("list {name}"))).await);
            }
            let page: Page = serde_json::from_slice(&reply.body)
                .map_err(|_| ClusterError::Unreachable(format!("list {name}: the answer is no list")))?;
            objects.extend(page.items.into_iter().flatten().map(|item| complete(Object(item), &self.kind)));
            match page.metadata.r#continue.filter(|from| !from.is_empty()) {
                Some(next) => from = Some(next),
                None => return Ok((objects, page.metadata.resource_version)),
            }
        }
    }

    /// Watches from `version` on, through closed connections, until there must be a new list.
    async fn follow(&mut self, mut version: String) -> Over {
        let listed = Instant::now();
        let heals_at = listed + self.relist_after();
        let mut failures = 0;
        while Instant::now() < heals_at {
            let before = version.clone();
            let opened = Instant::now();
            let over = tokio::select! {
                over = self.watch_once(&mut version) => over,
                () = tokio::time::sleep_until(heals_at) => return Over::Relist,
            };
            // An answer that never came also takes long.
            let stood = opened.elapsed() >= STANDS && !matches!(over, Some(Over::Failed(_)));
            if version != before || stood {
                failures = 0;
                self.backoff = backoff(&self.shared);
            } else {
                failures += 1;
            }
            match over {
                // A server that has no watch for a list it just made is not asked in a loop.
                Some(Over::Relist) if listed.elapsed() < STANDS => {
                    self.rest(Duration::ZERO).await;
                    return Over::Relist;
                }
                Some(Over::Failed(error)) if failures >= FAILURES_IN_A_ROW || !is_passing(&error) => {
                    return Over::Failed(error);
                }
                Some(Over::Failed(error)) => self.rest(asked_wait(&error)).await,
                Some(over) => return over,
                None if failures > 0 => self.rest(Duration::ZERO).await,
                None => {}
            }
        }
        Over::Relist
    }

    /// Opens one watch and tells its events until it ends; `None` when it was closed as watches are.
    async fn watch_once(&mut self, version: &mut String) -> Option<Over> {
        let mut lines = match self.open(version).await {
            Ok(Opened::Lines(lines)) => lines,
            Ok(Opened::Refused(reply)) if reply.status == 410 => return Some(Over::Relist),
            Ok(Opened::Refused(reply)) => {
                let subject = self.subject(format!("watch {:?}", self.kind));
                return Some(Over::Failed(self.shared.refused(&reply, &subject).await));
            }
            Err(error) => return Some(Over::Failed(error)),
        };
        loop {
            let line = match timeout(self.shared.settings.watch_silence, next_line(&mut lines)).await {
                Ok(Ok(Some(line))) => line,
                // Silent, closed, or broken off: what comes next is asked for anew.
                Ok(Ok(None)) | Err(_) => return None,
                Ok(Err(reason)) => {
                    return Some(Over::Failed(ClusterError::Unreachable(format!("watch {:?}: {reason}", self.kind))));
                }
            };
            if let Some(over) = self.take(line, version).await {
                return Some(over);
            }
        }
    }

    async fn open(&self, version: &str) -> Result<Opened, ClusterError> {
        let resource = self.shared.resource(&self.kind).await?;
        let settings = &self.shared.settings;
        let mut query = Query::new();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("resourceVersion", version);
        query.add("timeoutSeconds", &settings.watch_lasts.as_secs().max(1).to_string());
        let path = everywhere_path(&self.kind, &resource)?;
        let call = Call::reading(Verb::Watch, &resource.name(&self.kind), path + &query.0);
        self.shared.transport.open(&call, settings.request_timeout).await
    }

    /// Tells one event and notes where the watch is; returns why it is over, if it is.
    async fn take(&self, line: Line, version: &mut String) -> Option<Over> {
        if line.what == "ERROR" {
            let code = line.object["code"].as_u64().unwrap_or_default();
            let reason = line.object["reason"].as_str().unwrap_or("an error");
            let error = ClusterError::Unreachable(format!("watch {:?}: {reason}", self.kind));
            return Some(if code == 410 { Over::Relist } else { Over::Failed(error) });
        }
        let object = complete(Object(line.object), &self.kind);
        let seen = object.resource_version().to_owned();
        let event = match line.what.as_str() {
            "ADDED" | "MODIFIED" => ClusterEvent::Applied(object),
            "DELETED" => ClusterEvent::Deleted(object),
            // A bookmark, or what a later server may say.
            _ => {
                advance(version, seen);
                return None;
            }
        };
        if !self.tell(event).await {
            return Some(Over::Unheard);
        }
        advance(version, seen);
        None
    }

    /// Hands an event over; false when nobody takes it.
    async fn tell(&self, event: ClusterEvent) -> bool {
        if is_definition(&self.kind) {
            match &event {
                ClusterEvent::Applied(object) | ClusterEvent::Deleted(object) => {
                    self.shared.definition_changed(object).await;
                }
                ClusterEvent::Listed { objects, .. } => {
                    for object in objects {
                        self.shared.definition_changed(object).await;
                    }
                }
                ClusterEvent::Lost { .. } => {}
            }
        }
        self.events.send(event).await.is_ok()
    }

    /// Says once that the kind cannot be watched, and again when the reason is another; false when nobody hears it.
    async fn tell_lost(&mut self, error: &ClusterError) -> bool {
        let reason = error.to_string();
        if self.lost.as_ref() == Some(&reason) {
            return true;
        }
        tracing::warn!(kind = ?self.kind, reason, "a kind cannot be watched");
        self.lost = Some(reason.clone());
        self.tell(ClusterEvent::Lost { kind: self.kind.clone(), reason }).await
    }

    /// Waits before the next try: longer each time, at least as long as the server asked for, and no longer once the
    /// kind's group got a new definition.
    async fn rest(&mut self, at_least: Duration) {
        let wait = self.backoff.next().unwrap_or(self.shared.settings.backoff.1).max(at_least);
        let waited = sleep(wait);
        tokio::pin!(waited);
        loop {
            let defined = tokio::select! {
                () = &mut waited => return,
                defined = self.definitions.recv() => defined,
            };
            match defined {
                Ok(group) if group != self.kind.group => {}
                // The sender lives as long as `shared`; after a lag anything may have been defined.
                Ok(_) | Err(_) => {
                    self.backoff = backoff(&self.shared);
                    return;
                }
            }
        }
    }

    fn subject(&self, what: String) -> Subject {
        Subject { what, kind: self.kind.clone(), json_patch: false }
    }

    /// Returns the time to the next list, up to a tenth longer than set, so that kinds do not all come at once.
    fn relist_after(&self) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.kind.hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 100).unwrap_or_default();
        self.shared.settings.relist_every + self.shared.settings.relist_every / 1_000 * share
    }
}

fn backoff(shared: &Shared) -> ExponentialBackoff {
    let (first, longest) = shared.settings.backoff;
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Returns whether the next try may well do better.
fn is_passing(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Unreachable(_) | ClusterError::Busy { .. } | ClusterError::Conflict(_))
}

fn asked_wait(error: &ClusterError) -> Duration {
    match error {
        ClusterError::Busy { retry_after: Some(wait), .. } => *wait,
        _ => Duration::ZERO,
    }
}

/// Moves to a version that was seen; a bookmark without one moves nothing.
fn advance(version: &mut String, seen: String) {
    if !seen.is_empty() {
        *version = seen;
    }
}

/// Returns the next event; a line that cannot be read ends the watch.
async fn next_line(lines: &mut Lines) -> Result<Option<Line>, String> {
    loop {
        match lines.next().await? {
            None => return Ok(None),
            Some(line) if line.trim_ascii().is_empty() => {}
            Some(line) => {
                return serde_json::from_slice(&line).map(Some).map_err(|_| "an event cannot be read".into());
            }
        }
    }
}
