//! What an answer of the API server other than 2xx means.

use std::time::Duration;

use serde::Deserialize;

use super::transport::Reply;
use crate::core::{
    cluster::{ClusterError, Kind},
    rollout::rights::Missing,
};

/// Longer texts of the server (a proxy's error page, a webhook's essay) are cut.
const LONGEST_TEXT: usize = 2_000;

/// What was asked, as far as the meaning of an answer depends on it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// For people: `Deployment/checkout in shop`.
    pub(super) what: String,
    /// The kind asked for.
    pub(super) kind: Kind,
    /// True for a JSON patch: its failed `test` operations are conflicts.
    pub(super) json_patch: bool,
}

impl Subject {
    fn is_secret(&self) -> bool {
        self.kind.group.is_empty() && self.kind.kind == "Secret"
    }
}

/// The part of `metav1.Status` that is used.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    kind: String,
    reason: Option<String>,
    message: Option<String>,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    name: String,
    kind: String,
    causes: Vec<Cause>,
    retry_after_seconds: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cause {
    reason: Option<String>,
    message: Option<String>,
    field: Option<String>,
}

/// Maps an answer to an error, by status code and reason (`k8s.io/apimachinery/pkg/api/errors`). The text never has
/// values of a Secret in it: for those only reasons and field names are told.
pub(super) fn refusal(reply: &Reply, subject: &Subject) -> ClusterError {
    let status: Status = serde_json::from_slice(&reply.body).unwrap_or_default();
    let reason = status.reason.clone().unwrap_or_default();
    let text = format!("{}: {}", subject.what, describe(&status, reply, subject));
    match reply.status {
        404 => not_found(&status, subject, text),
        409 if reason == "AlreadyExists" => ClusterError::AlreadyExists(text),
        // It is decided on what is there, and stays so until somebody lets go of the fields.
        409 if belongs_to_others(&status) => ClusterError::Invalid(text),
        409 => ClusterError::Conflict(text),
        422 if lost_precondition(&status, subject) => ClusterError::Conflict(text),
        401 | 403 => ClusterError::Forbidden(text),
        429 => ClusterError::Busy { message: text, retry_after: retry_after(&status, reply) },
        408 | 410 => ClusterError::Unreachable(text),
        400..=499 => ClusterError::Invalid(text),
        // Structured merge reports a field that the schema does not have, or of another type, as an internal error.
        500 if says(&status, "failed to create typed patch object") => ClusterError::Invalid(text),
        500..=599 => match retry_after(&status, reply) {
            Some(wait) => ClusterError::Busy { message: text, retry_after: Some(wait) },
            None => ClusterError::Unreachable(text),
        },
        _ => ClusterError::Unreachable(text),
    }
}

/// Returns whether a 404 speaks of the kind, not of the object: an unknown path is answered without naming one.
fn not_found(status: &Status, subject: &Subject, text: String) -> ClusterError {
    let Some(details) = &status.details else { return ClusterError::NoKind(text) };
    let of_namespace = details.kind == "namespaces" && subject.kind.kind != "Namespace";
    if of_namespace || (details.name.is_empty() && details.kind.is_empty()) {
        ClusterError::NoKind(text)
    } else {
        ClusterError::NotFound(text)
    }
}

/// What is answered where an operation of a JSON patch does not fit the object, a failed `test` among them: the API
/// server keeps to itself which.
const UNFIT: &str = "the server rejected our request due to an error in our request";

/// Returns whether a 422 means that another object has the name now, or that it has changed: a patch with another
/// UID is an immutable field changed, and a failed `test` of a JSON patch is "unprocessable".
fn lost_precondition(status: &Status, subject: &Subject) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let immutable = ["metadata.uid", "metadata.resourceVersion"];
    causes.filter_map(|cause| cause.field.as_deref()).any(|field| immutable.contains(&field))
        || subject.json_patch && says(status, UNFIT)
}

/// Returns whether a 409 says that other managers have the fields, not that the object has changed.
fn belongs_to_others(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason.as_deref() == Some("FieldManagerConflict"))
}

