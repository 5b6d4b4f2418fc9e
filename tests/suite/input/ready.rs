//! The ready policies and the examples are right, and mean what their names say.

use std::{collections::BTreeMap, process::Command, time::Duration};

use locktender::core::{
    manifest::{is_sliced, stage},
    names::AppName,
    policy::{
        Batched, Confirm, Drift, IntOrPercent, OnAbort, OnFailure, OnNewRevision, RollbackStages, RolloutPolicy, Share,
        Strategy, Update, read_policy,
    },
    problem::Problem,
    validate::validate,
};

use super::files::{directories, package, read};

fn policy(name: &str) -> RolloutPolicy {
    let bytes = std::fs::read(package(&format!("policies/{name}.yaml"))).unwrap();
    read_policy(&format!("policies/{name}.yaml"), &bytes).unwrap().value
}

fn batched(policy: &RolloutPolicy) -> &Batched {
    let Strategy::Batched(batched) = &policy.strategy else { unreachable!("{}", policy.name) };
    batched
}

#[test]
fn every_ready_policy_reads() {
    for path in std::fs::read_dir(package("policies")).unwrap() {
        let path = path.unwrap().path();
        policy(path.file_stem().unwrap().to_str().unwrap());
    }
}

#[test]
fn the_designs_own_policy_reads_as_the_design_says() {
    let policy = policy("two-data-centers");
    assert_eq!(policy.progress_deadline, Duration::from_secs(600));
    assert_eq!((policy.on_failure, policy.on_abort), (OnFailure::Abort, OnAbort::Revert));
    assert_eq!((policy.rollback.stages, policy.rollback.window), (RollbackStages::Skip, 3));
    assert_eq!((policy.on_new_revision, policy.drift), (OnNewRevision::Supersede, Drift::Correct));
    assert_eq!(policy.prune.confirm_above.get(), 50);
    let batched = batched(&policy);
    let topology = batched.pods.topology.as_ref().unwrap();
    assert_eq!(topology.unit_type, "topology.kubernetes.io/zone");
    assert_eq!(topology.units, ["dca".into(), "dcb".into()]);
    assert_eq!(topology.unit_replicas["dca"], Share::Count(4));
    assert_eq!(topology.unit_replicas["dcb"].to_string(), "60%");
    assert_eq!(topology.auto_reschedule, Some(Duration::from_secs(10)));
    assert_eq!((batched.pods.update, batched.confirm), (Update::InPlaceIfPossible, Confirm::EveryBatch));
    assert_eq!((batched.beta.per_unit, batched.batch_size), (1, IntOrPercent::Count(4)));
    assert_eq!(
        (batched.pods.min_ready, batched.pods.max_unavailable.to_string().as_str()),
        (Duration::from_secs(30), "25%")
    );
    assert_eq!(batched.pods.graceful.grace_period, Duration::from_secs(3));
    assert_eq!(batched.pods.graceful.finalizers, ["slb.example.com/protected"]);
}

#[test]
fn defaults_are_the_designs() {
    let text = b"apiVersion: locktender.dev/v1alpha1
kind: RolloutPolicy
metadata: {name: plain}
spec: {strategy: {batched: {}}}
";
    let plain = read_policy("policies/plain.yaml", text).unwrap().value;
    let mut ready = policy("two-data-centers");
    let Strategy::Batched(batched) = &mut ready.strategy else { unreachable!("it is batched") };
    batched.pods.topology = None;
    batched.pods.min_ready = Duration::ZERO;
    batched.pods.graceful.finalizers.clear();
    batched.batch_size = batched.pods.max_unavailable;
    ready.name = "plain".to_owned();
    assert_eq!(plain, ready);
}

#[test]
fn a_policys_digest_is_of_what_it_means() {
    let text = std::fs::read_to_string(package("policies/two-data-centers.yaml")).unwrap();
    let read = |text: &str| read_policy("policies/two-data-centers.yaml", text.as_bytes()).unwrap().value;
    let policy = read(&text);
    let without_comments: String =
        text.lines().map(|line| format!("{}\n", line.split(" #").next().unwrap_or(line))).collect();
    let without_defaults = without_comments.replace("  onFailure: abort", "").replace("      beta: {perUnit: 1}", "");
    assert_eq!(policy.digest(), read(&without_defaults).digest());
    assert_ne!(policy.digest(), read(&text.replace("batchSize: 4", "batchSize: 5")).digest());
    // The plan keeps a policy: it comes back as it was.
    let kept = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<RolloutPolicy>(&kept).unwrap(), policy);
}

/// Renders what an example's Kustomize directories hold, as the renderer does.
fn rendered(root: &std::path::Path) -> BTreeMap<AppName, Result<Vec<u8>, Problem>> {
    let kustomized =
        directories(&root.join("apps")).into_iter().filter(|path| path.join("kustomization.yaml").exists());
    let render = |path: std::path::PathBuf| {
        let output = Command::new("kubectl").arg("kustomize").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (AppName::new(path.file_name().unwrap().to_str().unwrap()), Ok(output.stdout))
    };
    kustomized.map(render).collect()
}

#[test]
fn every_example_is_a_valid_release_repository() {
    let examples = directories(&package("examples"));
    let names: Vec<&str> = examples.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    let wanted = [
        "analysis",
        "blue-green",
        "canary",
        "canary-router",
        "configuration",
        "kustomize",
        "small",
        "tenants",
        "two-data-centers",
        "workloads",
    ];
    assert_eq!(names, wanted);
    for example in &examples {
        let found = validate(&read(example), &rendered(example), |_| None);
        assert_eq!(found.all_problems(), Vec::<&Problem>::new(), "{}", example.display());
        assert!(!found.applications.is_empty(), "{}", example.display());
        for (name, (_, manifests)) in &found.applications {
            assert!(!manifests.is_empty(), "{name} of {} renders nothing", example.display());
        }
    }
}

#[test]
fn the_example_of_configuration_moves_it_with_the_pods() {
    let found = validate(&read(&package("examples/configuration")), &BTreeMap::new(), |_| None);
    let (_, manifests) = &found.applications["search"];
    let objects: Vec<_> = manifests.iter().map(|manifest| manifest.object.clone()).collect();
    let staged = stage(&objects, &is_sliced);
    let read: Vec<&str> = staged.workloads[0].configuration.iter().map(|object| object.text(&["kind"])).collect();
    assert_eq!(read, ["ConfigMap", "Secret"]);
    assert_eq!(staged.others.len(), 1, "only the Service is left");
}

/// A repository of many applications is checked as a whole by `validate`; its time grows with the files, no faster.
#[test]
fn two_thousand_applications_are_checked_in_seconds() {
    let one = read(&package("examples/two-data-centers"));
    let mut many = locktender::core::render::Files::new();
    for number in 0..2_000 {
        for (path, bytes) in &one {
            let text = String::from_utf8_lossy(bytes).replace("checkout", &format!("checkout-{number}"));
            many.insert(path.replace("checkout", &format!("checkout-{number}")), text.into_bytes().into());
        }
    }
    let started = std::time::Instant::now();
    let found = validate(&many, &BTreeMap::new(), |_| None);
    assert_eq!((found.applications.len(), found.all_problems().len()), (2_000, 0));
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
}
