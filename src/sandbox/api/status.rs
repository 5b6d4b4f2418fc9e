//! `Status`: what the API server answers when it does not answer with an object, in Kubernetes' own words.

use serde_json::{Map, Value, json};

/// An answer that is not an object; mostly a refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// `NotFound`, `Conflict`, … as in `metav1.StatusReason`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Box<Details>,
}

/// What an answer is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Group of the resource.
    pub group: String,
    /// Resource, or kind.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// What in particular is wrong.
    pub causes: Vec<Cause>,
    /// After how many seconds to try again.
    pub retry_after: Option<u32>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldManagerConflict`, …
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `spec.replicas`; may be empty.
    pub field: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Status {}

/// Which resource an answer is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// `apps`; "" for the core group.
    pub group: &'a str,
    /// `deployments`.
    pub plural: &'a str,
    /// `Deployment`.
    pub kind: &'a str,
    /// The object's name.
    pub name: &'a str,
}

impl About<'_> {
    fn qualified(&self, word: &str) -> String {
        if self.group.is_empty() { word.to_owned() } else { format!("{word}.{}", self.group) }
    }

    fn status(&self, code: u16, reason: &'static str, message: String) -> Status {
        let details = Details {
            group: self.group.to_owned(),
            kind: self.plural.to_owned(),
            name: self.name.to_owned(),
            ..Details::default()
        };
        Status { details: Box::new(details), ..Status::new(code, reason, message) }
    }

    /// 404 of an object.
    pub fn not_found(&self) -> Status {
        self.status(404, "NotFound", format!("{} \"{}\" not found", self.qualified(self.plural), self.name))
    }

    /// 409 of a creation.
    pub fn already_exists(&self) -> Status {
        self.status(409, "AlreadyExists", format!("{} \"{}\" already exists", self.qualified(self.plural), self.name))
    }

    /// 409 of a creation while the object of that name is being deleted.
    pub fn being_deleted(&self) -> Status {
        let mut status = self.already_exists();
        status.message = format!("object is being deleted: {}", status.message);
        status
    }

    /// 409 of a write.
    pub fn conflict(&self, why: &str) -> Status {
        let what = self.qualified(self.plural);
        self.status(409, "Conflict", format!("Operation cannot be fulfilled on {what} \"{}\": {why}", self.name))
    }

    /// 409 because the resource version is not the newest.
    pub fn modified(&self) -> Status {
        self.conflict("the object has been modified; please apply your changes to the latest version and try again")
    }

    /// 403.
    pub fn forbidden(&self, why: &str) -> Status {
        let what = self.qualified(self.plural);
        let named = if self.name.is_empty() { String::new() } else { format!(" \"{}\"", self.name) };
        self.status(403, "Forbidden", format!("{what}{named} is forbidden: {why}"))
    }

    /// 422: what may not change was to change.
    pub fn immutable(&self, field: &str, value: &str) -> Status {
        let message = format!("Invalid value: {value:?}: field is immutable");
        self.invalid(vec![Cause { reason: "FieldValueInvalid", message, field: field.to_owned() }])
    }

    /// 422 with everything that is wrong.
    pub fn invalid(&self, causes: Vec<Cause>) -> Status {
        let texts: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{}\" is invalid: {list}", self.qualified(self.kind), self.name);
        let mut status = self.status(422, "Invalid", message);
        status.details.kind = self.kind.to_owned();
        status.details.causes = causes;
        status
    }
}

impl Status {
    /// Builds an answer that is about nothing in particular.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Box::default() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422 of a request's own options, `kind` like `DeleteOptions`.
    pub fn wrong_option(kind: &str, field: &str, reason: &'static str, message: String) -> Self {
        let about = About { group: "meta.k8s.io", plural: "", kind, name: "" };
        about.invalid(vec![Cause { reason, message, field: field.to_owned() }])
    }

    /// 404 of a path.
    pub fn no_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 406.
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(406, "NotAcceptable", message)
    }

    /// 410: what was asked for has been compacted away.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 415.
    pub fn unsupported_media_type(found: &str, supported: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {supported} (found {found})"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// Returns it as the API server writes it.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if self.code < 400 { "Success" } else { "Failure" },
            "code": self.code,
        });
        if !self.message.is_empty() {
            status["message"] = self.message.clone().into();
        }
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        let (about, mut details) = (&self.details, Map::new());
        for (name, text) in [("name", &about.name), ("group", &about.group), ("kind", &about.kind)] {
            if !text.is_empty() {
                details.insert(name.to_owned(), text.clone().into());
            }
        }
        if !about.causes.is_empty() {
            let causes = about.causes.iter().map(|cause| {
                let mut made = json!({"reason": cause.reason, "message": cause.message});
                if !cause.field.is_empty() {
                    made["field"] = cause.field.clone().into();
                }
                made
            });
            details.insert("causes".to_owned(), causes.collect());
        }
        if let Some(seconds) = about.retry_after {
            details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        if !details.is_empty() {
            status["details"] = details.into();
        }
        status
    }
}
