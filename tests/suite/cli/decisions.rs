//! Decisions: the commits that they are, and what is refused because it would do nothing.

use super::{Shell, Transcript, checkout, deployment, keeper::Keeper};
use locktender::core::ledger::{Cause, Draft, Event};

#[tokio::test]
async fn a_stage_is_confirmed_once() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("confirm"));
    let here = ada.path();
    seen.note("nothing there yet").see(&shell, here, &["confirm", "checkout"]);
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await;
    seen.note("the rollout has opened").see(&shell, here, &["confirm", "checkout"]);
    keeper.waits("beta").await;
    seen.note("beta waits").see(&shell, here, &["confirm", "checkout", "--stage", "batch-1"]);
    seen.see(&shell, here, &["confirm", "checkout", "--stage", "bta"]);
    seen.see(&shell, here, &["confirm", "checkout", "--rollout", "3"]);
    let before = remote.rev("main");
    seen.see(&shell, here, &["confirm", "checkout", "-m", "error rate flat: see \"dashboard\""]);
    assert_eq!(remote.rev("main~1"), before, "one commit on what was there");
    assert_eq!(remote.subjects()[0], "confirm checkout 0001 beta: error rate flat: see \"dashboard\"");
    assert_eq!(remote.git(&["log", "-1", "--format=%an <%ae>", "main"]), "Ada <ada@example.com>");
    let file = remote.read("rollouts/checkout/0001/confirm/beta.yaml").unwrap();
    seen.note(&super::normal(&file.replace('\n', "; ")));
    seen.see(&shell, here, &["confirm", "checkout"]);
    keeper.accepts("beta", "batch-1").await;
    seen.note("the controller has accepted it").see(&shell, here, &["confirm", "checkout"]);
    seen.see(&shell, here, &["history", "checkout"]);
    seen.see(&shell, here, &["audit", "verify"]);
    seen.matches();
}

#[tokio::test]
async fn promote_pause_resume_and_abort_are_files() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("decisions"));
    let here = ada.path();
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await;
    seen.see(&shell, here, &["resume", "checkout"]);
    seen.see(&shell, here, &["pause", "checkout", "-m", "the database is being moved"]);
    assert!(remote.read("rollouts/checkout/0001/pause.yaml").is_some());
    seen.see(&shell, here, &["pause", "checkout"]);
    seen.see(&shell, here, &["resume", "checkout"]);
    assert_eq!(remote.read("rollouts/checkout/0001/pause.yaml"), None);
    seen.see(&shell, here, &["promote", "checkout"]);
    seen.see(&shell, here, &["promote", "checkout"]);
    seen.see(&shell, here, &["retry", "checkout"]);
    seen.see(&shell, here, &["abort", "checkout", "-m", "latency is up"]);
    seen.see(&shell, here, &["abort", "checkout"]);
    let aborting = Draft::new(Event::Aborting, None, "abort.yaml: latency is up").with(|it| {
        it.cause = Some(Cause::Decision);
    });
    keeper.record(vec![aborting]).await;
    seen.note("the controller goes back");
    for verb in ["confirm", "promote", "pause", "abort"] {
        seen.see(&shell, here, &[verb, "checkout"]);
    }
    seen.see(&shell, here, &["status", "checkout"]);
    seen.matches();
}

#[tokio::test]
async fn a_release_is_reverted_unless_somebody_changed_the_same() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("revert"));
    let here = ada.path();
    seen.see(&shell, here, &["revert", "checkout"]);
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.completes().await;
    seen.note("the first install is complete").see(&shell, here, &["revert", "checkout"]);
    ada.pull();
    ada.release("apps/checkout/deployment.yaml", &deployment("2.0"), "checkout 2.0");
    keeper.open().await.completes().await;
    ada.pull();
    ada.release("apps/checkout/NOTES.md", "kept\n", "a note");
    seen.note("2.0 is complete; somebody added a note").see(&shell, here, &["revert", "checkout", "--to", "7"]);
    seen.see(&shell, here, &["revert", "checkout", "-m", "memory grows"]);
    assert_eq!(remote.read("apps/checkout/deployment.yaml"), Some(deployment("1.9").trim_end().to_owned()));
    assert_eq!(remote.read("apps/checkout/NOTES.md").as_deref(), Some("kept"));
    seen.see(&shell, here, &["revert", "checkout"]);
    ada.pull();
    ada.release("apps/checkout/deployment.yaml", &deployment("2.1"), "checkout 2.1");
    seen.note("2.1 was merged meanwhile").see(&shell, here, &["revert", "checkout"]);
    seen.matches();
}

#[tokio::test]
async fn a_push_that_is_refused_or_overtaken_is_told_or_tried_again() {
    let (remote, ada) = checkout();
    let shell = Shell::new();
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.waits("beta").await;
    remote.hook("update", "echo 'main takes pull requests only' >&2; exit 1");
    let mut seen = Transcript::new("refused");
    seen.see(&shell, ada.path(), &["confirm", "checkout"]);
    seen.matches();
    // Somebody else is faster, once: their commit lands while ours is on its way.
    let marker = remote.base().join("overtaken");
    let script = format!(
        "[ -e {0} ] && exit 0; : > {0}; git update-ref refs/heads/main $(git -c user.name=x -c user.email=x@example.com commit-tree -p $2 -m other $2^{{tree}}); exit 1",
        marker.display()
    );
    remote.hook("update", &script);
    let ran = shell.run(ada.path(), &["confirm", "checkout"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    assert_eq!(remote.subjects()[..2], ["confirm checkout 0001 beta", "other"]);
}
