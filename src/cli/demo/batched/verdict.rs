//! What the cluster and the repository show of the batched demo, beside what was promised.

use std::collections::BTreeMap;

use super::{
    super::{
        pods::{Asker, Pods},
        setting::Setting,
        table::{Row, Verdict, count, repaired, rollouts, verified},
    },
    story::{APP, Seen, VERSIONS},
};
use crate::{cli::error::Error, core::ledger::Event};

/// Compares what was seen with what is promised, and looks at cluster and repository once more.
///
/// # Errors
///
/// One of them does not answer.
pub async fn verdict(
    setting: &Setting,
    asker: &Asker,
    seen: &Seen,
    verify: Result<String, String>,
) -> Result<Verdict, Error> {
    let now = asker.pods().await?;
    let mut facts = vec![batches(seen), restarted(seen), at_rest(&now)];
    facts.push(repaired(setting, APP, &seen.before).await?);
    facts.push(records(setting).await?);
    facts.push(verified(verify));
    Ok(Verdict { header: &["dca", "dcb", "at 1.9", "at 2.0", "same pods"], steps: steps(seen), facts })
}

/// What is promised of a step: pods by unit at the version that is on its way, and how many pods there are.
const PROMISED: [(&str, [usize; 2], usize); 8] = [
    ("install: beta", [1, 1], 2),
    ("install: batch-1", [3, 3], 6),
    ("install: batch-2", [4, 6], 10),
    ("2.0: beta", [1, 1], 10),
    ("beta confirmed", [3, 3], 10),
    ("confirm reverted", [1, 1], 10),
    ("confirmed again", [3, 3], 10),
    ("aborted", [0, 0], 10),
];

fn steps(seen: &Seen) -> Vec<Row> {
    let installs = seen.install.iter().map(|(stage, pods)| (format!("install: {stage}"), pods, VERSIONS.0));
    let releases = seen.release.iter().map(|(step, pods)| ((*step).to_owned(), pods, VERSIONS.1));
    let all: Vec<(String, &Pods, &str)> = installs.chain(releases).collect();
    let installed = seen.install.last().map(|(_, pods)| pods);
    let row = |(what, promised, total): &(&str, [usize; 2], usize)| {
        let found = all.iter().find(|(step, ..)| step == what);
        let Some((_, pods, version)) = found else {
            return Row { what: (*what).to_owned(), seen: vec!["not seen".to_owned()], well: false };
        };
        let units = pods.at(version);
        let at = |unit: &str| units.get(unit).copied().unwrap_or(0);
        let [old, new] = [VERSIONS.0, VERSIONS.1].map(|version| pods.at(version).values().sum::<usize>());
        let is_release = *version == VERSIONS.1;
        let kept = installed.filter(|_| is_release).map(|installed| (pods.kept(installed), installed.0.len()));
        let well = [at("dca"), at("dcb")] == *promised
            && old + new == *total
            && pods.0.len() == *total
            && kept.is_none_or(|(kept, all)| kept == all);
        Row {
            what: (*what).to_owned(),
            seen: vec![
                at("dca").to_string(),
                at("dcb").to_string(),
                old.to_string(),
                new.to_string(),
                kept.map_or_else(|| "-".to_owned(), |(kept, all)| format!("{kept} of {all}")),
            ],
            well,
        }
    };
    PROMISED.iter().map(row).collect()
}

fn batches(seen: &Seen) -> Row {
    let mut before = 0;
    let sizes: Vec<usize> = seen
        .install
        .iter()
        .map(|(_, pods)| {
            let size = pods.0.len() - before.min(pods.0.len());
            before = pods.0.len();
            size
        })
        .collect();
    let shown: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    Row { what: "the install's batches".to_owned(), seen: vec![shown.join(", ")], well: sizes == [2, 4, 4] }
}

/// The abort restarted the pods that were at the new version, and no other.
fn restarted(seen: &Seen) -> Row {
    let what = "pods that the abort took back".to_owned();
    let mut steps = seen.release.iter().rev().map(|(_, pods)| pods);
    let (Some(after), Some(before)) = (steps.next(), steps.next()) else {
        return Row { what, seen: vec!["not seen".to_owned()], well: false };
    };
    let restarted = after.restarted(before);
    let new = before.0.iter().filter(|pod| pod.version == VERSIONS.1).count();
    let exactly = restarted.iter().all(|pod| pod.version == VERSIONS.1) && restarted.len() == new;
    let untouched = before.0.len() - restarted.len();
    let shown = format!("{} of the {new} at 2.0; {untouched} were not touched", restarted.len());
    Row { what, seen: vec![shown], well: exactly && new == 6 && untouched == 4 }
}

fn at_rest(now: &Pods) -> Row {
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &now.0 {
        *versions.entry(pod.version.as_str()).or_default() += 1;
    }
    let shown: Vec<String> = versions.iter().map(|(version, count)| format!("{count} pods answer {version}")).collect();
    let well = versions == BTreeMap::from([(VERSIONS.0, 10)]);
    Row { what: "the cluster now".to_owned(), seen: vec![shown.join(", ")], well }
}

/// What the journals say: how many records, how each rollout ended, and whose the confirms are.
async fn records(setting: &Setting) -> Result<Row, Error> {
    let rollouts = rollouts(setting, APP).await?;
    let all: usize = rollouts.iter().map(Vec::len).sum();
    let confirms: usize = rollouts.iter().map(|records| count(records, Event::ConfirmAccepted)).sum();
    let steps_back: usize = rollouts.iter().map(|records| count(records, Event::StageReverted)).sum();
    let well = match rollouts.as_slice() {
        [install, release] => {
            count(install, Event::Completed) == 1
                && count(release, Event::Aborted) == 1
                && count(release, Event::Reverted) == 1
                && (confirms, steps_back) == (4, 1)
        }
        _ => false,
    };
    let shown = format!(
        "{all} in {} rollouts: {confirms} confirms accepted, {steps_back} step back, {} aborted",
        rollouts.len(),
        rollouts.iter().filter(|records| count(records, Event::Aborted) > 0).count()
    );
    Ok(Row { what: "records in Git".to_owned(), seen: vec![shown], well })
}
