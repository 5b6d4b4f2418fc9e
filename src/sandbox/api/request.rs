//! What a request asks for and how it wants to be answered, and what an answer is.

use serde_json::{Value, json};

use super::{DeleteOptions, FieldValidation, Propagation, Status, WriteOptions};
use crate::{
    core::yaml,
    sandbox::schema::{self, protobuf},
};

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Without the query, decoded.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// "" where there is none.
    pub content_type: String,
    /// "" where there is none.
    pub accept: String,
    /// "" where there is none.
    pub user_agent: String,
    /// In whose name it is made: `Impersonate-User`; "" where there is none.
    pub impersonates: String,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// What is sent in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// JSON.
    Json(Value),
    /// Plain text.
    Text(&'static str),
    /// Anything else.
    Bytes(Vec<u8>),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// What is sent.
    pub body: Body,
    /// The body's media type.
    pub content_type: &'static str,
    /// For the header `Warning`.
    pub warnings: Vec<String>,
}

impl Response {
    /// Builds an answer in JSON.
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, body: Body::Json(body), content_type: "application/json", warnings: Vec::new() }
    }

    pub(super) fn text(body: &'static str) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status: 200, body: Body::Text(body), content_type, warnings: Vec::new() }
    }

    /// Returns the body where it is JSON; null where it is not.
    pub fn value(&self) -> &Value {
        match &self.body {
            Body::Json(value) => value,
            _ => &Value::Null,
        }
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self::json(status.code, status.to_value())
    }
}

/// How an object is to be written in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    Table,
    Metadata,
}

impl Request {
    /// Returns the first value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether a query parameter is set to true.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1" | ""))
    }

    /// Returns the form that the client likes best of those that there are.
    pub(super) fn form(&self) -> Result<Form, Status> {
        if self.accept.is_empty() {
            return Ok(Form::Object);
        }
        for wanted in self.accept.split(',') {
            let mut parts = wanted.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*")) {
                continue;
            }
            let parameters: Vec<&str> = parts.collect();
            match parameters.iter().find_map(|parameter| parameter.strip_prefix("as=")) {
                None => return Ok(Form::Object),
                Some("Table") if parameters.contains(&"v=v1") => return Ok(Form::Table),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Form::Metadata),
                Some(_) => {}
            }
        }
        Err(Status::not_acceptable())
    }

    pub(super) fn json_body(&self) -> Result<Value, Status> {
        const SPOKEN: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
        match self.content_type.split(';').next().unwrap_or_default().trim() {
            "" | "application/json" | "application/yaml" => self.any_body(),
            "application/vnd.kubernetes.protobuf" => self.protobuf_body(),
            other => Err(Status::unsupported_media_type(other, SPOKEN)),
        }
    }

    fn protobuf_body(&self) -> Result<Value, Status> {
        let broken = || Status::bad_request("the body of the request cannot be read as Protobuf");
        let envelope = protobuf::open(&self.body).ok_or_else(broken)?;
        // The kinds of questions and options are in no table of resources, but the schema has them.
        let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
        let types = schema::builtin();
        let options = || types.shape("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
        let shape = types
            .object(group, version, &envelope.kind)
            .or_else(|| (envelope.kind == "DeleteOptions").then(options).flatten())
            .ok_or_else(|| {
                let (kind, version) = (&envelope.kind, &envelope.api_version);
                Status::bad_request(format!("no kind {kind:?} is registered for version {version:?}"))
            })?;
        envelope.read(&shape).ok_or_else(broken)
    }

    pub(super) fn any_body(&self) -> Result<Value, Status> {
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return Ok(value);
        }
        let unrecognized = |why: &str| {
            Status::bad_request(format!("the object provided is unrecognized (must be of type JSON): {why}"))
        };
        let mut documents = yaml::parse("body", &self.body, &yaml::Limits::MANIFESTS)
            .map_err(|problem| unrecognized(&problem.message))?;
        match (documents.pop(), documents.is_empty()) {
            (Some(document), true) => Ok(document.into_value()),
            _ => Err(unrecognized("it is not one document")),
        }
    }

    pub(super) fn options(&self) -> Result<WriteOptions, Status> {
        let mut dry = self.query.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str());
        let dry_run = match dry.next() {
            None | Some("") => false,
            Some("All") => true,
            Some(other) => {
                let message = format!("Unsupported value: [{other:?}]: supported values: \"All\"");
                return Err(Status::wrong_option(self.options_kind(), "dryRun", "FieldValueNotSupported", message));
            }
        };
        let validation = match self.parameter("fieldValidation") {
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let message =
                    format!("Unsupported value: {other:?}: supported values: \"Ignore\", \"Warn\", \"Strict\"");
                let reason = "FieldValueNotSupported";
                return Err(Status::wrong_option(self.options_kind(), "fieldValidation", reason, message));
            }
        };
        let agent = self.user_agent.split('/').next().unwrap_or_default();
        let manager = match self.parameter("fieldManager") {
            Some(manager) if !manager.is_empty() => manager.to_owned(),
            _ if agent.is_empty() => "unknown".to_owned(),
            _ => agent.to_owned(),
        };
        Ok(WriteOptions { manager, dry_run, validation })
    }

    /// Returns what the options of such a request are called.
    pub(super) fn options_kind(&self) -> &'static str {
        match self.method.as_str() {
            "POST" => "CreateOptions",
            "PUT" => "UpdateOptions",
            "PATCH" => "PatchOptions",
            _ => "DeleteOptions",
        }
    }

    pub(super) fn delete_options(&self) -> Result<DeleteOptions, Status> {
        let body = if self.body.is_empty() { json!({}) } else { self.json_body()? };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let propagation = text(&body["propagationPolicy"]);
        let propagation = match propagation.as_deref().or_else(|| self.parameter("propagationPolicy")) {
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Background") => Some(Propagation::Background),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let message = format!(
                    "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                );
                let reason = "FieldValueNotSupported";
                return Err(Status::wrong_option("DeleteOptions", "propagationPolicy", reason, message));
            }
            None if body["orphanDependents"] == true => Some(Propagation::Orphan),
            None if body["orphanDependents"] == false => Some(Propagation::Background),
            None => None,
        };
        let grace = self.parameter("gracePeriodSeconds").and_then(|text| text.parse().ok());
        let in_body = body["dryRun"].as_array().is_some_and(|dry| dry.iter().any(|value| value == "All"));
        Ok(DeleteOptions {
            propagation,
            grace_period_seconds: body["gracePeriodSeconds"].as_i64().or(grace),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: in_body || self.options()?.dry_run,
        })
    }
}
