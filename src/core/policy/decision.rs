//! Decisions: the files by which people say confirm, promote, abort, pause or retry.

use std::fmt;

use crate::core::names::{Digest, StageName};

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
