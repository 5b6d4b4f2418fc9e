//! Applications that are written in the name of their own accounts: on a real control plane by its RBAC and what
//! `deploy/kustomize/components/tenants` grants, on the sandbox by rules that say the same.

use locktender::{
    core::{ledger::Event, rollout::report::Activity},
    sandbox::api::access::Forbidden,
};
use serde_json::{Value, json};

use super::{
    checkout::{DEPLOYMENT, POLICY, POLICY_FILE, deployment},
    release::{Place, Release, Seen},
};
use crate::support::{cluster, deployed};

/// Each has an application: `checkout` is in `shop`, `ledgers` in `billing`.
const TENANTS: [(&str, &str); 2] = [("shop", "checkout"), ("billing", "ledgers")];
const LEDGERS: &str = "apps/ledgers/deployment.yaml";

fn app(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: locktender.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\n\
         spec: {{namespace: {namespace}, policy: two-data-centers, serviceAccountName: deployer}}\n"
    )
}

fn user(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:deployer")
}

/// What lets an account write into its namespace.
fn binding(namespace: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "deployer", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tenants-locktender-writes"},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": namespace}],
    })
}

/// The same for the sandbox, where everything is allowed that is not forbidden: accounts keep to their namespace and to
/// what the role names, and the controller itself changes nothing but its anchors.
fn rules(without: Option<&str>) -> Vec<Forbidden> {
    let mut rules = vec![
        Forbidden::new(&user("shop"), "*", "*", "billing"),
        Forbidden::new(&user("billing"), "*", "*", "shop"),
        Forbidden::new(&user("*"), "*", "secrets", "*"),
        Forbidden::new(&user("*"), "*", "*", ""),
    ];
    for verb in ["create", "patch", "delete"] {
        rules.extend(
            ["deployments.apps", "replicasets.apps", "pods"].map(|it| Forbidden::new("sandbox", verb, it, "*")),
        );
    }
    rules.extend(without.map(|namespace| Forbidden::new(&user(namespace), "*", "*", "*")));
    rules
}

/// Takes an account's rights away, and gives them back.
fn revoke(release: &Release, namespace: &str) {
    match release.sandbox() {
        Some(sandbox) => sandbox.forbid(rules(Some(namespace))),
        None => {
            let binding = ["--namespace", namespace, "delete", "rolebinding", "deployer"];
            deployed::kubectl(&release.kubeconfig(), &binding, "");
        }
    }
}

fn grant(release: &Release, namespace: &str) {
    match release.sandbox() {
        Some(sandbox) => sandbox.forbid(rules(None)),
        None => deployed::apply(&release.kubeconfig(), &[binding(namespace)]),
    }
}

/// Two tenants, with nothing released yet.
async fn two_tenants() -> (Release, tempfile::TempDir) {
    let policy = POLICY.replace("confirm: everyBatch", "confirm: beta");
    let mut release = Release::new(Place::live(), &[(POLICY_FILE, &policy)]).await;
    release.kill().await;
    let admin = release.kubeconfig();
    let mut objects = Vec::new();
    for (namespace, _) in TENANTS {
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        let account = json!({"name": "deployer", "namespace": namespace});
        objects.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}));
    }
    deployed::apply(&admin, &objects);
    let files = tempfile::tempdir().unwrap();
    if cluster::real().is_some() {
        let account = deployed::install(&admin, "tests/fixtures/tenants", "tenants-locktender", files.path());
        release.reach_as(account);
    }
    TENANTS.iter().for_each(|(namespace, _)| grant(&release, namespace));
    release.start().await;
    (release, files)
}

/// The beta group's confirm.
fn confirm(release: &Release, app: &str, number: u32) {
    release.commit(&format!("confirm {app}"), |clone| {
        clone.write(&format!("rollouts/{app}/{number:04}/confirm/beta.yaml"), "");
    });
}

async fn complete(release: &Release, app: &str, number: u32) {
    release.until(app, "beta waits", |seen| seen.waits(number, "beta")).await;
    confirm(release, app, number);
    release.until(app, "it is complete", |seen| seen.is(number, Activity::Stable)).await;
}

fn is_refused(seen: &Seen, words: &[&str]) -> bool {
    words.iter().all(|word| seen.reasons().contains(word))
}

