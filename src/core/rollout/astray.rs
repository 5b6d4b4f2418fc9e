//! Decisions that lie where no rollout reads them: of one that was never opened, or of none.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::{
    names::AppName,
    policy::{Decision as Verb, nearest},
};

/// Says why a file below an application's ledger decides nothing, by its path there: `0042/confirm/beta.yaml`. `None` where
/// a rollout reads it, now or when the next one opens, and where it is no decision.
pub fn astray(path: &str, opened: &BTreeSet<u32>) -> Option<String> {
    if Verb::from_path(path).is_some() {
        return Some(format!("it is in no rollout's directory; {}", known(opened)));
    }
    let (directory, file) = path.split_once('/')?;
    let is_number = directory.bytes().all(|digit| digit.is_ascii_digit());
    let is_meant = is_number && !matches!(file, "plan.yaml" | "journal.yaml") || Verb::from_path(file).is_some();
    (is_meant && !is_of_a_rollout(directory, opened))
        .then(|| format!("there is no rollout {directory}; {}", known(opened)))
}

/// Returns whether a directory below an application's ledger is of a rollout that was opened, or of the next one.
pub fn is_of_a_rollout(directory: &str, opened: &BTreeSet<u32>) -> bool {
    let number = directory.parse().ok().filter(|number| directory == named(*number));
    number.is_some_and(|number| opened.contains(&number) || number == next(opened))
}

/// Says the same of all that lies in a tree, by application, where nothing else is known of it: a rollout is there that has
/// a plan. `paths`: from the repository's root. `apps`: the applications that there are; a directory of none that never
/// had a rollout is told as a whole.
pub fn all_astray<'p>(
    paths: impl IntoIterator<Item = &'p str>,
    apps: &BTreeSet<AppName>,
) -> BTreeMap<AppName, Vec<String>> {
    let mut ledgers: BTreeMap<AppName, Vec<&str>> = BTreeMap::new();
    for path in paths {
        if let Some((app, path)) = path.strip_prefix("rollouts/").and_then(|path| path.split_once('/')) {
            ledgers.entry(AppName::new(app)).or_default().push(path);
        }
    }
    let mut told = BTreeMap::new();
    for (app, paths) in ledgers {
        let plans = paths.iter().filter_map(|path| path.strip_suffix("/plan.yaml")?.parse().ok());
        let opened: BTreeSet<u32> = plans.collect();
        let useless =
            |path: &&str| astray(path, &opened).map(|why| format!("rollouts/{app}/{path} counts for nothing: {why}"));
        let lines: Vec<String> = match (apps.contains(&app), opened.is_empty()) {
            (true, _) => paths.iter().filter_map(useless).collect(),
            (false, true) => vec![homeless(&app, apps)],
            // It is gone, and its rollouts are history.
            (false, false) => Vec::new(),
        };
        if !lines.is_empty() {
            told.insert(app, lines);
        }
    }
    told
}

fn homeless(app: &AppName, apps: &BTreeSet<AppName>) -> String {
    let near = nearest(app.as_str(), apps.iter().map(AppName::as_str));
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("what is decided in rollouts/{app} counts for nothing: there is no application `{app}`{near}")
}

fn next(opened: &BTreeSet<u32>) -> u32 {
    opened.last().map_or(1, |latest| latest.saturating_add(1))
}

fn named(number: u32) -> String {
    format!("{number:04}")
}

fn known(opened: &BTreeSet<u32>) -> String {
    let next = named(next(opened));
    match opened.last() {
        Some(latest) => format!("the latest is {}, the next will be {next}", named(*latest)),
        None => format!("the first will be {next}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides_about_a_rollout_that_there_is_not_is_told_which_there_are() {
        let opened = BTreeSet::from([1, 2, 3]);
        let cases = [
            ("0003/confirm/beta.yaml", None),
            ("0001/confirm/beta.yaml", None),
            // Written in advance: the record that opens it answers.
            ("0004/promote.yaml", None),
            ("0042/confirm/beta.yaml", Some("there is no rollout 0042; the latest is 0003, the next will be 0004")),
            ("0000/abort.yaml", Some("there is no rollout 0000; the latest is 0003, the next will be 0004")),
            ("3/confirm/beta.yaml", Some("there is no rollout 3; the latest is 0003, the next will be 0004")),
            ("three/abort.yaml", Some("there is no rollout three; the latest is 0003, the next will be 0004")),
            ("confirm/beta.yaml", Some("it is in no rollout's directory; the latest is 0003, the next will be 0004")),
            ("pause.yaml", Some("it is in no rollout's directory; the latest is 0003, the next will be 0004")),
            // A file that nobody could mean as a decision.
            ("README.md", None),
            ("notes/beta.yaml", None),
        ];
        for (path, why) in cases {
            assert_eq!(astray(path, &opened).as_deref(), why, "{path}");
        }
        assert_eq!(astray("0042/plan.yaml", &opened), None, "that is a record");
        let first = astray("0002/abort.yaml", &BTreeSet::new());
        assert_eq!(first.as_deref(), Some("there is no rollout 0002; the first will be 0001"));
    }

    #[test]
    fn a_tree_tells_which_decisions_nobody_reads() {
        let paths = [
            "apps/checkout/app.yaml",
            "rollouts/accepted.yaml",
            "rollouts/checkout/0001/plan.yaml",
            "rollouts/checkout/0001/confirm/beta.yaml",
            "rollouts/checkout/0002/abort.yaml",
            "rollouts/checkout/0003/abort.yaml",
            "rollouts/chekout/0001/confirm/beta.yaml",
            "rollouts/gone/0001/plan.yaml",
            "rollouts/gone/0007/abort.yaml",
        ];
        let told = all_astray(paths, &BTreeSet::from([AppName::new("checkout")]));
        let lines: Vec<&str> = told.values().flatten().map(String::as_str).collect();
        let expected = [
            "rollouts/checkout/0003/abort.yaml counts for nothing: there is no rollout 0003; the latest is 0001, the next \
             will be 0002",
            "what is decided in rollouts/chekout counts for nothing: there is no application `chekout`; did you mean \
             `checkout`?",
        ];
        assert_eq!(lines, expected);
    }
}
