//! The sandbox's gateway and its way to a Service: real requests on real connections.

use std::{net::SocketAddr, time::Duration};

use locktender::{
    adapter::kube::{KubeCluster, connect},
    core::{
        cluster::{Cluster, ClusterError, Kind, PatchType, Write},
        policy::Percent,
        traffic::{Answer, Matcher, Route, Split, Target, changes, gateway_api::HttpRoute},
    },
    sandbox::server::{Sandbox, SandboxOptions},
};
use serde_json::{Value, json};

use super::{
    affinity, apply, backends, bring,
    load::{Connection, Load, ask, count},
    read, share, with_header,
};

/// Two versions of an application, each behind a Service, and a route to the one that serves.
struct Shop {
    cluster: KubeCluster,
    sandbox: Sandbox,
    route: HttpRoute,
    _directory: tempfile::TempDir,
}

fn deployment(version: &str) -> Value {
    let labels = json!({"app": "checkout", "version": version});
    let container = json!({
        "name": "checkout", "image": format!("registry.example/checkout:{version}"),
        "ports": [{"name": "http", "containerPort": 8080}],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("checkout-{version}"), "namespace": "shop"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    })
}

fn service(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": "checkout", "version": version},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

impl Shop {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let options =
            SandboxOptions { kubeconfig: Some(kubeconfig.clone()), gateway_api: true, ..SandboxOptions::default() };
        let sandbox = Sandbox::start(options).await.unwrap();
        let cluster = connect(Some(&kubeconfig), None).await.unwrap();
        let route = HttpRoute { namespace: "shop".to_owned(), name: "checkout".to_owned(), backends: backends() };
        let shop = Self { cluster, sandbox, route, _directory: directory };
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
            deployment("1"),
            deployment("2"),
            service("checkout", "1"),
            service("checkout-canary", "2"),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": "public", "namespace": "shop"},
                "spec": {"gatewayClassName": "locktender-sandbox",
                    "listeners": [{"name": "http", "port": 8000, "protocol": "HTTP"}]},
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": "checkout", "namespace": "shop"},
                "spec": {"parentRefs": [{"name": "public"}],
                    "rules": [{"backendRefs": [{"name": "checkout", "port": 80}]}]},
            }),
        ] {
            apply(&shop.cluster, object).await;
        }
        for service in ["checkout", "checkout-canary"] {
            shop.until(&format!("{service} has endpoints"), async |shop| shop.endpoints(service) == 2).await;
        }
        shop.taken(None).await;
        shop
    }

    /// Asks until something holds.
    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let waiting = async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn endpoints(&self, service: &str) -> usize {
        self.sandbox.look(|world| {
            let slices = world.api.list_in("endpointslices.discovery.k8s.io", "shop");
            let slices = slices.filter(|it| it["metadata"]["labels"]["kubernetes.io/service-name"] == service);
            let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
            endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
        })
    }

    async fn delete(&self, target: Target) {
        let uid = read(&self.cluster, &target).await.uid().to_owned();
        let Target { kind, key } = target;
        let delete = Write::Delete { kind, key, uid, resource_version: None, orphan: false };
        self.cluster.write(&delete).await.unwrap();
    }

    async fn verify(&self, split: Option<&Split>) -> Answer {
        self.route.verify(&[read(&self.cluster, &self.route.reads()[0]).await], split)
    }

    async fn taken(&self, split: Option<&Split>) {
        self.until("the gateway has taken it", async |shop| shop.verify(split).await == Answer::Yes).await;
    }

    async fn split(&self, split: &Split) {
        bring(&self.cluster, &self.route, Some(split)).await;
        self.taken(Some(split)).await;
    }

    async fn gateway(&self) -> SocketAddr {
        let kind = Kind::new("gateway.networking.k8s.io", "v1", "Gateway");
        let gateway = read(&self.cluster, &Target::new(kind, "shop", "public")).await;
        let address = gateway.0["status"]["addresses"][0]["value"].as_str().unwrap().to_owned();
        format!("{address}:8000").parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_what_a_load_sees_and_no_request_fails_on_the_way() {
    let shop = Shop::start().await;
    let gateway = shop.gateway().await;
    let load = Load::start(gateway, 2, 2);
    for percent in [0, 20, 60, 100, 30] {
        shop.split(&share(percent)).await;
        let seen = count(gateway, 200, &[]).await;
        let expected = 2 * usize::from(percent);
        assert!(seen.of("2").abs_diff(expected) <= 16, "{percent} %: {seen:?}");
        assert!(percent > 0 || seen.of("2") == 0, "{seen:?}");
        assert!(percent < 100 || seen.of("1") == 0, "{seen:?}");
    }
    bring(&shop.cluster, &shop.route, None).await;
    shop.taken(None).await;
    assert_eq!(count(gateway, 50, &[]).await.of("1"), 50);
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
    assert!(seen.of("1") > 0 && seen.of("2") > 0, "{seen:?}");
    shop.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_cookies_and_copies_go_where_they_should() {
    let shop = Shop::start().await;
    let gateway = shop.gateway().await;
    let headers = vec![with_header("x-user", Matcher::Prefix("staff-".to_owned()))];
    shop.split(&Split { headers, ..share(0) }).await;
    assert_eq!(count(gateway, 20, &[("X-User", "staff-7")]).await.of("2"), 20);
    assert_eq!(count(gateway, 20, &[("X-User", "guest")]).await.of("1"), 20);

    shop.split(&Split { affinity: Some(affinity()), ..share(50) }).await;
    let mut cookie = None;
    while cookie.is_none() {
        let reply = ask(gateway, &[]).await.unwrap();
        cookie = reply.head.header("set-cookie").map(str::to_owned);
        assert_eq!(cookie.is_some(), reply.version() == "2");
    }
    let cookie = cookie.unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(count(gateway, 30, &[("Cookie", &format!("other=1; {cookie}"))]).await.of("2"), 30);

    shop.split(&Split { mirror: Some(Percent::ALL), ..share(0) }).await;
    let copies = async |shop: &Shop| {
        let pods = shop.sandbox.look(|world| {
            let pods = world.api.list_in("pods", "shop").filter(|pod| pod["metadata"]["labels"]["version"] == "2");
            pods.filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        });
        let mut sum = 0;
        for pod in pods {
            let mut connection = Connection::open(format!("{pod}:8080").parse().unwrap()).await.unwrap();
            let metrics = connection.get("/metrics", &[]).await.unwrap().body;
            let line = metrics.lines().find(|line| line.starts_with("http_requests_total") && line.contains("\"200\""));
            // Before the first there is no such line.
            sum += line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
        }
        sum
    };
    let before = copies(&shop).await;
    assert_eq!(count(gateway, 20, &[]).await.of("1"), 20);
    shop.until("every request was copied", async |shop| copies(shop).await == before + 20).await;
    shop.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_or_a_gateway_that_is_missing_is_never_taken_for_a_yes() {
    let shop = Shop::start().await;
    shop.delete(Target::new(Kind::new("", "v1", "Service"), "shop", "checkout-canary")).await;
    bring(&shop.cluster, &shop.route, Some(&share(20))).await;
    let why = "Gateway/public: ResolvedRefs is False: there is no Service checkout-canary with that port in shop";
    let missing = Answer::NotYet(why.to_owned());
    shop.until("it says what is missing", async |shop| shop.verify(Some(&share(20))).await == missing).await;
    apply(&shop.cluster, service("checkout-canary", "2")).await;
    shop.taken(Some(&share(20))).await;
    // Nor is a gateway that is gone.
    shop.delete(Target::new(Kind::new("gateway.networking.k8s.io", "v1", "Gateway"), "shop", "public")).await;
    let gone = Answer::NotYet("Gateway/public has not answered yet".to_owned());
    shop.until("nobody answers for it", async |shop| shop.verify(Some(&share(20))).await == gone).await;
    shop.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_somebody_changed_meanwhile_is_not_written_over() {
    let shop = Shop::start().await;
    let target = shop.route.reads().remove(0);
    let seen = read(&shop.cluster, &target).await;
    let wanted = shop.route.set(std::slice::from_ref(&seen), &share(20)).unwrap().remove(0);
    let mut rules = seen.0["spec"]["rules"].clone();
    let rule = json!({"matches": [{"path": {"type": "Exact", "value": "/new"}}], "backendRefs": [{"name": "new", "port": 80}]});
    rules.as_array_mut().unwrap().insert(0, rule);
    let write = |body: Value, patch| Write::Patch {
        kind: target.kind.clone(),
        key: target.key.clone(),
        uid: seen.uid().to_owned(),
        resource_version: None,
        patch,
        body,
        subresource: None,
    };
    shop.cluster.write(&write(json!({"spec": {"rules": rules}}), PatchType::Merge)).await.unwrap();
    let refused = shop.cluster.write(&write(json!(changes(&seen.0, &wanted.0)), PatchType::Json)).await.unwrap_err();
    assert!(matches!(refused, ClusterError::Invalid(_) | ClusterError::Conflict(_)), "{refused:?}");
    let live = bring(&shop.cluster, &shop.route, Some(&share(20))).await;
    assert_eq!(live.0["spec"]["rules"][0]["matches"][0]["path"]["value"], "/new");
    assert_eq!(live.0["spec"]["rules"][1]["backendRefs"][1]["weight"], 20);
    shop.sandbox.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_to_a_service_keeps_connections_and_follows_for_new_ones() {
    let shop = Shop::start().await;
    let way = shop.sandbox.open("shop", "checkout", 80).await.unwrap();
    let mut kept = Connection::open(way.address).await.unwrap();
    assert_eq!(kept.get("/", &[]).await.unwrap().version(), "1");
    apply(&shop.cluster, service("checkout", "2")).await;
    shop.until("new connections go to the other version", async |_| {
        ask(way.address, &[]).await.is_ok_and(|reply| reply.version() == "2")
    })
    .await;
    assert_eq!(count(way.address, 20, &[]).await.of("2"), 20);
    assert_eq!(kept.get("/", &[]).await.unwrap().version(), "1");
    shop.sandbox.shutdown().await;
}
