//! Giving Deployments back and taking them over: the commit, and what is told before and after.

use super::{Shell, Transcript, checkout, keeper::Keeper};

#[tokio::test]
async fn an_application_is_given_back_and_staged_again() {
    let (remote, ada) = checkout();
    let (shell, mut seen) = (Shell::new(), Transcript::new("give-back"));
    let here = ada.path();
    let mut keeper = Keeper::new(&remote).await;
    keeper.open().await.completes().await;
    let staged = remote.read("apps/checkout/app.yaml").unwrap();
    seen.see(&shell, here, &["give-back", "chekout"]);
    seen.see(&shell, here, &["give-back", "checkout", "-m", "it is staged elsewhere"]);
    assert_eq!(remote.subjects()[0], "give back checkout: it is staged elsewhere");
    let given_back = remote.read("apps/checkout/app.yaml").unwrap();
    assert_eq!(given_back.lines().count() + 1, staged.lines().count(), "one line is gone");
    seen.see(&shell, here, &["give-back", "checkout"]);
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
