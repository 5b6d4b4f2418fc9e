//! The controller's credentials: a directory with the files of a Kubernetes Secret.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::adapter::git::url::RemoteUrl;
use crate::adapter::mounted::{Mounted, one_line, pair};
use crate::core::names::Digest;
use crate::core::repository::RepositoryError;

/// The user of a token that comes without one. GitHub wants this name of an app's token; it, GitLab and Gitea take any
/// name beside a person's.
const USER_OF_A_TOKEN: &str = "x-access-token";

/// What a directory of credentials has. Never printed.
#[derive(Default)]
pub(super) struct Credentials {
    username: Option<String>,
    password: Option<String>,
    /// For servers that want `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// Whom alone to believe who the server is, as PEM.
    pub ca: Option<Vec<u8>>,
    /// A client's certificate and its key, as PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    identity: Option<Vec<u8>>,
    known_hosts: Option<Vec<u8>>,
    /// Changes when any of it does; `None` where there is no directory.
    digest: Option<Digest>,
}

/// What `ssh` needs.
pub(super) struct Ssh<'a> {
    /// The private key; `None`: an agent has it.
    pub identity: Option<&'a [u8]>,
    /// The keys by which servers are known.
    pub known_hosts: &'a [u8],
}

impl Credentials {
    /// Reads the files in `directory` that have a meaning; others are left alone.
    ///
    /// # Errors
    ///
    /// The directory or a file cannot be read, or a file cannot be what its name says.
    pub fn read(directory: &Path) -> Result<Self, RepositoryError> {
        let told = |why: String| RepositoryError::Credentials(format!("{}: {why}", directory.display()));
        let mounted = Mounted::open(directory).map_err(told)?;
        let mut all = Vec::new();
        let mut bytes = |name: &str| -> Result<Option<Vec<u8>>, RepositoryError> {
            let content = mounted.bytes(name).map_err(told)?;
            all.extend_from_slice(format!("{name} {:?}\n", content.as_ref().map(Vec::len)).as_bytes());
            all.extend_from_slice(content.as_deref().unwrap_or_default());
            Ok(content)
        };
        let (username, password, token, bearer) =
            (bytes("username")?, bytes("password")?, bytes("token")?, bytes("bearerToken")?);
        let (ca, certificate, key) = (bytes("ca.crt")?, bytes("tls.crt")?, bytes("tls.key")?);
        let (identity, ssh_key, known_hosts) = (bytes("identity")?, bytes("ssh-privatekey")?, bytes("known_hosts")?);
        let digest = Digest::of(&all);

        let line = |name: &str, content: Option<Vec<u8>>| one_line(name, content).map_err(told);
        let (username, password) = (line("username", username)?, line("password", password)?);
        let (token, bearer) = (line("token", token)?, line("bearerToken", bearer)?);
        if password.is_some() && token.is_some() {
            return Err(told("there is a `password` and a `token`: which counts?".to_owned()));
        }
        if username.is_some() && password.is_none() && token.is_none() {
            return Err(told("there is a `username` without a `password` or a `token`".to_owned()));
        }
        let certificate = pair(certificate, key).map_err(|why| told(why.to_owned()))?;
        Ok(Self {
            username,
            password: password.or(token),
            bearer,
            ca,
            certificate,
            identity: identity.or(ssh_key),
            known_hosts,
            digest: Some(digest),
        })
    }

    /// Returns what changes when the content does.
    pub fn digest(&self) -> Digest {
        self.digest.unwrap_or_else(|| Digest::of(b""))
    }

    /// Returns user and password for an HTTP server: these, else those of the URL.
    pub fn login(&self, url: &RemoteUrl) -> Option<(String, String)> {
        let of_url = url.login();
        match &self.password {
            Some(password) => {
                let user = self.username.clone().or_else(|| Some(of_url?.user.clone()));
                Some((user.unwrap_or_else(|| USER_OF_A_TOKEN.to_owned()), password.clone()))
            }
            None => of_url.map(|login| (login.user.clone(), login.password.clone().unwrap_or_default())),
        }
    }

