//! Group B: what is sent is refused, or made into something else, before it is stored.
//!
//! On a real control plane the server does it, by policies, quotas and webhooks; on the sandbox, which admits
//! everything, the proxy does what they would.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, Router, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use locktender::{adapter::kube::Verb, core::ledger::Event};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::{
    histories::live::LABEL,
    support::{
        cluster,
        proxy::{Change, Effect, Injection, On, Refusal},
        tls::{Authority, TlsListener},
    },
};

/// Something that admits not everything, or not as it is, until it is dropped or ended.
enum Admission {
    /// The proxy does it.
    Proxy(Injection),
    /// The server does it: objects of its own, by path.
    Server(Vec<String>),
}

impl Admission {
    async fn end(self, faulty: &Faulty) {
        match self {
            Self::Proxy(injection) => drop(injection),
            Self::Server(paths) => {
                for path in paths {
                    faulty.live().ask("DELETE", &path, Value::Null).await.unwrap();
                }
            }
        }
    }
}

const REGISTRATION: &str = "apis/admissionregistration.k8s.io/v1";

impl Faulty {
    /// Creates an object of the cluster; returns its path.
    async fn creates(&self, collection: &str, mut object: Value) -> String {
        object["metadata"]["labels"] = json!({LABEL: "true"});
        self.live().ask("POST", collection, object.clone()).await.unwrap();
        format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap())
    }

    /// Lets a policy refuse what an expression of CEL does not say yes to; `probe` is tried, dry, until it is in force.
    async fn policy(&self, name: &str, resource: &str, rule: Value, probe: (&str, &str, Value)) -> Admission {
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
                }]},
                "validations": [rule],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let policy = self.creates(&format!("{REGISTRATION}/validatingadmissionpolicies"), policy).await;
        let binding = self.creates(&format!("{REGISTRATION}/validatingadmissionpolicybindings"), binding).await;
        let (method, path, body) = probe;
        self.dry(method, path, body, |answer| answer.as_ref().is_err_and(|why| why.contains(name))).await;
        Admission::Server(vec![binding, policy])
    }

    /// Tries a write, dry, until its answer is as wanted.
    async fn dry(&self, method: &str, path: &str, body: Value, wanted: impl Fn(&Result<Value, String>) -> bool) {
        let began = tokio::time::Instant::now();
        loop {
            let answer = self.live().ask(method, &format!("{path}?dryRun=All"), body.clone()).await;
            if wanted(&answer) {
                return;
            }
            assert!(began.elapsed().as_secs() < 60, "it is never in force: {answer:?}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Which pods are in service.
    async fn in_service(&self) -> BTreeSet<String> {
        let seen = self.seen("checkout").await;
        let serves = |pod: &&Arc<Value>| pod["metadata"]["labels"]["locktender.dev/in-service"] == "true";
        let names = seen.pods.iter().filter(serves).map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
        names.collect()
    }

    /// A pod that is still at 1.9, as an update to 2.0 would make it: its path and the object.
    async fn updated_pod(&self) -> (String, Value) {
        let seen = self.seen("checkout").await;
        let old = seen
            .pods
            .iter()
            .find(|pod| pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.ends_with(":1.9")));
        let mut pod = old.unwrap().as_ref().clone();
        pod["spec"]["containers"][0]["image"] = json!("registry.example/checkout:2.0");
        (format!("api/v1/namespaces/shop/pods/{}", pod["metadata"]["name"].as_str().unwrap()), pod)
    }
}

fn to_2_0(asked: &Asked) -> bool {
    asked.sets_images() && asked.body.to_string().contains("checkout:2.0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_28_a_policy_refuses_pods_in_the_second_batch() {
    let faulty = Faulty::at_beta().await;
    let refusal = if cluster::real().is_some() {
        let (path, pod) = faulty.updated_pod().await;
        let is_new = "object.spec.containers.exists(c, c.image.endsWith(':2.0'))";
        let was_new = is_new.replace("object", "oldObject");
        let rule = json!({"expression": format!("!{is_new} || {was_new}"), "message": "no more of 2.0 here"});
        faulty.policy("no-more-of-2-0", "pods", rule, ("PUT", &path, pod)).await
    } else {
        let refusal = Refusal::new(422, "Invalid", "ValidatingAdmissionPolicy 'no-more-of-2-0': no more of 2.0 here");
        Admission::Proxy(faulty.proxy.inject(On::writes().when(to_2_0), Effect::Refused(refusal)))
    };
    faulty.proxy.forget();
    faulty.confirm(2, "beta");
    let seen = faulty.says("checkout", "no more of 2.0 here").await;
    assert_eq!(seen.pods(), "1.9: 8, 2.0: 2", "it is where it was");
    faulty.rest().await;
    let tried = faulty.proxy.writes().iter().filter(|one| to_2_0(one)).count();
    assert!((2..=24).contains(&tried), "it goes on trying, and backs off: {tried}");
    assert!(faulty.in_service().await.len() >= 8, "no more are out of service than may be");
    // Going back is possible while the policy is in force.
    faulty.decide(2, "abort", "");
    let seen = faulty.stable(2, "1.9: 10").await;
    assert!(seen.has(2, Event::Aborted) && !seen.has(2, Event::Completed));
    assert_eq!(faulty.in_service().await.len(), 10);
    refusal.end(&faulty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real control plane: the sandbox has no quotas, and its ReplicaSets are never refused a pod"]
async fn fault_28_a_quota_that_is_full_is_told_and_waited_for() {
    let recreate = POLICY.replace("    batched:\n", "    batched:\n      update: Recreate\n");
    let faulty = Faulty::behind(Release::checkout_with(Place::live(), &[(POLICY_FILE, &recreate)]).await).await;
    faulty.install().await;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full", "namespace": "shop"},
        "spec": {"hard": {"pods": "9"}},
    });
    faulty.live().ask("POST", "api/v1/namespaces/shop/resourcequotas", quota).await.unwrap();
    let path = "api/v1/namespaces/shop/resourcequotas/full";
    let probe = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "namespace": "shop"},
        "spec": {"containers": [{"name": "probe", "image": "registry.example/probe:1"}]},
    });
    let full = |answer: &Result<Value, String>| answer.as_ref().is_err_and(|why| why.contains("exceeded quota"));
    faulty.dry("POST", "api/v1/namespaces/shop/pods", probe, full).await;
    faulty.set_tag("2.0");
    faulty.says("checkout", "exceeded quota").await;
    assert!(faulty.in_service().await.len() >= 8, "no more are gone than may be");
    faulty.live().ask("PATCH", path, json!({"spec": {"hard": {"pods": "20"}}})).await.unwrap();
    faulty.completes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_a_webhook_that_is_down_blocks_only_what_it_is_asked_about() {
    let faulty = Faulty::at_beta().await;
    let four = deployment("cart", "1.9").replace("replicas: 10", "replicas: 4");
    faulty.commit("cart", |clone| {
        clone.write("apps/cart/app.yaml", &APP.replace("checkout", "cart"));
        clone.write("apps/cart/deployment.yaml", &four);
        clone.write("rollouts/cart/0001/promote.yaml", "");
    });
    faulty.until("cart", "it is asked", |seen| seen.waits(1, "beta")).await;
    faulty.commit("confirm cart", |clone| {
        clone.write("rollouts/cart/0001/confirm/beta.yaml", "");
    });
    faulty.until("cart", "it is installed", |seen| seen.is(1, Activity::Stable)).await;
    faulty.commit("cart 2.0", |clone| {
        clone.replace("apps/cart/deployment.yaml", ":1.9", ":2.0");
    });
    faulty.until("cart", "it waits", |seen| seen.waits(2, "beta")).await;

    let down = if cluster::real().is_some() {
        // Nobody listens there.
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", nobody.local_addr().unwrap());
        drop(nobody);
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "down"},
            "webhooks": [{
                "name": "down.example.com", "clientConfig": {"url": url}, "failurePolicy": "Fail", "timeoutSeconds": 2,
                "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "objectSelector": {"matchLabels": {"app": "checkout"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}],
            }],
        });
        let path = faulty.creates(&format!("{REGISTRATION}/validatingwebhookconfigurations"), webhook).await;
        let (pod, object) = faulty.updated_pod().await;
        let called = |answer: &Result<Value, String>| answer.as_ref().is_err_and(|why| why.contains("failed calling"));
        faulty.dry("PUT", &pod, object, called).await;
        Admission::Server(vec![path])
    } else {
        let message = "Internal error occurred: failed calling webhook \"down.example.com\": connection refused";
        let of_checkout = |one: &Asked| one.resource == "pods" && one.name.starts_with("checkout");
        let refusal = Refusal::new(500, "InternalError", message);
        Admission::Proxy(faulty.proxy.inject(On::writes().when(of_checkout), Effect::Refused(refusal)))
    };
    faulty.confirm(2, "beta");
    let seen = faulty.says("checkout", "failed calling webhook").await;
    assert_eq!(seen.pods(), "1.9: 8, 2.0: 2", "it is where it was");
    faulty.commit("abort cart", |clone| {
        clone.write("rollouts/cart/0002/abort.yaml", "");
    });
    let back = |seen: &Seen| seen.is(2, Activity::Stable) && seen.pods() == "1.9: 4";
    faulty.until("cart", "another goes back", back).await;
    down.end(&faulty).await;
    faulty.completes().await;
}

