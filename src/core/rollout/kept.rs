//! One object as the view keeps it: as text, and opened while somebody decides on it. JSON in memory takes some ten times
//! the room of its text, and of a large cluster's objects nearly all are at rest.

use std::sync::OnceLock;

use crate::core::{manifest::Object, rollout::labels};

/// An object of the view.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its UID.
    pub uid: Box<str>,
    /// Its resource version, as a number.
    pub version: u64,
    /// The application that it is labelled with.
    pub app: Option<Box<str>>,
    text: Box<[u8]>,
    open: OnceLock<Object>,
}

impl Kept {
    /// Keeps an object.
    pub fn new(object: &Object, version: u64) -> Self {
        Self {
            uid: object.uid().into(),
            version,
            app: object.label(labels::APP).map(Into::into),
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
