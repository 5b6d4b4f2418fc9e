//! Decisions: the files by which people say confirm, promote, abort, pause or retry.

use std::fmt;

use super::{
    Sourced,
    read::{Fields, Reader, read_document},
};
use crate::core::{
    names::{Digest, StageName},
    problem::Problem,
};

/// What a person decides by a file in a rollout's directory. The path says which; the content only adds to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Opens the gate of one stage: `confirm/<stage>.yaml`.
    Confirm(StageName),
    /// Opens every confirm and pause that is left: `promote.yaml`.
    Promote,
    /// Returns to stable: `abort.yaml`.
    Abort,
    /// Holds the rollout where it is while the file is there: `pause.yaml`.
    Pause,
    /// Runs a stopped stage, or a refused target, again: `retry.yaml`.
    Retry,
}

impl Decision {
    /// Reads a path inside a rollout's directory, `confirm/beta.yaml`; `None` for what is no decision.
    pub fn from_path(path: &str) -> Option<Self> {
        match path.strip_suffix(".yaml")? {
            "promote" => Some(Self::Promote),
            "abort" => Some(Self::Abort),
            "pause" => Some(Self::Pause),
            "retry" => Some(Self::Retry),
            other => {
                let stage = other.strip_prefix("confirm/").filter(|stage| !stage.is_empty() && !stage.contains('/'))?;
                Some(Self::Confirm(StageName::new(stage)))
            }
        }
    }

    /// Returns the path inside the rollout's directory.
    pub fn path(&self) -> String {
        match self {
            Self::Confirm(stage) => format!("confirm/{stage}.yaml"),
            other => format!("{}.yaml", other.verb()),
        }
    }

    /// Returns the word for it: `confirm`, `promote`, …
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Confirm(_) => "confirm",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Retry => "retry",
        }
    }
}

/// What a decision's file says. Everything is optional; what is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionBody {
    /// The hash of the plan that was seen.
    pub plan_hash: Option<DigestPrefix>,
    /// The id of the waiting record that was seen.
    pub record: Option<DigestPrefix>,
    /// Why, in the person's words.
    pub message: Option<String>,
}

/// A digest as people write it: `sha256:…` or only hexadecimal digits, whole or its first eight or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestPrefix(String);

impl DigestPrefix {
    /// Reads `sha256:9a41c07e…` or `9a41c07e`; `None` where it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let fits = (8..=64).contains(&hex.len()) && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(hex.to_owned()))
    }

    /// Returns whether `digest` starts like this.
    pub fn matches(&self, digest: &Digest) -> bool {
        digest.hex().starts_with(&self.0)
    }
}

impl fmt::Display for DigestPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// The fields of a decision.
pub(super) const FIELDS: &[&str] = &["planHash", "record", "message"];

/// Reads a decision's file. An empty one, or one of comments alone, is fine and says nothing.
///
/// # Errors
///
/// Everything that is wrong with the file.
pub fn read_decision(file: &str, bytes: &[u8]) -> Result<DecisionBody, Vec<Problem>> {
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if std::str::from_utf8(bytes).is_ok_and(|text| text.lines().all(is_blank)) {
        return Ok(DecisionBody::default());
    }
    let read: Sourced<DecisionBody> = read_document(file, bytes, |reader, document| {
        let fields = reader.fields(document, FIELDS)?;
        Some(DecisionBody {
            plan_hash: digest(reader, &fields, "planHash"),
            record: digest(reader, &fields, "record"),
            message: fields.get("message").and_then(|node| reader.text(node)).map(str::to_owned),
        })
    })?;
    Ok(read.value)
}

fn digest(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &str) -> Option<DigestPrefix> {
    let node = fields.get(name)?;
    let text = reader.text(node)?;
    let digest = DigestPrefix::parse(text);
    if digest.is_none() {
        reader.problem(node.span, format!("`{text}` is no digest")).label =
            Some("`sha256:` and its first 8 to 64 hexadecimal digits".to_owned());
    }
    digest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_what_is_decided() {
        let table = [
            ("confirm/beta.yaml", Some(Decision::Confirm(StageName::new("beta")))),
            ("promote.yaml", Some(Decision::Promote)),
            ("abort.yaml", Some(Decision::Abort)),
            ("pause.yaml", Some(Decision::Pause)),
            ("retry.yaml", Some(Decision::Retry)),
            ("plan.yaml", None),
            ("confirm/.yaml", None),
            ("confirm/a/b.yaml", None),
            ("confirm/beta.yml", None),
        ];
        for (path, expected) in table {
            let decision = Decision::from_path(path);
            assert_eq!(decision, expected, "{path}");
            assert!(decision.is_none_or(|decision| decision.path() == path), "{path}");
        }
    }

    #[test]
    fn an_empty_decision_is_a_decision() {
        for bytes in [&b""[..], b"\n\n", b"# looks good\n"] {
            assert_eq!(read_decision("confirm/beta.yaml", bytes).unwrap(), DecisionBody::default());
        }
    }

    #[test]
    fn what_a_decision_names_must_be_a_digest() {
        let body = read_decision("abort.yaml", b"planHash: sha256:9a41c07e\nmessage: too slow\n").unwrap();
        let plan = Digest::parse(&format!("sha256:9a41c07e{}", "0".repeat(56))).unwrap();
        assert!(body.plan_hash.unwrap().matches(&plan));
        assert_eq!(body.message.as_deref(), Some("too slow"));
        let problems = read_decision("abort.yaml", b"planhash: 9a41c07e\nrecord: 41d7\n").unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["abort.yaml:1:1: error: unknown field `planhash`", "abort.yaml:2:9: error: `41d7` is no digest"]
        );
    }
}
