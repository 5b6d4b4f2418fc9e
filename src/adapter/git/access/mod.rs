//! By whose means a remote is reached: the controller's own, or those of the person who runs a command.
//!
//! What is secret is given to git in a private directory of files, made for one run and gone after it: arguments and
//! environments can be read by whoever lists the processes of the machine, and a file that is read at every run is
//! read again when it changes. The directory has
//!
//! | file | for |
//! |---|---|
//! | `config` | git's settings that are secret or name the other files |
//! | `login` | what a credential helper answers, for this remote's scheme, host and port alone |
//! | `ca.crt`, `tls.crt`, `tls.key` | TLS |
//! | `ssh_config`, `identity`, `known_hosts` | the `ssh` program, in place of the user's and the machine's |

mod credentials;
mod files;
mod person;

use std::fmt;
use std::path::{Path, PathBuf};

use self::credentials::Credentials;
use self::files::{Files, Settings};
use super::url::{RemoteUrl, Transport};
use crate::core::names::Digest;
use crate::core::repository::RepositoryError;

/// By whose means a remote is reached.
#[derive(Clone)]
pub enum Access {
    /// As nobody: no configuration of the user or the machine counts, and no key but those of this directory, which
    /// has the files of a Kubernetes Secret: `username`, `password`, `token`, `bearerToken`, `ca.crt`, `tls.crt`,
    /// `tls.key`, `identity` or `ssh-privatekey`, `known_hosts`. Read again at every contact.
    Own {
        /// Where they are; `None` where the remote asks for nothing.
        credentials: Option<PathBuf>,
    },
    /// As the person who runs this process: their configuration, credential helpers, keys and known hosts count.
    Person {
        /// What of their clone's own settings is about reaching remotes, by git's names. May be secret.
        settings: Vec<(String, String)>,
    },
}

impl fmt::Debug for Access {
    /// Writes neither a key nor a setting, which may have one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { credentials } => f.debug_struct("Own").field("credentials", credentials).finish(),
            Self::Person { .. } => f.write_str("Person"),
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::Own { credentials: None }
    }
}

/// The variable by which what git starts finds the private directory.
const DIRECTORY: &str = "LOCKTENDER_ACCESS";

/// How the name of a private directory begins.
pub(super) const PREFIX: &str = "access-";

/// What one run of git is given.
pub(super) struct Grant {
    /// Environment variables, none of them secret; of two of a name the last counts.
    pub environment: Vec<(&'static str, String)>,
    /// Settings, none of them secret.
    pub settings: Vec<(String, String)>,
    /// Whether what the person's environment says of git counts.
    pub person: bool,
    /// What must never be printed.
    secrets: Vec<String>,
    /// Changes when the credentials do; `None` where there are none that could be refused.
    pub credentials: Option<Digest>,
    files: Option<Files>,
}

impl Grant {
    /// For work on the mirror alone, and for remotes that ask for nothing.
    pub fn nothing() -> Self {
        Self {
            environment: vec![("GIT_CONFIG_NOSYSTEM", "1".to_owned()), ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned())],
            settings: Vec::new(),
            person: false,
            secrets: Vec::new(),
            credentials: None,
            files: None,
        }
    }

    /// Takes what is secret, and what differs from run to run, out of what a program said.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(files) = &self.files {
            text = text.replace(&format!("{}/", files.path().display()), "");
        }
        let secrets = self.secrets.iter().filter(|secret| !secret.is_empty());
        secrets.fold(text, |text, secret| text.replace(secret.as_str(), "***"))
    }

    /// Keeps the private directory until the run is over.
    fn keep(&mut self, files: Files) {
        self.environment.push((DIRECTORY, files.path().display().to_string()));
        self.files = Some(files);
    }
}

impl Access {
    /// Returns the directory that is worth watching for other credentials.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Own { credentials } => credentials.as_deref(),
            Self::Person { .. } => None,
        }
    }

    /// Makes what one run of git needs to reach `url`; its private files lie below `root` for as long as it lives.
    ///
    /// # Errors
    ///
    /// The credentials cannot be used as they are, or nobody has said by which key the server is known.
    pub(super) fn grant(&self, url: &RemoteUrl, root: &Path) -> Result<Grant, RepositoryError> {
        match self {
            Self::Person { settings } => person::grant(settings, url, root),
            Self::Own { credentials } => {
                let network = !matches!(url.transport(), Transport::Local(_) | Transport::Git);
                match credentials {
                    Some(directory) if network => own(&Credentials::read(directory)?, url, root),
                    _ => own(&Credentials::default(), url, root),
                }
            }
        }
    }
}

/// Grants what the credentials have for this remote, and nothing else.
fn own(credentials: &Credentials, url: &RemoteUrl, root: &Path) -> Result<Grant, RepositoryError> {
    let mut grant = Grant::nothing();
    match url.transport() {
        // A local repository's hooks keep their home.
        Transport::Local(_) => return Ok(grant),
        Transport::Git => {}
        Transport::Ssh => {
            let agent = std::env::var_os("SSH_AUTH_SOCK").is_some();
            let ssh = credentials.for_ssh(url, agent)?;
            let files = Files::new(root)?;
            files.ssh(&ssh)?;
            grant.settings.push(("core.sshCommand".to_owned(), format!("ssh -F \"${DIRECTORY}/ssh_config\"")));
            grant.settings.push(("ssh.variant".to_owned(), "ssh".to_owned()));
            grant.credentials = Some(credentials.digest());
            grant.keep(files);
        }
        Transport::Http | Transport::Https => {
            let (files, mut settings) = (Files::new(root)?, Settings::default());
            let origin = url.origin().unwrap_or_default();
            let login = credentials.login(url);
            if let Some((user, password)) = &login {
                files.login(&mut settings, origin, user, password)?;
                grant.secrets.push(password.clone());
            }
            if let Some(token) = &credentials.bearer {
                settings.add(&format!("http.{origin}.extraHeader"), &format!("Authorization: Bearer {token}"));
                grant.secrets.push(token.clone());
            }
            files.tls(&mut settings, origin, credentials)?;
            let secret = login.is_some() || credentials.bearer.is_some() || credentials.certificate.is_some();
            grant.credentials = secret.then(|| credentials.digest());
            grant.environment.push(("GIT_CONFIG_GLOBAL", files.config(&settings)?));
            grant.keep(files);
        }
    }
    // No `~/.netrc` for a stranger.
    let home = grant.files.as_ref().map_or(root, Files::path).display().to_string();
    grant.environment.push(("HOME", home));
    Ok(grant)
}
