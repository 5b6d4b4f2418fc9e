//! What an API server answers: the same requests to the sandbox and to a real one, one golden transcript for both.
//!
//! By default they go to the sandbox; with `LOCKTENDER_TEST_CLUSTER=controlplane`, as under `tests/controlplane/run`, to
//! the API server that KUBECONFIG names. There `INSTA_UPDATE=always` writes the transcripts anew: what is in `golden/`
//! is what Kubernetes said. Where an older version says something else, `golden/` has that, too, under its number.
//!
//! # What the product stands on
//!
//! Each line was tried on a real control plane before it was built on; the tests named here hold it on both. *Later*: the
//! product does not rely on it yet. *Kubelet*: a kubelet's doing, tested with the sandbox's in `sandbox_world::kubelet` and
//! with every rollout on a real API server.
//!
//! | what | test |
//! |---|---|
//! | an apply without `replicas` puts back 1, unless another manager has them; with one that has them it is 409 | [`ground`]`::an_apply_that_leaves_replicas_out…` |
//! | `/scale` to the same value takes no ownership | [`subresources`]`::a_scale_changes…` |
//! | an apply removes what is no longer sent; one that changes nothing keeps the version; a stale one is 409 | [`apply`]`::what_is_no_longer_sent…`, `an_apply_says…` |
//! | giving up a pod's image is 422 | [`apply`]`::images_of_a_pod…` |
//! | a Service's selector is one value; lists keep their order | [`apply`]`::a_selector_of_a_service…`, `a_list_keeps…` |
//! | an HTTPRoute's rules are atomic | later: needs its definition |
//! | what of a pod may be changed | [`validation`]`::of_a_pod_only_little…` |
//! | `resize` | later |
//! | init containers do not run again; when an update in place is done | kubelet |
//! | nobody undoes a patched image | [`ground`]`::a_patched_image_stays…` |
//! | a paused Deployment that owns nothing; one that owns one | [`ground`]`::a_paused_deployment…` |
//! | one that owns two scales both; an ownerless set that matches is adopted | what the product avoids: `sandbox_world::deployment` |
//! | letting go and coming back, five times over | [`ground`]`::letting_go…` |
//! | orphaning, relabelling, new owners | [`ground`]`::pods_are_handed…` |
//! | who goes first when a set shrinks | [`ground`]`::who_is_not_ready…` |
//! | a gate whose condition is absent is not ready | kubelet |
//! | a pod whose gate is closed stays in its slice; only `pods/status` sets a gate | [`ground`]`::a_pod_whose_gate_is_closed…` |
//! | `publishNotReadyAddresses`; a label that is taken away | [`ground`]`::a_service_tells…` |
//! | a budget refuses; two over one pod are 500 | [`ground`]`::a_budget…` |
//! | no finalizer on what is being deleted; one that is held stays | [`deleting`]`::a_finalizer_keeps…` |
//! | a switch of a Service is one change of one slice | [`ground`]`::a_switch…`; beyond a hundred `sandbox_world::endpoints` |
//! | StatefulSets by partition and by `OnDelete`, DaemonSets by `OnDelete`, and the labels of their revisions | [`sets`]`::a_pod_of_a_stateful_set…`, `a_stateful_set…`, `a_daemon_set…` |
//! | what conditions a Job has when it ends; one that is suspended | [`sets`]`::a_job…` |
//! | `minReplicas: 0` is refused | [`validation`]`::budgets_and_autoscalers…` |
//! | what autoscalers do with metrics | cannot be here: nothing serves metrics |
//! | names, labels; what is immutable | [`objects`]`::names_labels…`, [`objects`]`::what_is_immutable…`, [`validation`]`::jobs_that…` |
//! | EndpointSlices refuse loopback addresses | `tests/controlplane/run` |
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
mod ground;
mod kubectl;
mod lists;
mod objects;
mod patches;
mod sets;
mod subresources;
mod tables;
mod validation;
