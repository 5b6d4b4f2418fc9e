//! Which remotes and branches are understood, by grammar, before any of it reaches a program or a file name.

use std::fmt;
use std::path::{Path, PathBuf};

/// A remote that may be spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteUrl {
    transport: Transport,
    /// What git is told. Of `http://` and `https://` without user and password: git would show them to everybody who
    /// lists the processes of the machine.
    raw: String,
    /// Who to be for an HTTP server, where the URL says so.
    login: Option<Login>,
}

/// User and password as a URL has them: `https://user:password@host`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub user: String,
    pub password: Option<String>,
}

/// How a remote is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A repository on this machine.
    Local(PathBuf),
    /// `git://`: neither secret nor signed; for loopback and trusted networks.
    Git,
    /// `http://`: anybody on the way can read and change it.
    Http,
    /// `https://`
    Https,
    /// `ssh://` or `user@host:path`
    Ssh,
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
    /// The branch's name breaks git's rules for references.
    #[error("`{branch}` is not the name of a branch: {reason}")]
    Branch {
        /// The text, escaped and shortened.
        branch: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// No URL is longer, in bytes.
const LONGEST: usize = 4096;

impl RemoteUrl {
    /// Reads a remote as people write it: a path, `file://`, `git://`, `http://`, `https://`, `ssh://` or
    /// `user@host:path`.
    ///
    /// A relative path is resolved against the working directory, once. What exists on this machine is a path.
    ///
    /// # Errors
    ///
    /// [`UrlError`] says why; it never repeats a password.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        Self::read(text).map_err(|reason| {
            let url = without_password(text);
            let url = if text.len() > LONGEST { format!("{}…", head(&url)) } else { url };
            UrlError::Refused { url, reason }
        })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > LONGEST {
            return Err("it is too long");
        }
        if text.chars().any(char::is_control) {
            return Err("it has a control character");
        }
        if text.starts_with('-') {
            return Err("it starts with `-`, which git would read as an option");
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Self::with_scheme(text, &scheme.to_ascii_lowercase(), rest);
        }
        let of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if text.split_once("::").is_some_and(|(helper, _)| !helper.is_empty() && helper.chars().all(of_scheme)) {
            return Err("git would run a program for it");
        }
        if text.split('/').next().is_some_and(|first| first.contains(':')) && !Path::new(text).exists() {
            return Self::over_ssh(text);
        }
        Self::local(Path::new(text))
    }

    fn with_scheme(text: &str, scheme: &str, rest: &str) -> Result<Self, &'static str> {
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").unwrap_or(rest).strip_prefix('/');
            let path = path.ok_or("file:// takes an absolute path of this machine")?;
            return Self::local(&Path::new("/").join(path));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        check_host(host)?;
        match scheme {
            "git" => Ok(Self { transport: Transport::Git, raw: text.to_owned(), login: None }),
            "http" | "https" => {
                let transport = if scheme == "http" { Transport::Http } else { Transport::Https };
                Ok(Self { transport, raw: format!("{scheme}://{host}/{path}"), login: user.map(login).transpose()? })
            }
            "ssh" | "git+ssh" | "ssh+git" => {
                check_user(user)?;
                if path.is_empty() {
                    return Err("it names no repository");
                }
                Ok(Self { transport: Transport::Ssh, raw: text.to_owned(), login: None })
            }
            _ => Err("its scheme is unknown"),
        }
    }

    /// Reads `user@host:path`, which is how people write `ssh://` without a port.
    fn over_ssh(text: &str) -> Result<Self, &'static str> {
        let (user, rest) = match text.split_once('@') {
            // An `@` after the colon belongs to the path.
            Some((user, rest)) if !user.contains(':') => (Some(user), rest),
            _ => (None, text),
        };
        let end = rest.find(']').unwrap_or(0);
        let colon = rest[end..].find(':').ok_or("it names no repository")? + end;
        let (host, path) = (&rest[..colon], &rest[colon + 1..]);
        check_user(user)?;
        check_host(host)?;
        if path.is_empty() || path.starts_with('-') {
            return Err("it names no repository");
        }
        Ok(Self { transport: Transport::Ssh, raw: text.to_owned(), login: None })
    }

    fn local(path: &Path) -> Result<Self, &'static str> {
        let path = std::path::absolute(path).map_err(|_| "the path cannot be resolved")?;
        let raw = path.to_str().ok_or("the path is not UTF-8")?.to_owned();
        Ok(Self { transport: Transport::Local(path), raw, login: None })
    }

    /// Returns how it is reached.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Returns what git is told: without a password.
    pub(super) fn for_git(&self) -> &str {
        &self.raw
    }

    /// Returns who to be, where the URL of an HTTP server says so.
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Returns `scheme://host:port` of an HTTP server: whom credentials are for.
    pub(super) fn origin(&self) -> Option<&str> {
        if !matches!(self.transport, Transport::Http | Transport::Https) {
            return None;
        }
        let host = self.raw.find("://")? + 3;
        let end = self.raw[host..].find('/').map_or(self.raw.len(), |slash| host + slash);
        Some(&self.raw[..end])
    }
}

/// Reads `user:password`.
fn login(text: &str) -> Result<Login, &'static str> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let wrong = "its user or password has a wrong escape";
    let user = unescaped(user).ok_or(wrong)?;
    let password = password.map(|password| unescaped(password).ok_or(wrong)).transpose()?;
    Ok(Login { user, password })
}

