//! `abort --now`: Git is away, and the decision goes into the anchor.

use locktender::core::ledger::Event;

use super::{Shell, checkout};
use crate::histories::release::{Place, Release};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_without_git_finds_the_anchor_and_is_recorded_later() {
    let release = Release::at_batch_1(Place::Sandbox).await;
    let (shell, elsewhere) = (Shell::new(), tempfile::tempdir().unwrap());
    let kubeconfig = release.kubeconfig().display().to_string();
    let run = |args: &[&str]| shell.run(elsewhere.path(), &[args, &["--kubeconfig", &kubeconfig]].concat());
    release.git_answers(false);

    let ran = run(&["abort", "chekout", "--now"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("there is no anchor of chekout in this cluster"), "{}", ran.transcript());
    let ran = run(&["abort", "checkout", "--now", "--namespace", "default"]);
    assert!(ran.stderr.contains("there is no anchor of checkout in the namespace default"), "{}", ran.transcript());

    let ran = run(&["abort", "checkout", "--now", "-m", "git is down"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    let said = "aborted checkout 0002   (in the anchor shop/locktender-checkout; Git hears of it when it is back)\n";
    assert_eq!(ran.stdout, said);
    release.until("checkout", "back without Git", |seen| seen.pods() == "1.9: 10").await;
    let ran = run(&["abort", "checkout", "--now"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("checkout 0002 cannot be aborted: it is going back to 1.9"), "{}", ran.transcript());

    release.git_answers(true);
    let seen = release.stable(2, "1.9: 10").await;
    let aborting = seen.last(2, Event::Aborting).unwrap();
    assert_eq!(aborting.why, "abort --now: Ada <ada@example.com>: git is down");
    assert!(seen.has(2, Event::Aborted) && seen.has(2, Event::Reverted));
    let ran = shell.run(elsewhere.path(), &["audit", "verify", "--repo", &release.remote.url()]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
}

#[test]
fn a_namespace_is_for_now_alone() {
    let (_remote, ada) = checkout();
    let ran = Shell::new().run(ada.path(), &["abort", "checkout", "--namespace", "shop"]);
    assert_eq!(ran.code, 2, "{}", ran.transcript());
}
