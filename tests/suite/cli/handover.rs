//! Giving Deployments back and taking them over: the commit, and what is told before and after.

use super::{Shell, Transcript, checkout, keeper::Keeper};

#[tokio::test]
async fn an_application_is_released_and_staged_again() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("release"));
    let here = ada.path();
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.completes().await;
    let staged = remote.read("apps/checkout/app.yaml").unwrap();
    seen.see(&shell, here, &["release", "chekout"]);
    seen.see(&shell, here, &["release", "checkout", "-m", "it is staged elsewhere"]);
    assert_eq!(remote.subjects()[0], "release checkout: it is staged elsewhere");
    let released = remote.read("apps/checkout/app.yaml").unwrap();
    assert_eq!(released.lines().count() + 1, staged.lines().count(), "one line is gone");
    seen.see(&shell, here, &["release", "checkout"]);
    ada.pull();
    seen.note("before the controller sees it").see(&shell, here, &["plan", "checkout"]);
    keeper.open().await;
    seen.note("it does").see(&shell, here, &["status", "checkout"]);
    keeper.completes().await;
    seen.see(&shell, here, &["history", "checkout"]);
    ada.pull();
    ada.write("apps/checkout/app.yaml", &staged);
    seen.note("somebody takes that back").see(&shell, here, &["plan", "checkout"]);
    seen.matches();
}
