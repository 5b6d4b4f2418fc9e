//! How many requests a rollout costs: `golden/requests.txt` has what is expected, so that one more is seen.
//!
//! Each line has a verb, a resource, and how many: a number, or `a..b` where it depends on the clock, which the file then
//! says. What is not in the file must not be asked. How often Git is asked where the branch is depends on the clock alone,
//! and is not counted.

use std::{collections::BTreeMap, fmt::Write as _};

use locktender::{adapter::git::RemoteOperation, core::rollout::report::Activity};

use super::log::AuditLog;
use crate::histories::release::{Place, Release};

type Counts = BTreeMap<String, u64>;

/// A release whose requests are counted from one mark to the next.
struct Counted {
    release: Release,
    audit: AuditLog,
    git: Counts,
    scenarios: Vec<(&'static str, Counts)>,
}

impl Counted {
    fn git(&self) -> Counts {
        let counts = self.release.git.as_ref().unwrap().snapshot().into_iter();
        let counted = counts.filter(|((operation, _), _)| *operation != RemoteOperation::Ask);
        counted
            .map(|((operation, result), count)| (format!("{operation:?} {result:?}").to_lowercase(), count))
            .collect()
    }

    /// Once everything has come to rest, notes what was asked since the last mark.
    async fn mark(&mut self, scenario: &'static str) {
        self.release.rest().await;
        let mut counts = Counts::new();
        for request in self.audit.news().into_iter().filter(|request| request.is_ours()) {
            let refused = if (200..300).contains(&request.code) { String::new() } else { format!(" {}", request.code) };
            let subresource = if request.subresource.is_empty() { "" } else { "/" };
            let what = format!("{} {}{subresource}{}{refused}", request.verb, request.resource, request.subresource);
            *counts.entry(what).or_default() += 1;
        }
        let git = self.git();
        for (what, count) in &git {
            let before = self.git.get(what).copied().unwrap_or(0);
            if *count > before {
                counts.insert(format!("git {what}"), count - before);
            }
        }
        self.git = git;
        self.scenarios.push((scenario, counts));
    }
}

/// What is expected of one scenario: verb and resource, and how often at least and at most.
fn expected(golden: &str) -> BTreeMap<String, BTreeMap<String, (u64, u64)>> {
    let mut scenarios: BTreeMap<String, BTreeMap<String, (u64, u64)>> = BTreeMap::new();
    let mut scenario = String::new();
    for line in golden.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(line) = line.strip_prefix("  ") else {
            scenario = line.to_owned();
            scenarios.entry(scenario.clone()).or_default();
            continue;
        };
        let (count, what) = line.trim_start().split_once(' ').unwrap();
        let (least, most) = count.split_once("..").unwrap_or((count, count));
        let bounds = (least.parse().unwrap(), most.parse().unwrap());
        assert!(scenarios.get_mut(&scenario).unwrap().insert(what.to_owned(), bounds).is_none(), "twice: {line}");
    }
    scenarios
}

/// How often something may be asked: as the file says; and a conflict for two writes, after which the object is read.
fn bounds(what: &str, wanted: &BTreeMap<String, (u64, u64)>, counts: &Counts) -> (u64, u64) {
    if let Some(bounds) = wanted.get(what) {
        return *bounds;
    }
    let conflicts = |what: &str| wanted.get(what).map_or(0, |(_, most)| most.div_ceil(2));
    if let Some(write) = what.strip_suffix(" 409") {
        return (0, conflicts(write));
    }
    let Some(resource) = what.strip_prefix("get ") else { return (0, 0) };
    let refused = ["patch", "apply"].map(|verb| counts.get(&format!("{verb} {resource} 409")).copied().unwrap_or(0));
    (0, refused.iter().sum())
}