fn says(status: &Status, text: &str) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut texts = causes.filter_map(|cause| cause.message.as_deref()).chain(status.message.as_deref());
    texts.any(|said| said.to_ascii_lowercase().contains(text))
}

fn retry_after(status: &Status, reply: &Reply) -> Option<Duration> {
    let told = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
    reply.retry_after.or(told.map(Duration::from_secs))
}

fn describe(status: &Status, reply: &Reply, subject: &Subject) -> String {
    if status.kind != "Status" {
        // No API server's answer: a proxy's page may repeat what was sent.
        return format!("HTTP status {}", reply.status);
    }
    let reason = status.reason.clone().filter(|reason| !reason.is_empty());
    let reason = reason.unwrap_or_else(|| format!("HTTP status {}", reply.status));
    if !subject.is_secret() {
        return cut(status.message.clone().filter(|message| !message.is_empty()).unwrap_or(reason));
    }
    // Who may not do what is told in names alone.
    if let Some(missing) = Missing::read(status.message.as_deref().unwrap_or_default()).filter(|_| reply.status == 403)
    {
        return format!("{reason}: {}", missing.words());
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<String> = causes
        .filter_map(|cause| {
            let field = cause.field.as_deref().filter(|field| !field.is_empty())?;
            Some(format!("{field} ({})", cause.reason.as_deref().unwrap_or("refused")))
        })
        .collect();
    if fields.is_empty() { reason } else { cut(format!("{reason}: {}", fields.join(", "))) }
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn subject(kind: &str) -> Subject {
        Subject { what: format!("{kind}/x in y"), kind: Kind::new("", "v1", kind), json_patch: true }
    }

    fn reply(code: u16, body: &Value, retry_after: Option<u64>) -> Reply {
        let body = Bytes::from(serde_json::to_vec(body).unwrap());
        Reply { status: code, retry_after: retry_after.map(Duration::from_secs), body }
    }

    fn status(reason: &str, message: &str, details: Value) -> Value {
        json!({"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details})
    }

    /// Returns the variant's name, and the seconds to wait where it has them.
    fn name(error: &ClusterError) -> String {
        match error {
            ClusterError::Conflict(_) => "conflict".into(),
            ClusterError::AlreadyExists(_) => "exists".into(),
            ClusterError::NotFound(_) => "not found".into(),
            ClusterError::NoKind(_) => "no kind".into(),
            ClusterError::Invalid(_) => "invalid".into(),
            ClusterError::Forbidden(_) => "forbidden".into(),
            ClusterError::Busy { retry_after, .. } => format!("busy {:?}", retry_after.map(|wait| wait.as_secs())),
            ClusterError::Unreachable(_) => "unreachable".into(),
        }
    }

    #[rstest]
    #[case(404, "NotFound", json!({"name": "x", "kind": "pods"}), None, "not found")]
    #[case(404, "NotFound", json!({}), None, "no kind")]
    #[case(404, "NotFound", json!({"name": "y", "kind": "namespaces"}), None, "no kind")]
    #[case(409, "AlreadyExists", json!({"name": "x", "kind": "pods"}), None, "exists")]
    #[case(409, "Conflict", json!({"name": "x", "kind": "pods"}), None, "conflict")]
    #[case(409, "Conflict", json!({"causes": [{"reason": "FieldManagerConflict", "field": ".data.a"}]}), None, "invalid")]
    #[case(422, "Invalid", json!({"causes": [{"field": "spec.replicas"}]}), None, "invalid")]
    #[case(422, "Invalid", json!({"causes": [{"field": "metadata.uid"}]}), None, "conflict")]
    #[case(400, "BadRequest", json!({}), None, "invalid")]
    #[case(413, "RequestEntityTooLarge", json!({}), None, "invalid")]
    #[case(415, "UnsupportedMediaType", json!({}), None, "invalid")]
    #[case(405, "MethodNotAllowed", json!({}), None, "invalid")]
    #[case(401, "Unauthorized", json!({}), None, "forbidden")]
    #[case(403, "Forbidden", json!({"causes": [{"reason": "NamespaceTerminating"}]}), None, "forbidden")]
    #[case(429, "TooManyRequests", json!({"retryAfterSeconds": 3}), None, "busy Some(3)")]
    #[case(429, "TooManyRequests", json!({}), None, "busy None")]
    #[case(503, "ServiceUnavailable", json!({}), Some(7), "busy Some(7)")]
    #[case(500, "InternalError", json!({"retryAfterSeconds": 1}), None, "busy Some(1)")]
    #[case(500, "InternalError", json!({}), None, "unreachable")]
    #[case(502, "", json!({}), None, "unreachable")]
    #[case(504, "Timeout", json!({}), None, "unreachable")]
    #[case(302, "", json!({}), None, "unreachable")]
    fn a_status_code_and_reason_say_what_to_do(
        #[case] code: u16,
        #[case] reason: &str,
        #[case] details: Value,
        #[case] retry_after: Option<u64>,
        #[case] expected: &str,
    ) {
        let body = status(reason, "a message", details);
        assert_eq!(name(&refusal(&reply(code, &body, retry_after), &subject("Pod"))), expected);
    }

    #[test]
    fn a_failed_test_counts_as_a_conflict_only_for_a_json_patch() {
        let body = status("Invalid", UNFIT, json!({}));
        let merge = Subject { json_patch: false, ..subject("Pod") };
        assert_eq!(name(&refusal(&reply(422, &body, None), &subject("Pod"))), "conflict");
        assert_eq!(name(&refusal(&reply(422, &body, None), &merge)), "invalid");
    }

    #[test]
    fn a_field_that_the_schema_does_not_have_is_invalid_though_it_is_answered_with_500() {
        let message = "failed to create typed patch object (shop/x; apps/v1, Kind=Deployment): .spec.replicsa: field not declared in schema";
        let body = status("InternalError", message, json!({}));
        let error = refusal(&reply(500, &body, None), &subject("Deployment"));
        assert_eq!(name(&error), "invalid");
        assert!(error.to_string().contains(".spec.replicsa"), "{error}");
    }

    #[test]
    fn a_page_that_is_no_status_is_not_repeated() {
        let page = Reply { status: 404, retry_after: None, body: Bytes::from_static(b"404 page not found") };
        assert_eq!(refusal(&page, &subject("Pod")), ClusterError::NoKind("Pod/x in y: HTTP status 404".into()));
    }

    #[test]
    fn fault_87_a_secrets_values_are_not_in_the_error() {
        let message = "Secret \"x\" is invalid: data[password]: Invalid value: \"aHVudGVyMg==\"";
        let details = json!({"causes": [{"reason": "FieldValueInvalid", "message": "Invalid value: \"aHVudGVyMg==\"", "field": "data[password]"}]});
        let body = status("Invalid", message, details);
        let secret = refusal(&reply(422, &body, None), &subject("Secret")).to_string();
        assert_eq!(secret, "the API server refuses it: Secret/x in y: Invalid: data[password] (FieldValueInvalid)");
        let other = refusal(&reply(422, &body, None), &subject("ConfigMap")).to_string();
        assert!(other.contains("aHVudGVyMg=="), "only Secrets are redacted: {other}");
    }

    #[test]
    fn a_right_that_is_missing_for_secrets_is_told_in_names() {
        let message = "secrets is forbidden: User \"ada\" cannot list resource \"secrets\" in API group \"\" at the \
                       cluster scope: aHVudGVyMg==";
        let error = refusal(&reply(403, &status("Forbidden", message, json!({})), None), &subject("Secret"));
        let words = "Secret/x in y: Forbidden: User \"ada\" cannot list resource \"secrets\" in API group \"\"";
        assert_eq!(error, ClusterError::Forbidden(words.to_owned()));
    }

    #[test]
    fn a_long_text_is_cut() {
        let body = status("BadRequest", &"é".repeat(10_000), json!({}));
        let text = refusal(&reply(400, &body, None), &subject("Pod")).to_string();
        assert!(text.chars().count() < LONGEST_TEXT + 100);
    }
}
