//! The API server's audit log: of a real one, or the sandbox's, which has the same shape.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::Value;

/// A request as the API server saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it came in, and when it was answered.
    pub came: Timestamp,
    pub answered: Timestamp,
    /// `list`, `create`, …; `apply` for the patch that is a server-side apply.
    pub verb: String,
    /// `pods`, `deployments.apps`; for what is no resource its path.
    pub resource: String,
    /// "" where there is none.
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub agent: String,
    pub code: u16,
    pub dry_run: bool,
    /// What a write carried; null where none was written down.
    pub body: Value,
}

impl Request {
    fn read(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |path: &str| line.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A watch is told of twice, when it begins and when it ends.
        if text("/verb") == "watch" && text("/stage") == "ResponseComplete" {
            return None;
        }
        let uri = text("/requestURI");
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let asks = |what: &str| query.split('&').any(|pair| pair.starts_with(what));
        let (plural, group) = (text("/objectRef/resource"), text("/objectRef/apiGroup"));
        let body = line["requestObject"].clone();
        let in_body = |name: &str| body["metadata"][name].as_str().unwrap_or_default().to_owned();
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        // Only an apply is checked this strictly.
        let applies = text("/verb") == "patch" && asks("fieldValidation=");
        Some(Self {
            came: text("/requestReceivedTimestamp").parse().unwrap(),
            answered: text("/stageTimestamp").parse().unwrap(),
            verb: if applies { "apply".to_owned() } else { text("/verb") },
            resource: match (plural.as_str(), group.as_str()) {
                ("", _) => path.to_owned(),
                (_, "") => plural,
                _ => format!("{plural}.{group}"),
            },
            subresource: text("/objectRef/subresource"),
            namespace: text("/objectRef/namespace"),
            name: or(text("/objectRef/name"), in_body("name")),
            agent: text("/userAgent"),
            code: u16::try_from(line["responseStatus"]["code"].as_u64().unwrap_or_default()).unwrap(),
            dry_run: asks("dryRun=") || body["dryRun"].is_array(),
            body,
        })
    }

    /// Whether it is the controller's, and nobody else's.
    pub fn is_ours(&self) -> bool {
        self.agent.starts_with("locktender/")
    }

    /// Whether it changes anything, and was not refused.
    pub fn is_done(&self) -> bool {
        self.is_write() && (200..300).contains(&self.code) && !self.dry_run
    }

    /// Whether it is no question. What an account may do is asked by a request that looks like a write.
    pub fn is_write(&self) -> bool {
        let asks = matches!(self.verb.as_str(), "get" | "list" | "watch");
        !asks && !self.resource.contains("selfsubjectaccessreviews")
    }
}

/// The log from some place on.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    from: u64,
}

impl AuditLog {
    /// What will be added to a file from now on.
    pub fn from_here(path: PathBuf) -> Self {
        let from = std::fs::metadata(&path).map_or(0, |file| file.len());
        Self { path, from }
    }

    /// What was added until now, in the order in which requests came in.
    pub fn read(&self) -> Vec<Request> {
        self.clone().news()
    }

    /// What was added since the last call.
    pub fn news(&mut self) -> Vec<Request> {
        let text = lines(&self.path, self.from);
        self.from += text.len() as u64;
        let mut requests: Vec<Request> = text.lines().filter_map(Request::read).collect();
        requests.sort_by_key(|request| request.came);
        requests
    }
}

/// Whole lines only: another may be on its way.
fn lines(path: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.read_to_end(&mut text).unwrap();
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    String::from_utf8(text[..end].to_vec()).unwrap()
}