mod live {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fault_65_what_is_of_another_tenant_is_refused_as_a_whole_and_beforehand() {
        let (release, _files) = two_tenants().await;
        let secret =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: billing}\nstringData: {password: hunter2}\n";
        let definition = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";
        let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: mine}\n";
        release.commit("both, and what is not shop's", |clone| {
            clone.write("apps/checkout/app.yaml", &app("checkout", "shop"));
            clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
            clone.write("apps/checkout/secret.yaml", secret);
            clone.write("apps/checkout/definition.yaml", definition);
            clone.write("apps/checkout/space.yaml", space);
            clone.write("apps/ledgers/app.yaml", &app("ledgers", "billing"));
            clone.write(LEDGERS, &deployment("ledgers", "1.9"));
        });
        let lacks = |object: &str| format!("{object}: system:serviceaccount:shop:deployer lacks");
        let seen = release
            .until("checkout", "it is held", |seen| {
                seen.report.as_ref().is_some_and(|report| report.activity == Activity::Held)
                    && seen.reasons().contains("lacks")
            })
            .await;
        for object in ["Secret/db in billing", "CustomResourceDefinition/widgets.example.com", "Namespace/mine"] {
            assert!(seen.reasons().contains(&lacks(object)), "{object}: {}", seen.reasons());
        }
        assert!(seen.reasons().contains("create"), "{}", seen.reasons());
        assert!(!seen.reasons().contains("hunter2"), "{}", seen.reasons());
        assert!(!seen.reasons().contains("Deployment/checkout"), "its own it may write: {}", seen.reasons());

        // The neighbour is not held up; nothing of the refused commit is there.
        complete(&release, "ledgers", 1).await;
        assert!(seen.ledger.is_empty() && release.seen("checkout").await.ledger.is_empty());
        let deployments = release.list("apis/apps/v1/namespaces/shop/deployments", "deployments.apps").await;
        assert!(deployments.iter().all(|one| one["metadata"]["namespace"] != "shop"), "{deployments:#?}");
        let spaces = release.list("api/v1/namespaces", "namespaces").await;
        assert!(spaces.iter().all(|space| space["metadata"]["name"] != "mine"));

        release.commit("only what is shop's", |clone| {
            for file in ["secret", "definition", "space"] {
                clone.remove(&format!("apps/checkout/{file}.yaml"));
            }
        });
        complete(&release, "checkout", 1).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn fault_85_rights_taken_away_in_the_middle_hold_one_application_and_no_other() {
        let (release, _files) = two_tenants().await;
        release.commit("both", |clone| {
            clone.write("apps/checkout/app.yaml", &app("checkout", "shop"));
            clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
            clone.write("apps/ledgers/app.yaml", &app("ledgers", "billing"));
            clone.write(LEDGERS, &deployment("ledgers", "1.9"));
        });
        complete(&release, "checkout", 1).await;
        complete(&release, "ledgers", 1).await;
        release.commit("2.0 of both", |clone| {
            clone.write(DEPLOYMENT, &deployment("checkout", "2.0"));
            clone.write(LEDGERS, &deployment("ledgers", "2.0"));
        });
        release.until("checkout", "beta waits", |seen| seen.waits(2, "beta")).await;
        revoke(&release, "shop");
        confirm(&release, "checkout", 2);
        let held = |seen: &Seen| {
            seen.is(2, Activity::Progressing) && is_refused(seen, &["forbidden", "system:serviceaccount:shop:deployer"])
        };
        let seen = release.until("checkout", "it says what is forbidden", held).await;
        assert_eq!(seen.pods(), "1.9: 8, 2.0: 2", "{}", seen.reasons());
        complete(&release, "ledgers", 2).await;
        // A commit that comes meanwhile is refused beforehand, and going on needs nobody but who gives the rights back.
        assert!(release.seen("checkout").await.count(2, Event::Aborting) == 0);
        grant(&release, "shop");
        let seen = release.until("checkout", "it goes on", |seen| seen.is(2, Activity::Stable)).await;
        assert_eq!(seen.pods(), "2.0: 10");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rights_that_are_given_later_need_no_commit() {
        let (release, _files) = two_tenants().await;
        revoke(&release, "shop");
        release.commit("checkout", |clone| {
            clone.write("apps/checkout/app.yaml", &app("checkout", "shop"));
            clone.write(DEPLOYMENT, &deployment("checkout", "1.9"));
        });
        let refused = |seen: &Seen| is_refused(seen, &["Deployment/checkout in shop", "its Pods in shop", "lacks"]);
        release.until("checkout", "it is refused", refused).await;
        grant(&release, "shop");
        complete(&release, "checkout", 1).await;
    }
}
