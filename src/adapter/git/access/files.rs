//! The private files of one run, and how git and ssh read what is in them.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::TempDir;

use super::credentials::{Credentials, Ssh};
use super::{DIRECTORY, PREFIX};
use crate::core::repository::RepositoryError;

/// The private directory of one run: for its owner alone, and gone when this is.
pub(super) struct Files(TempDir);

/// Settings of git, in the order in which they are written.
#[derive(Default)]
pub(super) struct Settings(String);

impl Settings {
    /// Adds a setting by git's name for it: `section.key` or `section.subsection.key`.
    pub fn add(&mut self, name: &str, value: &str) {
        let Some((section, rest)) = name.split_once('.') else { return };
        let (header, key) = match rest.rsplit_once('.') {
            Some((subsection, key)) => (format!("[{section} \"{}\"]", escaped(subsection)), key),
            None => (format!("[{section}]"), rest),
        };
        self.0.push_str(&format!("{header}\n\t{key} = \"{}\"\n", escaped(value)));
    }
}

/// Escapes what ends a quoted value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Files {
    /// Makes the directory, below `root`.
    pub fn new(root: &Path) -> Result<Self, RepositoryError> {
        let owner_alone = Permissions::from_mode(0o700);
        let made = tempfile::Builder::new().prefix(PREFIX).permissions(owner_alone).tempdir_in(root);
        made.map(Self).map_err(failed)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path.
    fn write(&self, name: &str, content: &[u8]) -> Result<String, RepositoryError> {
        let path = self.path().join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        opened.and_then(|mut file| file.write_all(content)).map_err(failed)?;
        Ok(path.display().to_string())
    }

    /// Writes git's settings and returns the file's path.
    pub fn config(&self, settings: &Settings) -> Result<String, RepositoryError> {
        self.write("config", settings.0.as_bytes())
    }

    /// Lets a helper answer `origin`, and nobody else, with user and password. No other helper is asked for it, so that
    /// none keeps it.
    pub fn login(
        &self,
        settings: &mut Settings,
        origin: &str,
        user: &str,
        password: &str,
    ) -> Result<(), RepositoryError> {
        self.write("login", format!("username={user}\npassword={password}\n").as_bytes())?;
        settings.add(&format!("credential.{origin}.helper"), "");
        let helper = format!("!f() {{ test \"$1\" != get || cat \"${DIRECTORY}/login\"; }}; f");
        settings.add(&format!("credential.{origin}.helper"), &helper);
        Ok(())
    }

    /// Lets git believe this authority alone, and show this certificate.
    pub fn tls(&self, settings: &mut Settings, origin: &str, credentials: &Credentials) -> Result<(), RepositoryError> {
        if let Some(ca) = &credentials.ca {
            settings.add(&format!("http.{origin}.sslCAInfo"), &self.write("ca.crt", ca)?);
        }
        if let Some((certificate, key)) = &credentials.certificate {
            settings.add(&format!("http.{origin}.sslCert"), &self.write("tls.crt", certificate)?);
            settings.add(&format!("http.{origin}.sslKey"), &self.write("tls.key", key)?);
        }
        Ok(())
    }

    /// Lets `ssh` log in with this key to servers that are known by these, and do nothing else.
    pub fn ssh(&self, ssh: &Ssh<'_>) -> Result<(), RepositoryError> {
        let identity = match ssh.identity {
            Some(key) => {
                // OpenSSH does not take a key without the last line end, which people lose when they copy it.
                let end: &[u8] = if key.ends_with(b"\n") { b"" } else { b"\n" };
                let path = self.write("identity", &[key, end].concat())?;
                format!("IdentityFile {}\nIdentitiesOnly yes\nIdentityAgent none\n", for_ssh(&path))
            }
            None => "IdentityFile none\nIdentityAgent SSH_AUTH_SOCK\n".to_owned(),
        };
        let known_hosts = for_ssh(&self.write("known_hosts", ssh.known_hosts)?);
        let config = format!(
            "StrictHostKeyChecking yes\nUserKnownHostsFile {known_hosts}\nGlobalKnownHostsFile /dev/null\n\
             CheckHostIP no\nUpdateHostKeys no\n{identity}\
             BatchMode yes\nPreferredAuthentications publickey\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nForwardAgent no\nClearAllForwardings yes\nPermitLocalCommand no\n\
             ConnectTimeout 30\nServerAliveInterval 15\nServerAliveCountMax 3\nLogLevel ERROR\n"
        );
        self.write("ssh_config", config.as_bytes()).map(drop)
    }
}

fn failed(error: std::io::Error) -> RepositoryError {
    RepositoryError::Mirror(format!("cannot keep credentials for git: {error}"))
}

/// Quotes a path for `ssh_config`, which replaces `%h` and the like in it.
fn for_ssh(path: &str) -> String {
    format!("\"{}\"", path.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn git_reads_what_is_written_and_nobody_else_may() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path()).unwrap();
        let mut settings = Settings::default();
        files.login(&mut settings, "https://git.example:8443", "ada", "p\"w\\").unwrap();
        settings.add("core.sshCommand", "ssh -o 'X=\"\\y\"'");
        settings.add("url.git@git.example:.insteadOf", "https://git.example/");
        let config = files.config(&settings).unwrap();
        let ask = |name: &str| {
            let output = Command::new("git").args(["config", "-f", &config, "--get-all", name]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert!(ask("credential.https://git.example:8443.helper").starts_with("\n!f()"), "others are not asked");
        assert_eq!(ask("core.sshCommand"), "ssh -o 'X=\"\\y\"'\n");
        assert_eq!(ask("url.git@git.example:.insteadOf"), "https://git.example/\n");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(files.path()), mode(Path::new(&config))), (0o700, 0o600));
        assert_eq!(mode(&files.path().join("login")), 0o600);
        let path = files.path().to_owned();
        drop(files);
        assert!(!path.exists());
    }
}
