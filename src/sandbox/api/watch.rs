//! Watches: what happened since a revision, as one client wants to hear it.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};

use super::{
    Api, EventKind, Request, Status, WatchEvent,
    handle::{outgoing, partial},
    query::Selection,
    request::Form,
    resources::Resource,
    tables,
};

/// One line of a watch: `{"type": …, "object": …}`.
pub type Frame = Value;

/// A watch that is open. [`Api::poll`] says what is new.
#[derive(Clone, Debug)]
pub struct Watch {
    resource: Arc<Resource>,
    selection: Selection,
    form: Form,
    include_object: Option<String>,
    /// Whether the client understands bookmarks.
    pub bookmarks: bool,
    /// How long the client wants to listen.
    pub timeout_seconds: Option<u64>,
    revision: u64,
    first: VecDeque<Frame>,
    ended: bool,
}

impl Watch {
    /// Returns whether nothing will ever come: the client was told why.
    pub fn is_over(&self) -> bool {
        self.ended && self.first.is_empty()
    }

    /// Returns the revision up to which everything was told.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Api {
    /// Opens a watch, where the request asks for one; `None` where it does not.
    ///
    /// # Errors
    ///
    /// What is wrong with the request. A revision that is gone is told by the first frame instead, as the real
    /// server does.
    pub fn open_watch(&self, request: &Request) -> Result<Option<Watch>, Status> {
        if request.method != "GET" {
            return Ok(None);
        }
        let path = request.path.trim_end_matches('/');
        // The old way to write it: /api/v1/watch/pods.
        let old = ["/api/v1/watch/", "/watch/"].iter().find_map(|infix| path.find(infix).map(|at| (at, infix.len())));
        let (path, is_old) = match old {
            Some((at, length)) if path.starts_with("/api") => {
                let keep = if path[at..].starts_with("/api/v1") { at + "/api/v1".len() } else { at };
                (format!("{}/{}", &path[..keep], &path[at + length..]), true)
            }
            _ => (path.to_owned(), false),
        };
        if !is_old && !request.flag("watch") {
            return Ok(None);
        }
        let Some(target) = self.target(&path) else { return Ok(None) };
        if target.subresource.is_some() {
            return Err(Status::method_not_allowed());
        }
        let asked = self.revision_of(request)?;
        let initial = request.parameter("sendInitialEvents").map(|_| request.flag("sendInitialEvents"));
        if initial.is_some() && request.parameter("resourceVersionMatch") != Some("NotOlderThan") {
            return Err(Status::new(
                422,
                "Invalid",
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires \
                 setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let mut watch = Watch {
            selection: Selection::of(request, &target)?,
            form: request.form()?,
            include_object: request.parameter("includeObject").map(str::to_owned),
            bookmarks: request.flag("allowWatchBookmarks"),
            timeout_seconds: request.parameter("timeoutSeconds").and_then(|text| text.parse().ok()),
            revision: asked.unwrap_or_else(|| self.revision()),
            resource: target.resource,
            first: VecDeque::new(),
            ended: false,
        };
        if initial.unwrap_or(asked.is_none()) {
            watch.revision = self.revision();
            let found: Vec<_> = self
                .store
                .list(&watch.resource.key)
                .filter(|object| watch.selection.matches(object))
                .cloned()
                .collect();
            for object in found {
                let frame = self.frame("ADDED", &object, &watch);
                watch.first.push_back(frame);
            }
            if initial == Some(true) && watch.bookmarks {
                let mut bookmark = self.bookmark(&watch);
                bookmark["object"]["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                watch.first.push_back(bookmark);
            }
        }
        Ok(Some(watch))
    }

    /// Returns what is new, and moves the watch past it.
    pub fn poll(&self, watch: &mut Watch) -> Vec<Frame> {
        let mut frames: Vec<Frame> = watch.first.drain(..).collect();
        if watch.ended || watch.revision >= self.revision() {
            return frames;
        }
        match self.store.since(watch.revision) {
            Ok(events) => {
                for event in events.filter(|event| event.resource == watch.resource.key) {
                    frames.extend(self.told(event, watch));
                }
                watch.revision = self.revision();
            }
            Err(gone) => {
                watch.ended = true;
                frames.push(json!({"type": "ERROR", "object": gone.to_value()}));
            }
        }
        frames
    }

    /// Returns a frame that says up to where everything was told.
    pub fn bookmark(&self, watch: &Watch) -> Frame {
        let metadata = json!({"resourceVersion": watch.revision.to_string()});
        let resource = &watch.resource;
        let object = match watch.form {
            Form::Table => tables::table(resource, &[], metadata, self.now, None),
            Form::Metadata => partial(&json!({"metadata": metadata})),
            Form::Object => {
                json!({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata})
            }
        };
        json!({"type": "BOOKMARK", "object": object})
    }

    /// An object that comes to be selected is added, one that ceases to be is deleted.
    fn told(&self, event: &WatchEvent, watch: &Watch) -> Option<Frame> {
        let was = event.previous.as_ref().is_some_and(|previous| watch.selection.matches(previous));
        let is = event.kind != EventKind::Deleted && watch.selection.matches(&event.object);
        let word = match (was, is) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
            (false, false) => return None,
        };
        if word == "DELETED" && event.kind != EventKind::Deleted {
            // As it was when it was last selected, with the revision of the change.
            let mut last = event.previous.as_ref().map(|previous| Value::clone(previous))?;
            last["metadata"]["resourceVersion"] = event.revision.to_string().into();
            return Some(self.frame(word, &Arc::new(last), watch));
        }
        Some(self.frame(word, &event.object, watch))
    }

    fn frame(&self, word: &str, object: &Arc<Value>, watch: &Watch) -> Frame {
        let object = match watch.form {
            Form::Object => outgoing(object, &watch.resource, false),
            Form::Metadata => partial(object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let include = watch.include_object.as_deref();
                tables::table(&watch.resource, std::slice::from_ref(object), metadata, self.now, include)
            }
        };
        json!({"type": word, "object": object})
    }
}
