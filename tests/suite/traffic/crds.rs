//! What is set is taken by the real definitions of the Gateway API and of Istio, where the tests have them: on a real
//! control plane and on the sandbox. `tests/controlplane/run` fetches them and names them in `LOCKTENDER_TEST_CRDS`.

use std::{path::Path, time::Duration};

use locktender::{
    adapter::kube::{KubeCluster, connect},
    core::{
        cluster::Cluster,
        policy::Percent,
        traffic::{Answer, HeaderRoute, Match, Matcher, Means, Route, Router, Split, Subject},
    },
    sandbox::server::{Sandbox, SandboxOptions},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{affinity, apply, backends, bring, read, share, with_header};
use crate::support::cluster;

/// Splits that use everything that there is.
fn splits() -> Vec<Split> {
    let cookie = Match { subject: Subject::Cookie("beta".to_owned()), value: Matcher::Exact("yes".to_owned()) };
    let staff = with_header("x-user", Matcher::Prefix("staff-".to_owned()));
    vec![
        share(0),
        share(20),
        Split { headers: vec![staff.clone(), HeaderRoute { matches: vec![cookie] }], ..share(1) },
        Split { headers: vec![staff], affinity: Some(affinity()), mirror: Percent::new(7), ..share(33) },
        share(100),
    ]
}

fn objects() -> Vec<Value> {
    let reference = |name: &str, weight: u32| json!({"name": name, "port": 80, "weight": weight});
    let path = |path: &str| json!([{"path": {"type": "PathPrefix", "value": path}}]);
    let rules = json!([
        {"matches": path("/static"), "backendRefs": [reference("static", 1)]},
        {"matches": path("/"), "timeouts": {"request": "10s"}, "backendRefs": [reference("checkout", 3), reference("old", 1)]},
    ]);
    let destination = |host: &str| json!({"destination": {"host": host, "port": {"number": 80}}});
    let http = json!([
        {"name": "static", "match": [{"uri": {"prefix": "/static"}}], "route": [destination("static")]},
        {"route": [destination("checkout.shop.svc.cluster.local")], "timeout": "10s"},
    ]);
    let named = json!({"name": "checkout", "namespace": "shop"});
    vec![
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": named,
            "spec": {"parentRefs": [{"name": "public"}], "rules": rules}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": named,
            "spec": {"hosts": ["checkout"], "http": http}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": named,
            "spec": {"host": "checkout", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": named,
            "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "checkout", "port": {"number": 80}}}}]}}]}}),
    ]
}

/// Reads the definitions in this directory, as far as the tests use them.
pub fn definitions(directory: &Path) -> Vec<Value> {
    let wanted = ["HTTPRoute", "VirtualService", "DestinationRule"];
    let files = std::fs::read_dir(directory).unwrap();
    let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let documents = texts.iter().flat_map(|text| serde_yaml::Deserializer::from_str(text));
    let read = documents.filter_map(|document| Value::deserialize(document).ok());
    read.filter(|definition| wanted.iter().any(|kind| definition["spec"]["names"]["kind"] == *kind)).collect()
}

async fn what_is_set_is_taken(cluster: &KubeCluster, directory: &Path) {
    for definition in definitions(directory) {
        apply(cluster, definition).await;
    }
    apply(cluster, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).await;
    for object in objects() {
        let served = async {
            while cluster.scope(&locktender::core::manifest::Object(object.clone()).kind()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), served).await.unwrap();
        apply(cluster, object).await;
    }
    let istio = Router::Istio { virtual_service: "checkout".into(), destination_rule: Some("checkout".into()) };
    let routers = [
        (Router::GatewayApi { http_route: "checkout".into() }, "Gateway/public has not answered yet"),
        (istio, ""),
        (Router::Nginx { ingress: "checkout".into() }, ""),
    ];
    for (router, silent) in routers {
        let Means::Objects(route) = router.means(backends()) else { panic!("{router} is told by objects") };
        let mut people = Vec::new();
        for target in &route.reads() {
            people.push(read(cluster, target).await);
        }
        for split in splits() {
            let nginx = matches!(router, Router::Nginx { .. });
            let split =
                if nginx { Split { headers: Vec::new(), affinity: None, mirror: None, ..split } } else { split };
            bring_all(cluster, route.as_ref(), &people, &split).await;
            let mut live = Vec::new();
            for target in route.reads().iter().chain(&route.makes()) {
                live.push(read(cluster, target).await);
            }
            let expected = if silent.is_empty() { Answer::Yes } else { Answer::NotYet(silent.to_owned()) };
            assert_eq!(route.verify(&live, Some(&split)), expected, "{router:?}: {split:?}");
        }
        let after = bring(cluster, route.as_ref(), None).await;
        assert_eq!(after.0["spec"], people[0].0["spec"], "{router:?}");
    }
}

/// Brings a router's objects to a split: people's by a patch, its own by an apply.
async fn bring_all(
    cluster: &dyn Cluster,
    route: &dyn Route,
    people: &[locktender::core::manifest::Object],
    split: &Split,
) {
    bring(cluster, route, Some(split)).await;
    for made in route.set(people, split).unwrap().into_iter().skip(people.len()) {
        apply(cluster, made.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_definitions_take_what_is_set() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(directory) = std::env::var_os("LOCKTENDER_TEST_CRDS") else { return };
    if let Some(kubeconfig) = cluster::real() {
        let cluster = connect(Some(&kubeconfig), None).await.unwrap();
        what_is_set_is_taken(&cluster, Path::new(&directory)).await;
    }
    let temporary = tempfile::tempdir().unwrap();
    let kubeconfig = temporary.path().join("kubeconfig");
    let options = SandboxOptions { kubeconfig: Some(kubeconfig.clone()), ..SandboxOptions::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let cluster = connect(Some(&kubeconfig), None).await.unwrap();
    what_is_set_is_taken(&cluster, Path::new(&directory)).await;
    sandbox.shutdown().await;
}
