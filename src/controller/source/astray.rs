//! Decisions that nobody answers: in the directory of no rollout, or of no application.

use std::collections::BTreeSet;

use crate::core::{
    names::{AppName, Revision},
    repository::{Entry, EntryKind, Repository, RepositoryError},
    rollout,
};

/// Where the ledgers are.
const LEDGER: &str = "rollouts";

/// So many are named of one application: who sees these looks at the rest.
const NAMED: usize = 20;

/// Returns the directory of an application's ledger.
pub fn ledger_of(app: &AppName) -> String {
    format!("{LEDGER}/{app}")
}

/// Lists decisions that are in no directory of a rollout, opened or next, by their paths below the application's ledger.
/// `entries`: what lies in the ledger's directory.
///
/// # Errors
///
/// The mirror cannot be read.
pub async fn astray(
    repository: &dyn Repository,
    at: &Revision,
    entries: &[Entry],
    opened: &BTreeSet<u32>,
) -> Result<Vec<String>, RepositoryError> {
    let mut paths = Vec::new();
    for entry in entries {
        let Some((ledger, name)) = entry.path.rsplit_once('/') else { continue };
        if entry.kind != EntryKind::Directory {
            paths.push(name.to_owned());
        } else if !rollout::is_of_a_rollout(name, opened) {
            let files = repository.files(at, &entry.path).await?.into_iter();
            paths.extend(files.filter_map(|file| Some(file.path.strip_prefix(ledger)?.strip_prefix('/')?.to_owned())));
        }
        paths.retain(|path| rollout::astray(path, opened).is_some());
        paths.truncate(NAMED);
    }
    Ok(paths)
}

/// Says of directories of the ledger that belong to no application what is decided in them for nothing.
///
/// # Errors
///
/// The mirror cannot be read.
pub async fn homeless(
    repository: &dyn Repository,
    at: &Revision,
    apps: &BTreeSet<AppName>,
) -> Result<Vec<String>, RepositoryError> {
    let mut paths = Vec::new();
    for entry in repository.directory(at, LEDGER).await?.unwrap_or_default() {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        if entry.kind == EntryKind::Directory && !apps.contains(&AppName::new(name)) {
            paths.extend(repository.files(at, &entry.path).await?.into_iter().map(|file| file.path));
        }
    }
    Ok(rollout::all_astray(paths.iter().map(String::as_str), apps).into_values().flatten().collect())
}