    /// Returns what `ssh` needs to reach `url`.
    ///
    /// # Errors
    ///
    /// Nobody has said by which key the server is known, or there is nothing to log in with.
    pub fn for_ssh(&self, url: &RemoteUrl, agent: bool) -> Result<Ssh<'_>, RepositoryError> {
        let Some(known_hosts) = self.known_hosts.as_deref() else {
            return Err(RepositoryError::Untrusted(format!(
                "the credentials have no `known_hosts`, so nobody knows by which key {url} is to be believed"
            )));
        };
        if self.identity.is_none() && !agent {
            return Err(RepositoryError::Credentials(format!(
                "there is no `identity` for {url}, and no agent (SSH_AUTH_SOCK)"
            )));
        }
        if self.identity.as_deref().is_some_and(has_passphrase) {
            return Err(RepositoryError::Credentials(
                "the `identity` has a passphrase, and nobody is there to type it: give a key without one, or an agent \
                 that has it"
                    .to_owned(),
            ));
        }
        Ok(Ssh { identity: self.identity.as_deref(), known_hosts })
    }
}

/// Whether a private key must be unlocked first: OpenSSH's own form names its cipher, older ones say so in words.
///
/// The form is that of OpenSSH's `PROTOCOL.key`: a magic word, then the cipher's name with its length before it.
fn has_passphrase(key: &[u8]) -> bool {
    const NO_CIPHER: &[u8] = b"openssh-key-v1\0\0\0\0\x04none";
    let text = String::from_utf8_lossy(key);
    if text.contains("ENCRYPTED") {
        return true;
    }
    let Some((_, rest)) = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----") else { return false };
    let body: String = rest.chars().take_while(|c| *c != '-').filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(body).is_ok_and(|bytes| !bytes.starts_with(NO_CIPHER))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read_files(files: &[(&str, &str)]) -> Result<Credentials, RepositoryError> {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        Credentials::read(directory.path())
    }

    #[test]
    fn the_names_are_those_of_kubernetes_secrets() {
        let url = RemoteUrl::parse("https://ada@git.example/r").unwrap();
        let login = |files: &[(&str, &str)]| read_files(files).unwrap().login(&url).unwrap();
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(login(&[("username", "bot\n"), ("password", "s3cret\n")]), pair("bot", "s3cret"));
        assert_eq!(login(&[("token", "t0ken")]), pair("ada", "t0ken"));
        let other = RemoteUrl::parse("https://git.example/r").unwrap();
        assert_eq!(read_files(&[("token", "t")]).unwrap().login(&other), Some(pair("x-access-token", "t")));
        assert_eq!(read_files(&[]).unwrap().login(&other), None);
        let ssh = RemoteUrl::parse("git@git.example:r").unwrap();
        for key in ["identity", "ssh-privatekey"] {
            let credentials = read_files(&[(key, "KEY"), ("known_hosts", "git.example ssh-ed25519 AAAA")]).unwrap();
            assert_eq!(credentials.for_ssh(&ssh, false).ok().unwrap().identity, Some(&b"KEY"[..]));
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_without_showing_it() {
        let bad: [&[(&str, &str)]; 6] = [
            &[("password", "hunter2\nhost=evil.example")],
            &[("token", "")],
            &[("username", "bot")],
            &[("password", "hunter2"), ("token", "hunter2")],
            &[("tls.crt", "hunter2")],
            &[("tls.key", "hunter2")],
        ];
        for files in bad {
            let error = read_files(files).err().unwrap();
            assert!(matches!(&error, RepositoryError::Credentials(_)), "{error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(Credentials::read(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn fault_47_a_server_that_nobody_has_pinned_is_not_spoken_to() {
        let url = RemoteUrl::parse("git@git.example:r").unwrap();
        let error = read_files(&[("identity", "KEY")]).unwrap().for_ssh(&url, true).err().unwrap();
        assert!(matches!(&error, RepositoryError::Untrusted(text) if text.contains("known_hosts")), "{error}");
        let error = read_files(&[("known_hosts", "x")]).unwrap().for_ssh(&url, false).err().unwrap();
        assert!(matches!(error, RepositoryError::Credentials(_)), "{error}");
    }

    #[test]
    fn other_content_has_another_digest() {
        let digest = |files: &[(&str, &str)]| read_files(files).unwrap().digest();
        assert_eq!(digest(&[("token", "a")]), digest(&[("token", "a"), ("notes", "b")]));
        assert_ne!(digest(&[("token", "a")]), digest(&[("token", "b")]));
        assert_ne!(digest(&[("identity", "a")]), digest(&[("ssh-privatekey", "a")]));
    }
}
