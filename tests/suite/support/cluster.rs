//! Which cluster tests run against.

use std::path::PathBuf;

use locktender::sandbox::kubelet::PodRange;

/// The kubeconfig of a real control plane, where `LOCKTENDER_TEST_CLUSTER` asks for one.
pub fn real() -> Option<PathBuf> {
    match std::env::var("LOCKTENDER_TEST_CLUSTER") {
        Ok(kind) if kind == "controlplane" => {
            Some(std::env::var_os("KUBECONFIG").expect("KUBECONFIG, as under tests/controlplane/run").into())
        }
        Ok(kind) if kind != "sandbox" => panic!("LOCKTENDER_TEST_CLUSTER is neither sandbox nor controlplane: {kind}"),
        _ => None,
    }
}

/// The controller's own kubeconfig there, by which the audit log tells it from the others.
pub fn controllers() -> PathBuf {
    std::env::var_os("LOCKTENDER_TEST_CONTROLLER").expect("LOCKTENDER_TEST_CONTROLLER").into()
}

/// The audit log there.
pub fn audit_log() -> PathBuf {
    std::env::var_os("LOCKTENDER_TEST_AUDIT").expect("LOCKTENDER_TEST_AUDIT").into()
}

/// The range of addresses that are local there.
pub fn pods() -> PodRange {
    match std::env::var("LOCKTENDER_TEST_PODS") {
        Ok(range) => range.parse().unwrap(),
        Err(_) => PodRange::LOOPBACK,
    }
}