/// Says where counts are not what is expected.
fn differences(golden: &str, scenarios: &[(&str, Counts)]) -> String {
    let expected = expected(golden);
    let mut text = String::new();
    for (scenario, counts) in scenarios {
        let nothing = BTreeMap::new();
        let wanted = expected.get(*scenario).unwrap_or(&nothing);
        let mut wrong = String::new();
        for what in wanted.keys().chain(counts.keys().filter(|what| !wanted.contains_key(*what))) {
            let count = counts.get(what).copied().unwrap_or(0);
            let (least, most) = bounds(what, wanted, counts);
            if !(least..=most).contains(&count) {
                let bounds = if least == most { least.to_string() } else { format!("{least}..{most}") };
                let _ = writeln!(wrong, "- {bounds:>6} {what}\n+ {count:>6} {what}");
            }
        }
        if !wrong.is_empty() {
            let _ = writeln!(text, "{scenario}\n{wrong}");
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_asks_as_much_as_it_did() {
    let release = Release::checkout_with(Place::live(), &[]).await;
    let (audit, _) = release.audit();
    let mut counted = Counted { release, audit, git: Counts::new(), scenarios: Vec::new() };
    counted.release.install().await;
    counted.mark("installing ten").await;
    counted.mark("nothing to do").await;

    counted.release.set_tag("2.0");
    counted.release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    counted.mark("the beta group of two").await;
    let confirm = counted.release.confirm(2, "beta");
    counted.release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    counted.mark("a batch of four").await;
    counted.release.reverts(&confirm);
    counted.release.waits(2, "beta", "1.9: 8, 2.0: 2").await;
    counted.mark("stepping back by four").await;
    counted.release.decide(2, "confirm/beta", "message: again\n");
    counted.release.waits(2, "batch-1", "1.9: 4, 2.0: 6").await;
    counted.mark("the batch again").await;
    counted.release.confirm(2, "batch-1");
    counted.release.stable(2, "2.0: 10").await;
    counted.mark("the last batch of four").await;

    counted.release.set_tag("2.1");
    counted.release.waits(3, "beta", "2.0: 8, 2.1: 2").await;
    counted.mark("the next beta group").await;
    counted.release.decide(3, "abort", "");
    counted
        .release
        .until("checkout", "it is repaired", |seen| seen.is(3, Activity::Stable) && seen.pods() == "2.0: 10")
        .await;
    counted.mark("aborting two").await;
    counted.release.commit("twelve", |clone| {
        clone.replace(crate::histories::checkout::DEPLOYMENT, "replicas: 10", "replicas: 12");
    });
    counted.release.until("checkout", "twelve", |seen| seen.pods() == "2.0: 12").await;
    counted.mark("two more replicas").await;
    counted.mark("nothing to do, again").await;

    let mut told = String::new();
    for (scenario, counts) in &counted.scenarios {
        let _ = writeln!(told, "{scenario}");
        for (what, count) in counts {
            let _ = writeln!(told, "  {count:>6} {what}");
        }
    }
    println!("{told}");
    let differ = differences(include_str!("golden/requests.txt"), &counted.scenarios);
    assert!(differ.is_empty(), "- what golden/requests.txt says, + what was asked\n\n{differ}");
}

#[test]
fn one_request_more_is_told() {
    let golden = "# why\none pod\n       3 patch pods\n    1..2 apply configmaps\nnothing\n";
    let counts =
        |pods, anchor| Counts::from([("patch pods".to_owned(), pods), ("apply configmaps".to_owned(), anchor)]);
    assert_eq!(differences(golden, &[("one pod", counts(3, 2)), ("nothing", Counts::new())]), "");
    let conflicts = |patches: u64, gets: u64| {
        let mut counts = counts(3, 2);
        counts.extend([("patch pods 409".to_owned(), patches), ("get pods".to_owned(), gets)]);
        differences(golden, &[("one pod", counts)])
    };
    assert_eq!(conflicts(2, 2), "");
    assert_eq!(conflicts(3, 3), "one pod\n-   0..2 patch pods 409\n+      3 patch pods 409\n\n");
    assert_eq!(conflicts(1, 2), "one pod\n-   0..1 get pods\n+      2 get pods\n\n");
    let told = differences(golden, &[("one pod", counts(4, 2))]);
    assert_eq!(told, "one pod\n-      3 patch pods\n+      4 patch pods\n\n");
    let told = differences(golden, &[("one pod", counts(3, 0)), ("nothing", counts(0, 1))]);
    assert_eq!(
        told,
        "one pod\n-   1..2 apply configmaps\n+      0 apply configmaps\n\nnothing\n-      0 apply configmaps\n+      1 apply configmaps\n\n"
    );
}
