//! What is read from strangers, whatever they write: each answers soon, never panics, and what it took it would take
//! again. A failed assertion is a finding.

use locktender::{
    adapter::git::url::{Branch, RemoteUrl},
    core::{
        ledger::journal,
        manifest::{canonical_digest, parse, redact},
        names::{Digest, RolloutId},
        policy::{Decision, HumanDuration, read_application, read_decision, read_freeze, read_policy, read_settings},
        problem::Problem,
        render::Files,
        rollout::plan,
        yaml,
    },
};
use serde_json::Value;

/// The YAML reader: what it read is written as JSON, which is YAML, and reads as the same.
pub fn yaml(bytes: &[u8]) {
    match yaml::parse("fuzz.yaml", bytes, &yaml::Limits::MANIFESTS) {
        Ok(documents) => {
            for value in documents.into_iter().map(yaml::Node::into_value).filter(|value| !value.is_null()) {
                let read = yaml::parse("fuzz.json", value.to_string().as_bytes(), &yaml::Limits::MANIFESTS);
                let read: Vec<Value> = read.unwrap().into_iter().map(yaml::Node::into_value).collect();
                assert_eq!(read, [value]);
            }
        }
        Err(problem) => have_places(bytes, &[problem]),
    }
}

/// The files that people write: a value, or problems that have a place in the file.
pub fn files(bytes: &[u8]) {
    let problems = [
        read_policy("policies/a.yaml", bytes).err(),
        read_application("apps/a/app.yaml", bytes).err(),
        read_settings("locktender.yaml", bytes).err(),
        read_freeze("freezes/a.yaml", bytes).err(),
        read_decision("rollouts/a/0001/abort.yaml", bytes).err(),
    ];
    problems.iter().flatten().for_each(|problems| have_places(bytes, problems));
    match parse(&Files::from([("a.yaml".to_owned(), bytes.to_vec().into())]), "default", |_| None) {
        Ok(manifests) => {
            for manifest in manifests {
                assert_eq!(canonical_digest(&manifest.object.0), canonical_digest(&manifest.object.0.clone()));
                redact(&manifest.object);
            }
        }
        Err(problems) => have_places(bytes, &problems),
    }
}

/// The journal: what is believed is written as something that is believed, whole and from any record on.
pub fn journal(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(records) = journal::read(&text) else { return };
    let written = journal::write(&records);
    assert_eq!(journal::read(&written).unwrap(), records);
    for at in 1..records.len() {
        let rest = journal::write(&records[at..]);
        assert_eq!(journal::read_after(Some(&records[at - 1]), &rest).unwrap(), records[at..]);
        assert!(journal::read(&rest).is_err(), "a journal without its beginning is none");
    }
}

/// The plan: what is believed hashes to its hash, and is written as something that is believed.
pub fn plan(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = plan::newer_version(&text);
    let Ok(read) = plan::read(&text) else { return };
    assert_eq!(plan::hash(&read), read.hash);
    assert_eq!(plan::read(&plan::write(&read)).unwrap(), read);
}

/// Remotes, branches and other names, a line each.
pub fn url(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        if let Ok(remote) = RemoteUrl::parse(line) {
            let shown = remote.to_string();
            assert!(!shown.starts_with('-') && !shown.chars().any(char::is_control), "{shown:?}");
            // What is not plain is escaped for people.
            if !shown.contains('\\') {
                let again = RemoteUrl::parse(&shown).unwrap();
                assert_eq!(again.transport(), remote.transport(), "{line:?} is shown as {shown:?}");
            }
        }
        if let Ok(branch) = Branch::parse(line) {
            assert!(!branch.as_str().contains("..") && !branch.as_str().ends_with(".lock"), "{branch:?}");
        }
        if let Some(rollout) = RolloutId::parse(line) {
            assert_eq!(RolloutId::parse(&rollout.to_string()), Some(rollout));
        }
        if let Ok(digest) = Digest::parse(line) {
            assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        }
        if let Ok(duration) = HumanDuration::parse(line) {
            assert_eq!(HumanDuration::parse(&duration.to_string()), Ok(duration), "{line:?}");
        }
        if let Some(decision) = Decision::from_path(line) {
            assert_eq!(Decision::from_path(&decision.path()), Some(decision), "{line:?}");
        }
    }
}

fn have_places(bytes: &[u8], problems: &[Problem]) {
    let text = String::from_utf8_lossy(bytes);
    assert!(!problems.is_empty());
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
    for problem in problems {
        assert!(problem.line as usize <= lines, "{problem} of {lines} lines");
        assert!(!problem.render(Some(&text)).is_empty());
    }
}
