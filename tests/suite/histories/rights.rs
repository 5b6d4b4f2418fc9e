//! The account that `deploy/` makes: what it may not do is refused, and a person is told which right is missing and what
//! would give it, whoever they are. On the sandbox by a rule that forbids Secrets.

use std::process::Command;

use locktender::{core::rollout::report::Activity, sandbox::api::access::Forbidden};
use serde_json::Value;

use super::{
    checkout::{APP, APP_FILE, DEPLOYMENT, POLICY, POLICY_FILE, deployment},
    release::{Place, Release, Seen},
};
use crate::support::{cluster, deployed};

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: hunter2}\n";

/// A release whose controller is the account that is deployed, with nothing released yet.
async fn deployed() -> (Release, tempfile::TempDir) {
    let policy = POLICY.replace("confirm: everyBatch", "confirm: none");
    let mut release = Release::new(Place::live(), &[(POLICY_FILE, &policy)]).await;
    release.kill().await;
    let files = tempfile::tempdir().unwrap();
    if cluster::real().is_some() {
        let account = deployed::install(&release.kubeconfig(), "deploy/kustomize/base", "locktender", files.path());
        release.reach_as(account);
    }
    (release, files)
}

/// What `locktender status` says to somebody who may do everything.
fn status(release: &Release, app: &str) -> String {
    let ada = release.person("Ada");
    let mut command = Command::new(env!("CARGO_BIN_EXE_locktender"));
    command.args(["status", app, "--kubeconfig"]).arg(release.kubeconfig()).current_dir(ada.path());
    let output = command.env("COLUMNS", "1000").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The commands that a reason names.
fn remedy(reasons: &str) -> Vec<Vec<String>> {
    let (_, commands) = reasons.split_once("an administrator may give it that: ").unwrap();
    let line = commands.lines().next().unwrap();
    line.split(" && ").map(|one| one.split_whitespace().skip(1).map(str::to_owned).collect()).collect()
}

mod live {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_right_that_is_missing_is_told_with_what_gives_it_and_others_go_on() {
        let (mut release, _files) = deployed().await;
        if let Some(sandbox) = release.sandbox() {
            sandbox.forbid(vec![Forbidden::new("sandbox", "*", "secrets", "*")]);
        }
        release.start().await;
        release.commit("two applications, one with a Secret", |clone| {
            clone.write(APP_FILE, APP);
            clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
            clone.write("apps/checkout/secret.yaml", SECRET);
            clone.write("apps/ledgers/app.yaml", &APP.replace("checkout", "ledgers"));
            clone.write(
                "apps/ledgers/deployment.yaml",
                &deployment("ledgers", "1.9").replace("replicas: 10", "replicas: 2"),
            );
        });
        let lacks = "cannot list resource \"secrets\"";
        let seen = release.until("checkout", "it says what is missing", |seen| seen.reasons().contains(lacks)).await;
        assert!(!seen.reasons().contains("hunter2"), "{}", seen.reasons());
        release.until("ledgers", "it is installed", |seen: &Seen| seen.is(1, Activity::Stable)).await;

        // Somebody who may see Secrets is told, too: by the anchor.
        while !status(&release, "checkout").contains(lacks) {
            assert!(release.seen("checkout").await.reasons().contains(lacks));
        }
        let told = status(&release, "checkout");
        assert!(told.contains("Secret/db") && told.contains("kubectl create clusterrole locktender-secrets"), "{told}");

        match release.sandbox() {
            Some(sandbox) => sandbox.forbid(Vec::new()),
            None => {
                for args in remedy(&seen.reasons()) {
                    let args: Vec<&str> = args.iter().map(String::as_str).collect();
                    deployed::kubectl(&release.kubeconfig(), &args, "");
                }
            }
        }
        let seen = release.until("checkout", "it is installed", |seen| seen.is(1, Activity::Stable)).await;
        assert!(!seen.reasons().contains(lacks), "{}", seen.reasons());
        while status(&release, "checkout").contains(lacks) {
            assert!(!release.seen("checkout").await.reasons().contains(lacks), "nothing is missing any more");
        }
        if cluster::real().is_some() {
            for kind in ["clusterrole", "clusterrolebinding"] {
                deployed::kubectl(&release.kubeconfig(), &["delete", kind, "locktender-secrets"], "");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a real control plane: the sandbox forbids nothing by itself"]
    async fn what_is_outside_of_the_accounts_rights_is_refused() {
        let (release, files) = deployed().await;
        let account = files.path().join("locktender.kubeconfig");
        let may = |verb: &str, resource: &str, namespace: &str| {
            let mut command = Command::new("kubectl");
            let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
            command.arg("--kubeconfig").arg(&account).args(["auth", "can-i", verb, resource, "--subresource", part]);
            command.args(["--namespace", namespace]);
            let output = command.output().unwrap();
            match String::from_utf8_lossy(&output.stdout).trim() {
                "yes" => true,
                "no" => false,
                other => panic!("{verb} {resource}: {other} {}", String::from_utf8_lossy(&output.stderr)),
            }
        };
        for (verb, resource, namespace) in [
            ("get", "secrets", "kube-system"),
            ("list", "secrets", "shop"),
            ("create", "secrets", "locktender"),
            ("create", "serviceaccounts/token", "kube-system"),
            ("impersonate", "serviceaccounts", "kube-system"),
            ("impersonate", "users", "default"),
            ("get", "persistentvolumes", "default"),
            ("patch", "nodes", "default"),
            ("create", "pods", "shop"),
            ("create", "pods/exec", "shop"),
            ("get", "pods/log", "shop"),
            ("update", "pods/status", "shop"),
            ("patch", "nodes/status", "default"),
            ("delete", "namespaces", "default"),
            ("list", "clusterroles.rbac.authorization.k8s.io", "default"),
            ("create", "clusterroles.rbac.authorization.k8s.io", "default"),
            ("bind", "clusterroles.rbac.authorization.k8s.io", "default"),
            ("escalate", "clusterroles.rbac.authorization.k8s.io", "default"),
            ("create", "rolebindings.rbac.authorization.k8s.io", "kube-system"),
            ("create", "customresourcedefinitions.apiextensions.k8s.io", "default"),
            ("create", "validatingwebhookconfigurations.admissionregistration.k8s.io", "default"),
            ("create", "certificatesigningrequests.certificates.k8s.io", "default"),
            ("get", "leases.coordination.k8s.io", "kube-system"),
            ("delete", "leases.coordination.k8s.io", "locktender"),
            ("deletecollection", "pods", "shop"),
            ("*", "*", "default"),
        ] {
            assert!(!may(verb, resource, namespace), "it may {verb} {resource} in {namespace}");
        }
        for (verb, resource) in [
            ("patch", "pods"),
            // A pod's readiness gate is a condition in its status.
            ("patch", "pods/status"),
            ("create", "replicasets.apps"),
            ("list", "endpointslices.discovery.k8s.io"),
        ] {
            assert!(may(verb, resource, "shop"), "it may not {verb} {resource}");
        }
        // Asked for, and not only asked about.
        for path in [
            "/api/v1/namespaces/kube-system/secrets",
            "/api/v1/persistentvolumes",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        ] {
            let mut command = Command::new("kubectl");
            let output = command.arg("--kubeconfig").arg(&account).args(["get", "--raw", path]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && said.contains("system:serviceaccount:locktender:locktender"),
                "{path}: {said}"
            );
        }
        drop(release);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a real control plane: the sandbox forbids nothing by itself"]
    async fn objects_that_give_rights_are_refused_and_the_rest_goes_on() {
        let (mut release, _files) = deployed().await;
        release.start().await;
        let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: mine}\n\
                    roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\n\
                    subjects: [{kind: ServiceAccount, name: default, namespace: shop}]\n";
        release.commit("more than it may", |clone| {
            clone.write(APP_FILE, APP);
            clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
            clone.write("apps/checkout/role.yaml", role);
        });
        let lacks = "cannot list resource \"clusterrolebindings\" in API group \"rbac.authorization.k8s.io\"";
        release.until("checkout", "it says what is missing", |seen| seen.reasons().contains(lacks)).await;
        while !status(&release, "checkout").contains(lacks) {
            assert!(release.seen("checkout").await.reasons().contains(lacks));
        }
        release.commit("only what it may", |clone| {
            clone.remove("apps/checkout/role.yaml");
        });
        release
            .until("checkout", "it is installed", |seen| seen.is(1, Activity::Stable) || seen.is(2, Activity::Stable))
            .await;
        let bindings = release
            .live()
            .ask("GET", "apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Value::Null)
            .await
            .unwrap();
        let names = bindings["items"].as_array().unwrap().iter().map(|one| one["metadata"]["name"].clone());
        assert!(!names.into_iter().any(|name| name == "mine"));
    }
}
