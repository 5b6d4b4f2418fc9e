//! Row 7 with the program as it is shipped: less memory than what it is given to read would take.

use std::{fmt::Write as _, os::unix::process::ExitStatusExt as _, process::Command};

use locktender::core::ledger::Event;
use serde_json::json;

use super::{program::Program, *};
use crate::support::proxy::{Effect, On};

const MIB: u64 = 1 << 20;

/// 1.9 runs, by a program; nobody is asked for a confirm.
async fn installed() -> (Faulty, Program) {
    let policy = POLICY.replace("confirm: everyBatch", "confirm: none");
    let faulty = Faulty::without_controller(&[(POLICY_FILE, &policy)]).await;
    let program = Program::start(&faulty, &faulty.proxy.kubeconfig());
    faulty.merge_with(&[]);
    faulty.until("checkout", "1.9 runs", |seen| seen.has(1, Event::Completed)).await;
    (faulty, program)
}

/// Lets a program, and those that it starts, have so many bytes more than it has.
fn gets_no_more_than(program: &Program, more: u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let has: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    let limit = format!("--data={}", has * 1024 + more);
    let set = Command::new("prlimit").args(["--pid", &program.id().to_string(), &limit]).status().unwrap();
    assert!(set.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_07_a_file_that_would_not_fit_into_memory_stops_its_application_alone() {
    const CONFIG: &str = "apps/huge/config.yaml";
    let (faulty, mut program) = installed().await;
    // Git itself needs the file's size and a bit; read as YAML it would take ten times that.
    gets_no_more_than(&program, 256 * MIB);
    faulty.commit("2.0, and a huge application", |clone| {
        clone.write("apps/huge/app.yaml", &APP.replace("checkout", "huge").replace(", policy: two-data-centers", ""));
        let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: huge}\ndata:\n".to_owned();
        for number in 0..2_000_000 {
            writeln!(text, "  entry-{number:07}: {:032}", number).unwrap();
        }
        assert!(text.len() as u64 > 64 * MIB);
        clone.write(CONFIG, &text);
        let deployment = clone.read(DEPLOYMENT).unwrap();
        clone.write(DEPLOYMENT, &deployment.replace("checkout:1.9", "checkout:2.0"));
    });
    let seen = faulty.until("checkout", "it goes on", |seen| seen.has(2, Event::Completed)).await;
    assert_eq!(seen.pods(), "2.0: 10");
    assert!(program.ended().is_none(), "it needs no more than it may have");
    assert!(faulty.ledger("huge").is_empty(), "nothing of what cannot be read is begun");

    faulty.commit("not so huge", |clone| {
        clone.write(CONFIG, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: huge}\ndata: {a: b}\n");
    });
    faulty.until("huge", "it is applied", |seen| seen.has(1, Event::Completed)).await;
    assert!(program.ended().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_07_out_of_memory_in_the_middle_of_a_batch_and_started_with_more() {
    let (faulty, mut program) = installed().await;
    let held = faulty.proxy.inject(On::writes().when(Asked::sets_images), Effect::AnswerHeld);
    faulty.set_tag("2.0");
    held.reaches(1).await;
    gets_no_more_than(&program, 16 * MIB);
    // Somebody fills the cluster: whoever watches it has to read that.
    for number in 0..200 {
        if program.ended().is_some() {
            break;
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("filler-{number}")},
            "data": {"filler": "x".repeat(900 << 10)},
        });
        faulty.live().ask("POST", "api/v1/namespaces/shop/configmaps", map).await.unwrap();
    }
    program.leaves().await;
    let how = program.ended().unwrap();
    assert!(how.signal().is_some(), "it is ended where it is: {how}");
    held.end();

    let _another = Program::start(&faulty, &faulty.proxy.kubeconfig());
    let seen = faulty.until("checkout", "another goes on", |seen| seen.has(2, Event::Completed)).await;
    assert_eq!((seen.pods(), seen.count(2, Event::RolloutOpened)), ("2.0: 10".to_owned(), 1));
    faulty.each_pod_changed_once();
}
