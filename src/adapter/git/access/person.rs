//! What counts where a person runs a command: all that counts when they run `git` themselves.

use std::path::Path;

use super::Grant;
use super::files::{Files, Settings};
use crate::adapter::git::url::RemoteUrl;
use crate::core::names::Digest;
use crate::core::repository::RepositoryError;

/// Grants everything that the person has, what the URL says of user and password, and their clone's own settings.
pub(super) fn grant(of_clone: &[(String, String)], url: &RemoteUrl, root: &Path) -> Result<Grant, RepositoryError> {
    let mut grant = Grant { environment: Vec::new(), person: true, ..Grant::nothing() };
    // What refuses one try refuses the next: `watch` must not lock a person out.
    grant.credentials = Some(Digest::of(b"a person's"));
    let login = url.origin().zip(url.login());
    if login.is_some() || !of_clone.is_empty() {
        let files = Files::new(root)?;
        let mut settings = Settings::default();
        for (name, value) in of_clone {
            settings.add(name, value);
        }
        if let Some((origin, login)) = login {
            settings.add(&format!("credential.{origin}.username"), &login.user);
            if let Some(password) = &login.password {
                files.login(&mut settings, origin, &login.user, password)?;
                grant.secrets.push(password.clone());
            }
        }
        grant.settings.push(("include.path".to_owned(), files.config(&settings)?));
        grant.keep(files);
    }
    if let Some(command) = ssh_command(of_clone) {
        grant.environment.push(("GIT_SSH_COMMAND", command));
    }
    Ok(grant)
}

/// Returns the person's `ssh` so that it asks nothing: nobody may be there to answer. `None` where they have it replaced
/// by another program, which may have other options.
fn ssh_command(of_clone: &[(String, String)]) -> Option<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let configured = || {
        let of_clone = of_clone.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("core.sshCommand"));
        let elsewhere = || git2::Config::open_default().ok()?.get_string("core.sshCommand").ok();
        of_clone.map(|(_, value)| value.clone()).or_else(elsewhere)
    };
    let command = match set("GIT_SSH_COMMAND").or_else(configured) {
        Some(command) => command,
        None if set("GIT_SSH").is_some() => return None,
        None => "ssh".to_owned(),
    };
    let program = command.split_whitespace().next()?;
    (Path::new(program).file_name()? == "ssh").then(|| format!("{command} -o BatchMode=yes"))
}