/// What a webhook makes of the notes.
fn louder(object: &mut Value) {
    if object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("notes")) {
        let loud = object["data"]["a"].as_str().unwrap_or_default().to_uppercase();
        object["data"]["a"] = json!(loud);
        object["data"]["added"] = json!("by a webhook");
    }
}

/// Serves a mutating webhook over TLS; its address, and the authority's certificate.
async fn webhook(change: Change) -> (String, String) {
    let authority = Authority::new();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", tcp.local_addr().unwrap());
    let review = move |Json(review): Json<Value>| {
        let mut object = review["request"]["object"].clone();
        change(&mut object);
        let patch = json!([{"op": "add", "path": "/data", "value": object["data"]}]).to_string();
        let response = json!({
            "uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch", "patch": BASE64.encode(patch),
        });
        async move { Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})) }
    };
    let router = Router::new().fallback(post(review));
    let listener = TlsListener { tcp, config: authority.server(false) };
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, authority.certificate())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_27_a_webhook_that_changes_our_fields_is_told_and_not_fought() {
    let faulty = Faulty::installed().await;
    let change: Change = Arc::new(louder);
    let changed = if cluster::real().is_some() {
        let (url, certificate) = webhook(change).await;
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "louder"},
            "webhooks": [{
                "name": "louder.example.com", "clientConfig": {"url": url, "caBundle": BASE64.encode(certificate)},
                "failurePolicy": "Fail", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                "matchConditions": [{"name": "notes", "expression": "object.metadata.name.startsWith('notes')"}],
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["configmaps"],
                }],
            }],
        });
        let path = faulty.creates(&format!("{REGISTRATION}/mutatingwebhookconfigurations"), webhook).await;
        let probe = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes-probe"}, "data": {"a": "probe"},
        });
        let loud = |answer: &Result<Value, String>| answer.as_ref().is_ok_and(|object| object["data"]["a"] == "PROBE");
        faulty.dry("POST", "api/v1/namespaces/shop/configmaps", probe, loud).await;
        Admission::Server(vec![path])
    } else {
        let notes = On::writes().of("configmaps").named("notes");
        Admission::Proxy(faulty.proxy.inject(notes, Effect::Changed(change)))
    };
    faulty.proxy.forget();
    faulty.commit("notes", |clone| {
        clone.write(NOTES_FILE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {a: quiet}\n");
    });
    faulty.says("checkout", "ConfigMap/notes").await;
    let applied = |faulty: &Faulty| {
        let writes = faulty.proxy.writes();
        writes.iter().filter(|one| one.verb == Verb::Apply && one.name == "notes").count()
    };
    // It is told already before it is sent, and once more when what came of it is seen.
    while applied(&faulty) == 0 {
        faulty.rest().await;
    }
    faulty.rest().await;
    let before = (applied(&faulty), faulty.seen("checkout").await.told(1).len());
    faulty.rest().await;
    let seen = faulty.seen("checkout").await;
    assert!(before.0 <= 2, "it was applied {} times", before.0);
    assert_eq!((applied(&faulty), seen.told(1).len()), before, "it is left, and nothing more is recorded");
    // What is stored is what the webhook makes of it, and what is done besides is done.
    faulty.set_tag("2.0");
    faulty.completes().await;
    let notes = faulty.get(NOTES, "configmaps").await.unwrap();
    assert_eq!(notes["data"], json!({"a": "QUIET", "added": "by a webhook"}));
    // Git says something else now: that is sent.
    faulty.commit("other notes", |clone| {
        clone.replace(NOTES_FILE, "quiet", "still");
    });
    let still = |notes: Option<Arc<Value>>| notes.is_some_and(|notes| notes["data"]["a"] == "STILL");
    while !still(faulty.get(NOTES, "configmaps").await) {
        tokio::task::yield_now().await;
    }
    changed.end(&faulty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_87_what_a_policy_says_of_a_secret_is_not_repeated() {
    let faulty = Faulty::installed().await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: door}\ndata: {password: aHVudGVyMg==}\n";
    let refusal = if cluster::real().is_some() {
        let rule = json!({
            "expression": "!has(object.data) || !('password' in object.data)",
            "messageExpression": "'no such password: ' + string(object.data.password)",
        });
        let probe = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "data": {"password": "eA=="},
        });
        let probe = ("POST", "api/v1/namespaces/shop/secrets", probe);
        faulty.policy("no-passwords", "secrets", rule, probe).await
    } else {
        let message = "secrets \"door\" is forbidden: policy 'no-passwords': no such password: aHVudGVyMg==";
        let refusal = Effect::Refused(Refusal::new(422, "Invalid", message));
        Admission::Proxy(faulty.proxy.inject(On::writes().of("secrets"), refusal))
    };
    faulty.commit("a door", |clone| {
        clone.write("apps/checkout/secret.yaml", secret);
    });
    let seen = faulty.says("checkout", "Secret/door").await;
    for hidden in ["aHVudGVyMg", "hunter2", "no such password"] {
        assert!(!format!("{:?}", seen.report).contains(hidden), "{:?}", seen.report);
    }
    let tip = faulty.remote.git(&["log", "--patch", "main", "--", "rollouts"]);
    assert!(!tip.contains("aHVudGVyMg"), "{tip}");
    refusal.end(&faulty).await;
    let made = |seen: &Seen| seen.is(1, Activity::Stable) && !seen.reasons().contains("Secret");
    faulty.until("checkout", "it is there", made).await;
}
