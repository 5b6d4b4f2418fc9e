//! What `deploy/` installs, rendered, and the account that it gives the controller.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use super::cluster;

/// The namespace that `deploy/` installs into.
pub const NAMESPACE: &str = "locktender";

/// What a program prints, as objects.
pub fn rendered(program: &str, args: &[&str]) -> Vec<Value> {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    let values = documents.map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap());
    values.filter(|value| !value.is_null()).collect()
}

/// A Kustomize directory, rendered.
pub fn kustomized(directory: &str) -> Vec<Value> {
    rendered("kubectl", &["kustomize", directory])
}

/// Objects are applied by who has this kubeconfig.
pub fn apply(kubeconfig: &Path, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    kubectl(kubeconfig, &["apply", "-f", "-"], &list.to_string());
}

/// Runs `kubectl`, and returns what it prints.
pub fn kubectl(kubeconfig: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut run = command.stderr(Stdio::piped()).spawn().unwrap();
    run.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Writes a kubeconfig for who has this token beside another one.
pub fn with_token(kubeconfig: &Path, token: &str, file: &Path) {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let mut config: Value = serde_yaml::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    std::fs::write(file, config.to_string()).unwrap();
}

/// The kubeconfig that the controller has on the real control plane, where `LOCKTENDER_TEST_ACCOUNT=deployed` asks for
/// the account that `deploy/` makes. `None`: the controller is who the tests are.
pub fn account() -> Option<PathBuf> {
    static ACCOUNT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    match std::env::var("LOCKTENDER_TEST_ACCOUNT") {
        Ok(account) if account == "deployed" => {}
        Ok(account) => panic!("LOCKTENDER_TEST_ACCOUNT is not `deployed`: {account}"),
        Err(_) => return None,
    }
    let admin = cluster::real()?;
    let (_, file) = ACCOUNT.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let file = install(&admin, "deploy/kustomize/base", "locktender", directory.path());
        (directory, file)
    });
    Some(file.clone())
}

/// Applies a Kustomize directory to the real control plane, and writes a kubeconfig for an account of it.
pub fn install(admin: &Path, kustomization: &str, account: &str, directory: &Path) -> PathBuf {
    let mut objects = kustomized(kustomization);
    // The account is what matters here: pods of its Deployment would take the room that the tests' own need.
    let rights = ["Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    objects.retain(|object| rights.iter().any(|kind| object["kind"] == *kind));
    apply(admin, &objects);
    // As a pod's is asked for.
    let token = kubectl(admin, &["--namespace", NAMESPACE, "create", "token", account], "");
    let file = directory.join(format!("{account}.kubeconfig"));
    with_token(admin, token.trim(), &file);
    file
}
