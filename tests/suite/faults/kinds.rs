//! Group B: kinds and namespaces that come and go, and objects that no server takes.

use locktender::adapter::kube::Verb;
use serde_json::{Value, json};

use super::*;
use crate::histories::live::LABEL;

const DEFINITIONS: &str = "apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGET: &str = "apis/example.com/v1/namespaces/shop/widgets/one";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com", "labels": {LABEL: "true"}},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_30_a_kind_that_is_not_served_is_waited_for_and_one_that_goes_takes_nothing_with_it() {
    let faulty = Faulty::installed().await;
    let widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: one}\nspec: {size: 3}\n";
    faulty.commit("a widget and notes", |clone| {
        clone.write("apps/checkout/widget.yaml", widget);
        clone.write(NOTES_FILE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {a: b}\n");
    });
    faulty.says("checkout", "Widget/one").await;
    // Other kinds go on.
    while faulty.get(NOTES, "configmaps").await.is_none() {
        tokio::task::yield_now().await;
    }
    faulty.live().ask("POST", DEFINITIONS, definition()).await.unwrap();
    faulty.until("checkout", "it is there", |seen| !seen.reasons().contains("Widget")).await;
    let before = faulty.get(WIDGET, "widgets.example.com").await.unwrap();

    // The definition goes, and its instances with it: not by us.
    faulty.proxy.forget();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    faulty.live().ask("DELETE", &path, Value::Null).await.unwrap();
    faulty.says("checkout", "Widget").await;
    let deleted = faulty.proxy.writes().into_iter().filter(|one| one.verb == Verb::Delete);
    assert_eq!(in_words(&deleted.collect::<Vec<_>>()), Vec::<String>::new());
    let mut again = definition();
    while faulty.live().ask("POST", DEFINITIONS, again.clone()).await.is_err() {
        again = definition();
    }
    faulty.until("checkout", "it is there again", |seen| !seen.reasons().contains("Widget")).await;
    let after = faulty.get(WIDGET, "widgets.example.com").await.unwrap();
    assert_ne!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(faulty.seen("checkout").await.pods(), "1.9: 10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_31_nothing_is_made_in_a_namespace_that_goes_and_others_go_on() {
    let mut faulty = Faulty::installed().await;
    // Its namespace takes all pods with it.
    faulty.release.judged = false;
    let four = deployment("cart", "1.9").replace("replicas: 10", "replicas: 4");
    faulty.commit("cart", |clone| {
        clone.write("apps/cart/app.yaml", &APP.replace("checkout", "cart").replace("shop", "market"));
        clone.write("apps/cart/deployment.yaml", &four);
    });
    faulty.until("cart", "it waits", |seen| seen.waits(1, "beta")).await;
    let held = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "shop", "finalizers": ["example.com/held"]},
    });
    faulty.live().ask("POST", "api/v1/namespaces/shop/configmaps", held).await.unwrap();
    faulty.live().ask("DELETE", "api/v1/namespaces/shop", Value::Null).await.unwrap();
    faulty.says("checkout", "Namespace/shop: it is being deleted").await;
    faulty.proxy.forget();
    faulty.commit("confirm cart", |clone| {
        clone.write("rollouts/cart/0001/confirm/beta.yaml", "");
    });
    let done = |seen: &Seen| seen.is(1, Activity::Stable) && seen.pods() == "1.9: 4";
    faulty.until("cart", "another one is installed", done).await;
    faulty.rest().await;
    let made = |one: &&Asked| one.namespace == "shop" && matches!(one.verb, Verb::Create | Verb::Apply);
    assert_eq!(in_words(faulty.proxy.writes().iter().filter(made)), Vec::<String>::new(), "nothing is made there");
    // Somebody releases what held it: it goes, and comes again as Git says.
    let path = "api/v1/namespaces/shop/configmaps/held";
    faulty.live().ask("PATCH", path, json!({"metadata": {"finalizers": null}})).await.unwrap();
    faulty.stable(1, "1.9: 10").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_33_what_no_server_takes_is_refused_before_anything_of_the_step_is_written() {
    let faulty = Faulty::installed().await;
    faulty.quiet().await;
    let large = "x".repeat(1_600_000);
    let annotated = "y".repeat(300_000);
    faulty.commit("2.0, and too much", |clone| {
        clone.replace(DEPLOYMENT, ":1.9", ":2.0");
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata: {{a: {large}}}\n");
        clone.write("apps/checkout/large.yaml", &map);
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: annotated, annotations: {a: ";
        clone.write("apps/checkout/annotated.yaml", &format!("{map}{annotated}}}}}\n"));
    });
    let seen = faulty.says("checkout", "HEAD cannot be used").await;
    assert!(seen.reasons().contains("annotated.yaml") || seen.reasons().contains("large.yaml"), "{}", seen.reasons());
    faulty.rest().await;
    assert_eq!(in_words(&faulty.proxy.writes()), Vec::<String>::new(), "nothing was written");
    assert_eq!(faulty.seen("checkout").await.told(2), Vec::<String>::new(), "and nothing recorded");
    faulty.commit("less", |clone| {
        clone.remove("apps/checkout/large.yaml");
        clone.remove("apps/checkout/annotated.yaml");
    });
    faulty.waits(2, "beta", "1.9: 8, 2.0: 2").await;
}
