//! One object as the view keeps it: as text, and opened while somebody decides on it. JSON in memory takes some ten times
//! the room of its text, and of a large cluster's objects nearly all are at rest.

use std::sync::OnceLock;

use crate::core::{
    manifest::Object,
    names::{Digest, RolloutId},
    rollout::labels,
};

/// The record that an object names as the one under which it was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedRecord {
    /// The number of its rollout.
    pub number: u32,
    /// Its id.
    pub id: Digest,
}

impl NamedRecord {
    /// Reads what an object names; `None` where that is no record of the application that it belongs to: one that was handed
    /// over goes on naming a record of the other until it is written again.
    fn of(object: &Object, app: &str) -> Option<Self> {
        let text = object.at(&["metadata", "annotations", labels::RECORD])?.as_str()?;
        let (rollout, id) = text.split_once(' ')?;
        let rollout = RolloutId::parse(rollout).filter(|rollout| rollout.app.as_str() == app)?;
        Some(Self { number: rollout.number, id: Digest::parse(id).ok()? })
    }

    /// Writes it as an object's annotation says it.
    pub fn text(rollout: &RolloutId, id: &Digest) -> String {
        format!("{rollout} {id}")
    }
}

/// Returns the state that an object was in when it was put back, `Kind/name@state`; `None` where it says nothing, or was
/// put back for another application.
fn put_back(object: &Object, app: &str) -> Option<Box<str>> {
    let text = object.at(&["metadata", "annotations", labels::PUT_BACK])?.as_str()?;
    let (rollout, seen) = text.split_once(' ')?;
    RolloutId::parse(rollout).filter(|rollout| rollout.app.as_str() == app).map(|_| seen.into())
}

/// An object of the view.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its UID.
    pub uid: Box<str>,
    /// Its resource version, as a number.
    pub version: u64,
    /// The application that it is labelled with.
    pub app: Option<Box<str>>,
    /// The record that it names.
    pub named: Option<Box<NamedRecord>>,
    /// The state that it was in when it was put back last.
    pub put_back: Option<Box<str>>,
    text: Box<[u8]>,
    open: OnceLock<Object>,
}

impl Kept {
    /// Keeps an object.
    pub fn new(object: &Object, version: u64) -> Self {
        let app = object.label(labels::APP);
        Self {
            uid: object.uid().into(),
            version,
            app: app.map(Into::into),
            named: app.and_then(|app| NamedRecord::of(object, app)).map(Box::new),
            put_back: app.and_then(|app| put_back(object, app)),
            // JSON is written whatever it is.
            text: serde_json::to_vec(&object.0).unwrap_or_default().into_boxed_slice(),
            open: OnceLock::new(),
        }
    }

    /// Returns the object, and keeps it open.
    pub fn object(&self) -> &Object {
        self.open.get_or_init(|| Object(serde_json::from_slice(&self.text).unwrap_or_default()))
    }

    /// Forgets all but the text.
    pub fn close(&mut self) {
        self.open = OnceLock::new();
    }
}
