//! Group A with whole processes: `locktender run` as it is shipped, told to stop, halted and woken; a newer one's state; and
//! credentials that are rotated.

use std::{process::Command, time::Duration};

use locktender::core::{ledger::Event, rollout::report::Activity};
use serde_json::json;

use super::{program::Program, *};
use crate::support::{
    deployed,
    proxy::{Effect, On},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_05_told_to_stop_with_many_writes_in_flight() {
    // As many as may be under way at once.
    const COUNT: usize = 64;
    let name = |number: usize| format!("notes-{number:03}");
    let faulty = Faulty::without_controller(&[]).await;
    let held = faulty.proxy.inject(On::writes().when(|one| one.name.starts_with("notes-")), Effect::AnswerHeld);
    let mut first = Program::start(&faulty, &faulty.proxy.kubeconfig());
    faulty.commit("many", |clone| {
        for number in 0..COUNT {
            let (app, directory) = (APP.replace("checkout", &name(number)), format!("apps/{}", name(number)));
            let config =
                format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {}}}\ndata: {{a: b}}\n", name(number));
            clone.write(&format!("{directory}/app.yaml"), &app.replace(", policy: two-data-centers", ""));
            clone.write(&format!("{directory}/config.yaml"), &config);
        }
    });
    // The anchors take their part of what may be under way.
    held.reaches(COUNT / 2).await;
    let holder = faulty.holder().await.unwrap();
    first.signal("-TERM");
    let took = first.leaves().await;
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert_ne!(faulty.holder().await, Some(holder), "the lease is released");
    held.end();

    let _second = Program::start(&faulty, &faulty.kubeconfig());
    for number in 0..COUNT {
        faulty.until(&name(number), "it is complete", |seen| seen.has(1, Event::Completed)).await;
        assert_eq!(faulty.seen(&name(number)).await.count(1, Event::RolloutOpened), 1, "nothing is recorded twice");
        let path = format!("api/v1/namespaces/shop/configmaps/{}", name(number));
        assert_eq!(faulty.get(&path, "configmaps").await.unwrap()["data"]["a"], "b");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_08_a_leader_that_is_halted_and_woken_writes_nothing_more() {
    let policy = POLICY.replace("confirm: everyBatch", "confirm: none");
    let faulty = Faulty::without_controller(&[(POLICY_FILE, &policy)]).await;
    let a = Program::start(&faulty, &faulty.proxy.kubeconfig());
    let first = faulty.is_held_by_another_than(None).await;
    let _b = Program::start(&faulty, &faulty.kubeconfig());
    faulty.merge_with(&[]);
    faulty.until("checkout", "1.9 runs", |seen| seen.has(1, Event::Completed)).await;
    let held = faulty.proxy.inject(On::writes().when(Asked::sets_images), Effect::AnswerHeld);
    faulty.set_tag("2.0");
    held.reaches(1).await;
    a.signal("-STOP");
    held.end();
    faulty.is_held_by_another_than(Some(&first)).await;
    let seen = faulty.until("checkout", "another completes it", |seen| seen.has(2, Event::Completed)).await;
    assert_eq!(seen.pods(), "2.0: 10");
    let tip = faulty.remote.rev("refs/heads/main");
    faulty.proxy.forget();
    a.signal("-CONT");
    faulty.rest().await;
    // What its connection had already may still arrive: it names what it was decided on, so that the server refuses it.
    let through = faulty.proxy.writes().into_iter().filter(Asked::is_done);
    let others = through.filter(|one| one.resource != "leases.coordination.k8s.io");
    assert_eq!(in_words(&others.collect::<Vec<_>>()), Vec::<String>::new());
    assert_eq!(faulty.remote.rev("refs/heads/main"), tip, "nor does it push");
    let seen = faulty.seen("checkout").await;
    assert_eq!((seen.pods(), seen.count(2, Event::Completed)), ("2.0: 10".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_10_what_a_newer_controller_opened_is_left_alone() {
    let mut faulty = Faulty::installed().await;
    faulty.release.kill().await;
    faulty.commit("checkout 0002: opened by a newer controller", |clone| {
        clone.pull();
        let first = |file: &str| clone.read(&format!("rollouts/checkout/0001/{file}")).unwrap();
        let plan = first("plan.yaml").replace("v1alpha1", "v2").replace("checkout/0001", "checkout/0002");
        clone.write("rollouts/checkout/0002/plan.yaml", &plan);
        clone.write("rollouts/checkout/0002/journal.yaml", &first("journal.yaml"));
        clone.write(DEPLOYMENT, &deployment("checkout", "2.0"));
    });
    let tip = faulty.remote.rev("refs/heads/main");
    faulty.proxy.forget();
    faulty.release.start().await;
    let seen = faulty.says("checkout", "a newer Locktender opened checkout/0002").await;
    assert!(seen.report.is_some_and(|report| report.activity == Activity::Held));
    faulty.rest().await;
    assert_eq!(in_words(&faulty.proxy.writes()), Vec::<String>::new());
    assert_eq!(faulty.remote.rev("refs/heads/main"), tip);
    assert_eq!(faulty.seen("checkout").await.pods(), "1.9: 10");
    faulty.release.judged = false;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real control plane: the sandbox knows one token, for ever"]
async fn fault_86_a_token_that_is_rotated_and_the_old_one_revoked() {
    let mut release = Release::checkout(Place::live()).await;
    release.kill().await;
    let admin = release.kubeconfig();
    let files = tempfile::tempdir().unwrap();
    let file = deployed::install(&admin, "deploy/kustomize/base", "locktender", files.path());
    let space = ["--namespace", deployed::NAMESPACE];
    // A token lives as long as what it is bound to.
    let bound = |name: &str| {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": deployed::NAMESPACE}});
        deployed::apply(&admin, &[secret]);
        let token = ["create", "token", "locktender", "--bound-object-kind", "Secret", "--bound-object-name", name];
        deployed::kubectl(&admin, &[&space[..], &token[..]].concat(), "").trim().to_owned()
    };
    deployed::with_token(&admin, &bound("first"), &file);
    release.reach_as(file.clone());
    release.start().await;
    release.set_tag("2.0");
    release.waits(2, "beta", "1.9: 8, 2.0: 2").await;

    let second = bound("second");
    // As a kubelet does it: the file is another one at once.
    let fresh = files.path().join("fresh");
    deployed::with_token(&admin, &second, &fresh);
    std::fs::rename(&fresh, &file).unwrap();
    deployed::kubectl(&admin, &[&space[..], &["delete", "secret", "first"]].concat(), "");
    release.complete(2).await;
    release.stable(2, "2.0: 10").await;
    deployed::kubectl(&admin, &[&space[..], &["delete", "secret", "second"]].concat(), "");
}

/// A file system of a megabyte, until it is dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let small = Self(tempfile::tempdir().unwrap());
        small.run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
        small
    }

    fn run(&self, program: &str, args: &[&str]) {
        let done = Command::new(program).args(args).arg(self.0.path()).status().unwrap();
        assert!(done.success(), "{program} {args:?}");
    }

    /// Writes until nothing fits in any more.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [4096, 1] {
            let bytes = vec![0; size];
            while std::io::Write::write_all(&mut file, &bytes).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.run("umount", &["--lazy"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a file system: on a real control plane alone, which runs in a namespace of mounts"]
async fn fault_88_a_full_disk_holds_what_is_merged_until_there_is_room() {
    let policy = POLICY.replace("confirm: everyBatch", "confirm: none");
    let faulty = Faulty::without_controller(&[(POLICY_FILE, &policy)]).await;
    let disk = Small::mount();
    let mirror = tempfile::tempdir_in(disk.0.path()).unwrap();
    let _program = Program::with_mirror(&faulty, &faulty.proxy.kubeconfig(), mirror);
    faulty.is_held_by_another_than(None).await;
    faulty.merge_with(&[]);
    faulty.until("checkout", "1.9 runs", |seen| seen.has(1, Event::Completed)).await;
    faulty.rest().await;

    disk.fill();
    faulty.set_tag("2.0");
    let tip = faulty.remote.rev("refs/heads/main");
    faulty.proxy.forget();
    faulty.rest().await;
    // What its connection had already may still arrive: it names what it was decided on, so that the server refuses it.
    let through = faulty.proxy.writes().into_iter().filter(Asked::is_done);
    let others = through.filter(|one| one.resource != "leases.coordination.k8s.io");
    assert_eq!(in_words(&others.collect::<Vec<_>>()), Vec::<String>::new(), "nothing is begun that cannot be kept");
    assert_eq!(faulty.remote.rev("refs/heads/main"), tip);

    disk.empty();
    let seen = faulty.until("checkout", "it goes on by itself", |seen| seen.has(2, Event::Completed)).await;
    assert_eq!((seen.pods(), seen.count(2, Event::RolloutOpened)), ("2.0: 10".to_owned(), 1));
}