/// Replaces `%40` and the like by what they stand for. `None`: a wrong escape, or one for what would end a line.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let code = part.get(..2).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Lets a name, an address, or an IPv6 address in brackets through, with a port or without: nothing that a program
/// could take for an option.
fn check_host(text: &str) -> Result<(), &'static str> {
    let wrong = "it names no host";
    let (bracketed, host, rest) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, rest) = inside.split_once(']').ok_or(wrong)?;
            (true, host, rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (false, host, rest)
        }
    };
    let inside = |c: char| c.is_alphanumeric() || "-._".contains(c) || bracketed && ":%".contains(c);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(inside) {
        return Err(wrong);
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok(()),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        _ => Err("its port is not a number"),
    }
}

/// Lets what is a user's name through: no password, nothing that a program could take for an option.
fn check_user(user: Option<&str>) -> Result<(), &'static str> {
    let Some(user) = user else { return Ok(()) };
    if user.contains(':') {
        return Err("ssh takes no password from a URL");
    }
    let inside = |c: char| c.is_alphanumeric() || "-._+".contains(c);
    let fine = !user.is_empty() && !user.starts_with('-') && user.chars().all(inside);
    if fine { Ok(()) } else { Err("its user is not a name") }
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

/// Takes the password out of `scheme://user:password@host`. Of a web server's URL the user as well: many people put a
/// token there.
fn without_password(text: &str) -> String {
    let text = text.escape_debug().to_string();
    let Some((scheme, rest)) = text.split_once("://") else { return text };
    let (authority, path) = rest.split_once('/').map_or((rest, None), |(a, p)| (a, Some(p)));
    let Some((user, host)) = authority.rsplit_once('@') else { return text };
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    if scheme.to_ascii_lowercase().starts_with("http") {
        return format!("{scheme}://{host}{path}");
    }
    let user = user.split_once(':').map_or(user, |(user, _)| user);
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
            "ext::[x",
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
    fn fault_46_options_and_passwords_for_ssh_are_refused() {
        let bad = [
            "ssh://-oProxyCommand=x/a",
            "ssh://git@-oProxyCommand=x/a",
            "ssh://-oProxyCommand=x@host/a",
            "ssh://git:secret@host/a",
            "ssh://host",
            "ssh://host:port/a",
            "ssh://host:0/a",
            "ssh://ho$(x)st/a",
            "git@-oProxyCommand=x:a",
            "-oProxyCommand=x@host:a",
            "git;x@host:a",
            "git@host:",
            "git@host:-x",
            "git@[::1:a",
            "https://host:99999/a",
            "https://[::1/a",
            "https://user:%0a@host/a",
            "https://user:%zz@host/a",
        ];
        for text in bad {
            let refused = RemoteUrl::parse(text).unwrap_err();
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
    }

    #[test]
    fn user_and_password_of_a_web_server_are_kept_apart() {
        let url = RemoteUrl::parse("https://ada%40example.com:p%40ss@git.example:8443/shop/release.git").unwrap();
        assert_eq!(url.for_git(), "https://git.example:8443/shop/release.git");
        assert_eq!(url.origin(), Some("https://git.example:8443"));
        let login = url.login().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_deref()), ("ada@example.com", Some("p@ss")));
        let url = RemoteUrl::parse("https://ghp_token@git.example/release.git").unwrap();
        assert_eq!(url.to_string(), "https://git.example/release.git", "a token may stand where a user does");
        assert_eq!(RemoteUrl::parse("ssh://git@git.example/release.git").unwrap().origin(), None);
    }

    #[test]
    fn what_is_allowed_is_told_apart_by_transport() {
        let transport = |text: &str| RemoteUrl::parse(text).unwrap().transport().clone();
        assert_eq!(transport("/srv/r.git"), Transport::Local("/srv/r.git".into()));
        assert_eq!(transport("file:///srv/r.git"), Transport::Local("/srv/r.git".into()));
        assert_eq!(transport("file://localhost/srv/r.git"), Transport::Local("/srv/r.git".into()));
        assert_eq!(transport("git://127.0.0.1:9418/r.git"), Transport::Git);
        assert_eq!(transport("http://[::1]:80/r.git"), Transport::Http);
        assert_eq!(transport("https://git.example/r.git"), Transport::Https);
        assert_eq!(transport("HTTPS://ada@git.example:8443/r.git"), Transport::Https);
        for text in ["ssh://git@git.example:2222/r.git", "git@git.example:r.git", "git.example:~ada/r.git"] {
            assert_eq!(transport(text), Transport::Ssh, "{text}");
        }
        for text in ["git+ssh://git@[fe80::1%25eth0]/r", "ssh://[::1]:22/r", "git@[::1]:r.git", "[::1]:r.git"] {
            assert_eq!(transport(text), Transport::Ssh, "{text}");
        }
        assert!(matches!(transport("relative/path"), Transport::Local(path) if path.is_absolute()));
    }

    #[test]
    fn a_password_is_never_printed() {
        let url = RemoteUrl::parse("http://user:secret@host/r.git").unwrap();
        assert_eq!(url.to_string(), "http://host/r.git");
        assert_eq!(format!("{url:?}"), "http://host/r.git");
        let refused = RemoteUrl::parse("ftp://user:secret@host/r.git").unwrap_err();
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
