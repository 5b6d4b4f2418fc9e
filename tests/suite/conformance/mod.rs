//! What an API server answers: the same requests to the sandbox and to a real one, one golden transcript for both.
//!
//! By default they go to the sandbox; with `LOCKTENDER_TEST_CLUSTER=controlplane`, as under `tests/controlplane/run`, to
//! the API server that KUBECONFIG names. There `INSTA_UPDATE=always` writes the transcripts anew: what is in `golden/`
//! is what Kubernetes said.
#![allow(clippy::unwrap_used, clippy::panic)]

mod server;

/// Compares a transcript with the one that is kept beside the tests.
macro_rules! matches {
    ($server:expr) => {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "golden" }, {
            insta::assert_snapshot!($server.text())
        })
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
