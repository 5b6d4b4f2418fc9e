//! Gates: what a person decides next, as the commands that are typed and as what is in the repository after them.

use std::path::Path;

use super::repositories::Repositories;

/// What a person is asked for.
pub struct Gate {
    /// What happens, in a sentence.
    pub asks: String,
    /// The commands, for a shell in the clone.
    pub commands: Vec<String>,
    /// By what the repository shows that they were typed, wherever that was.
    pub decided: Decided,
}

/// What the tip of the release repository shows once the commands were typed.
pub enum Decided {
    /// A file is there.
    There(String),
    /// A file is there no more.
    Gone(String),
    /// A file says this.
    Says(String, String),
}

impl Decided {
    /// Asks the repository.
    pub async fn holds(&self, repositories: &Repositories) -> bool {
        match self {
            Self::There(path) => repositories.file(path).await.is_some(),
            Self::Gone(path) => repositories.file(path).await.is_none(),
            Self::Says(path, text) => repositories.file(path).await.is_some_and(|content| content.contains(text)),
        }
    }

    /// Returns the file that it is about.
    pub fn path(&self) -> &str {
        match self {
            Self::There(path) | Self::Gone(path) | Self::Says(path, _) => path,
        }
    }
}

/// Returns the line that takes a shell to the clone.
pub fn change_to(clone: &Path) -> String {
    format!("cd '{}'", clone.display())
}

/// The path of a confirm.
pub fn confirm_path(app: &str, rollout: u32, stage: &str) -> String {
    format!("rollouts/{app}/{rollout:04}/confirm/{stage}.yaml")
}

/// Confirms a stage.
pub fn confirm(app: &str, rollout: u32, stage: &str, asks: &str) -> Gate {
    let path = confirm_path(app, rollout, stage);
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Gate {
        asks: asks.to_owned(),
        commands: vec![
            "git pull --quiet".to_owned(),
            format!("mkdir -p {directory} && touch {path}"),
            format!("git add {path} && git commit --quiet -m '{app}: go on after {stage}'"),
            "git push --quiet".to_owned(),
        ],
        decided: Decided::There(path),
    }
}

/// Releases another version: a branch, and its merge.
pub fn merge(app: &str, from: &str, to: &str, asks: &str) -> Gate {
    let file = format!("apps/{app}/deployment.yaml");
    Gate {
        asks: asks.to_owned(),
        commands: vec![
            format!("git pull --quiet && git switch --quiet --create {app}-{to}"),
            format!("sed -i 's/{app}:{from}/{app}:{to}/' {file}"),
            format!("git commit --quiet --all -m '{app} {to}' && git switch --quiet main"),
            format!("git merge --quiet --no-ff -m 'Merge {app} {to}' {app}-{to}"),
            "git push --quiet".to_owned(),
        ],
        decided: Decided::Says(file, format!("{app}:{to}")),
    }
}

/// Reverts the commit that confirmed a stage.
pub fn revert(app: &str, commit: &str, rollout: u32, stage: &str, asks: &str) -> Gate {
    Gate {
        asks: asks.to_owned(),
        commands: vec![format!("git pull --quiet && git revert --no-edit {commit}"), "git push --quiet".to_owned()],
        decided: Decided::Gone(confirm_path(app, rollout, stage)),
    }
}

/// Aborts a rollout.
pub fn abort(app: &str, rollout: u32, asks: &str) -> Gate {
    let path = format!("rollouts/{app}/{rollout:04}/abort.yaml");
    Gate {
        asks: asks.to_owned(),
        commands: vec![
            "git pull --quiet".to_owned(),
            format!("echo 'message: the error rate went up' > {path}"),
            format!("git add {path} && git commit --quiet -m 'abort {app} {rollout:04}'"),
            "git push --quiet".to_owned(),
        ],
        decided: Decided::There(path),
    }
}

/// Passes the confirms and pauses that are left.
pub fn promote(app: &str, rollout: u32, asks: &str) -> Gate {
    let path = format!("rollouts/{app}/{rollout:04}/promote.yaml");
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    Gate {
        asks: asks.to_owned(),
        commands: vec![
            "git pull --quiet".to_owned(),
            format!("mkdir -p {directory} && touch {path}"),
            format!("git add {path} && git commit --quiet -m 'promote {app} {rollout:04}'"),
            "git push --quiet".to_owned(),
        ],
        decided: Decided::There(path),
    }
}
