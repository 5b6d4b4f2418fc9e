//! What an API server answers: the same requests to the sandbox and to a real one, one golden transcript for both.
//!
//! By default they go to the sandbox; with `LOCKTENDER_TEST_CLUSTER=controlplane`, as under `tests/controlplane/run`, to
//! the API server that KUBECONFIG names. There `INSTA_UPDATE=always` writes the transcripts anew: what is in `golden/`
//! is what Kubernetes said. Where an older version says something else, `golden/` has that, too, under its number.
#![allow(clippy::unwrap_used, clippy::panic)]

mod server;

/// Compares a transcript with the one that is kept beside the tests.
macro_rules! matches {
    ($server:expr) => {
        let text = $server.text();
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_snapshot_path("golden");
        if let Some(version) = $server.another_version(&text).await {
            settings.set_snapshot_suffix(version);
        }
        settings.bind(|| insta::assert_snapshot!(text))
    };
}

mod apply;
mod defaults;
mod deleting;
mod kubectl;
mod lists;
mod objects;
mod patches;
mod subresources;
mod tables;
mod validation;
