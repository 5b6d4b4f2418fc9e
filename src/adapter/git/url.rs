//! Which remotes and branches are understood, by grammar, before any of it reaches a program or a file name.

use std::fmt;
use std::path::{Path, PathBuf};

/// A remote that may be spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    transport: Transport,
    /// What git is told.
    raw: String,
}

/// How a remote is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A repository on this machine.
    Local(PathBuf),
    /// `git://`: neither secret nor signed; for loopback and trusted networks.
    Git,
    /// `http://`
    Http,
}

/// Why a remote or a branch is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text is no remote, or one that could make git do something else than fetch.
    #[error("`{url}` is not a remote that is allowed: {reason}")]
    Refused {
        /// The text, without a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The transport is understood but not built yet.
    #[error("`{url}`: {scheme} remotes are not supported yet; use a local path, file://, git:// or http://")]
    NotYet {
        /// The text, without a password.
        url: String,
        /// `https` or `ssh`.
        scheme: &'static str,
    },
    /// The branch's name breaks git's rules for references.
    #[error("`{branch}` is not the name of a branch: {reason}")]
    Branch {
        /// The text, escaped and shortened.
        branch: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl RemoteUrl {
    /// Reads a remote as people write it: a path, `file://`, `git://` or `http://`.
    ///
    /// A relative path is resolved against the working directory, once.
    ///
    /// # Errors
    ///
    /// [`UrlError`] says why; it never repeats a password.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let refused = |reason| Err(UrlError::Refused { url: without_password(text), reason });
        if text.is_empty() {
            return refused("it is empty");
        }
        if text.len() > 4096 {
            return Err(UrlError::Refused { url: format!("{}…", head(text)), reason: "it is too long" });
        }
        if text.chars().any(char::is_control) {
            return refused("it has a control character");
        }
        if text.starts_with('-') {
            return refused("it starts with `-`, which git would read as an option");
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Self::with_scheme(text, &scheme.to_ascii_lowercase(), rest);
        }
        if text.split('/').next().is_some_and(|first| first.contains("::")) {
            return refused("git would run a program for it");
        }
        if !Path::new(text).exists() && text.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err(UrlError::NotYet { url: without_password(text), scheme: "ssh" });
        }
        Self::local(text, Path::new(text))
    }

    fn with_scheme(text: &str, scheme: &str, rest: &str) -> Result<Self, UrlError> {
        let url = || without_password(text);
        let transport = match scheme {
            "file" => {
                let Some(path) = rest.strip_prefix("localhost").unwrap_or(rest).strip_prefix('/') else {
                    return Err(UrlError::Refused {
                        url: url(),
                        reason: "file:// takes an absolute path of this machine",
                    });
                };
                return Self::local(text, &Path::new("/").join(path));
            }
            "git" => Transport::Git,
            "http" => Transport::Http,
            "https" => return Err(UrlError::NotYet { url: url(), scheme: "https" }),
            "ssh" | "git+ssh" | "ssh+git" => return Err(UrlError::NotYet { url: url(), scheme: "ssh" }),
            _ => return Err(UrlError::Refused { url: url(), reason: "its scheme is unknown" }),
        };
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if host.is_empty() || host.starts_with('-') || host.starts_with(':') || host.contains(char::is_whitespace) {
            return Err(UrlError::Refused { url: url(), reason: "it names no host" });
        }
        Ok(Self { transport, raw: text.to_owned() })
    }

    fn local(text: &str, path: &Path) -> Result<Self, UrlError> {
        let path = std::path::absolute(path)
            .map_err(|_| UrlError::Refused { url: without_password(text), reason: "the path cannot be resolved" })?;
        let Some(raw) = path.to_str().map(str::to_owned) else {
            return Err(UrlError::Refused { url: without_password(text), reason: "the path is not UTF-8" });
        };
        Ok(Self { transport: Transport::Local(path), raw })
    }

    /// Returns how it is reached.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns what git is told. May hold a password: never print it.
    pub(super) fn for_git(&self) -> &str {
        &self.raw
    }
}

