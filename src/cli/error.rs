//! What a person sees when a command does not succeed: a kind, which is the exit code, a message, and one hint.

use std::{fmt::Write as _, process::ExitCode};

use owo_colors::OwoColorize as _;

use crate::{
    adapter::{git::url::UrlError, kube::ConnectError},
    core::{cluster::ClusterError, repository::RepositoryError},
};

/// How a command ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It did what it was asked to: exit code 0.
    Well,
    /// It told what is wrong already: exit code 1.
    FoundWrong,
}

/// What a command returns.
pub type Outcome = Result<Done, Error>;

/// The kinds of errors, by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It could not be done: 1.
    Failed,
    /// It was asked for wrongly: 2.
    Usage,
    /// A policy refuses it: 3.
    Refused,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    away: bool,
}

impl Error {
    /// It could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into(), hint: None, away: false }
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::failed(message) }
    }

    /// A policy refuses it.
    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, ..Self::failed(message) }
    }

    /// It could not be done, because of an error whose causes are told, too.
    pub fn because(operation: &str, error: &dyn std::error::Error) -> Self {
        let mut message = format!("{operation}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            // Some libraries repeat their cause.
            let told = error.to_string();
            if !message.ends_with(&told) {
                message.push_str(&format!(": {told}"));
            }
            cause = error.source();
        }
        Self::failed(message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns whether the repository could not be reached.
    pub fn is_git_away(&self) -> bool {
        self.away
    }

    /// Prints it on standard error and returns the exit code.
    pub fn report(&self) -> ExitCode {
        let mut text = format!("{} {}\n", "error:".red().bold(), self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  {} {hint}", "hint:".cyan());
        }
        super::output::say(&text);
        ExitCode::from(match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
        })
    }
}

impl From<RepositoryError> for Error {
    fn from(error: RepositoryError) -> Self {
        let hint = match &error {
            RepositoryError::Unreachable(_) => Some("is the URL right, and the network there?"),
            RepositoryError::Denied(_) => Some("may you read and push there? `git push` says the same"),
            RepositoryError::Untrusted(_) => Some("compare its key or certificate with what its operator publishes"),
            RepositoryError::Credentials(_) => Some("`--credentials` names a directory with the files of a Secret"),
            RepositoryError::NoBranch(_) => {
                Some("an empty repository needs a first commit; `--branch` names another branch")
            }
            _ => None,
        };
        let away = matches!(error, RepositoryError::Unreachable(_));
        Self { hint: hint.map(str::to_owned), away, ..Self::failed(error.to_string()) }
    }
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::because("cannot reach a cluster", &error).hint("`--kubeconfig` names the file to use")
    }
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        Self::failed(error.to_string())
    }
}
