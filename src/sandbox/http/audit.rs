//! The audit log: a file to which every request is added while it is answered, one JSON document a line.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;
use tracing::warn;

/// A file that grows. The lines are in the order in which requests were carried out.
#[derive(Debug)]
pub struct AuditLog {
    file: Mutex<File>,
}

impl AuditLog {
    /// Opens a file, and makes it where there is none.
    ///
    /// # Errors
    ///
    /// Where it cannot be written to.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Adds a line at once. One that cannot be written is lost: nobody is refused for it.
    pub(super) fn write(&self, line: &Value) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
            warn!(%error, "cannot write to the audit log");
        }
    }
}