impl fmt::Display for RemoteUrl {
    /// Writes the remote without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.raw))
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of a branch that git takes, without `refs/heads/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch(String);

impl Branch {
    /// Reads a branch's name.
    ///
    /// The rules are those of `git check-ref-format --branch`; names over 255 bytes are refused because their lock
    /// files could not be made.
    ///
    /// # Errors
    ///
    /// [`UrlError::Branch`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let reason = if text.is_empty() {
            "it is empty"
        } else if text.len() > 255 {
            "it is too long"
        } else if text.starts_with('-') {
            "it starts with `-`"
        } else if text == "HEAD" || !git2::Reference::is_valid_name(&format!("refs/heads/{text}")) {
            "git does not allow it"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(UrlError::Branch { branch: head(text).escape_debug().to_string(), reason })
    }

    /// Returns the short name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the full name, `refs/heads/main`.
    pub fn reference(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

/// The beginning of a text, for messages.
fn head(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}

/// Takes the password out of `scheme://user:password@host`.
fn without_password(text: &str) -> String {
    let text = text.escape_debug().to_string();
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    let Some((user, host)) = authority.rsplit_once('@') else { return text };
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    format!("{scheme}://{user}@{host}{path}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fault_46_remotes_that_would_run_programs_or_options_are_refused() {
        let bad = [
            "ext::sh -c touch% /tmp/x",
            "fd::17",
            "-uhttp://x",
            "--upload-pack=x",
            "http://",
            "git://-oProxyCommand=x/a",
            "http://-x/y",
            "ftp://host/x",
            "http://a b/x",
            "file://host/x",
            "a\nb",
            "http:///x",
            "git://:80/x",
            "",
        ];
        for text in bad {
            assert!(matches!(RemoteUrl::parse(text), Err(UrlError::Refused { .. })), "{text}");
        }
    }

    #[test]
    fn https_and_ssh_are_understood_and_answered_with_not_yet() {
        for text in ["https://example.com/r.git", "ssh://git@example.com/r.git", "git@example.com:r.git", "HTTPS://x/y"]
        {
            assert!(matches!(RemoteUrl::parse(text), Err(UrlError::NotYet { .. })), "{text}");
        }
    }

    #[test]
    fn what_is_allowed_is_told_apart_by_transport() {
        let transport = |text: &str| RemoteUrl::parse(text).unwrap().transport().clone();
        assert_eq!(transport("/srv/r.git"), Transport::Local("/srv/r.git".into()));
        assert_eq!(transport("file:///srv/r.git"), Transport::Local("/srv/r.git".into()));
        assert_eq!(transport("file://localhost/srv/r.git"), Transport::Local("/srv/r.git".into()));
        assert_eq!(transport("git://127.0.0.1:9418/r.git"), Transport::Git);
        assert_eq!(transport("http://[::1]:80/r.git"), Transport::Http);
        assert!(matches!(transport("relative/path"), Transport::Local(path) if path.is_absolute()));
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = RemoteUrl::parse("http://user:secret@host/r.git").unwrap();
        assert_eq!(url.to_string(), "http://user@host/r.git");
        assert_eq!(format!("{url:?}"), "http://user@host/r.git");
        let refused = RemoteUrl::parse("https://user:secret@host/r.git").unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }

    #[test]
    fn fault_44_reference_names_follow_the_grammar() {
        let long = "x".repeat(4096);
        let bad = [
            "-x",
            "../x",
            "a/../b",
            "x.lock",
            "a/x.lock/b",
            "a\nb",
            "a b",
            "a..b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a.",
            "@{",
            "HEAD",
            "",
            &long,
        ];
        for text in bad {
            assert!(Branch::parse(text).is_err(), "{text}");
        }
        for text in ["main", "release/1.9", "ü", "a-b", "@x"] {
            assert_eq!(Branch::parse(text).unwrap().reference(), format!("refs/heads/{text}"));
        }
    }
}
