//! Canaries by each router that is told by objects, through the whole controller, on the definitions that people have: a
//! share, who is sent there by a header, copies, an abort, and a promotion after which nothing of it is left.

use std::time::Duration;

use locktender::core::rollout::report::Activity;
use serde_json::{Value, json};

use super::{
    blue_green::with_service,
    routed::{self, canary, decide, merge, waits},
    *,
};
use crate::{
    histories::release::{Place, Release},
    support::deployed,
    traffic::crds::definitions,
};

const STEPS: &str = "\
steps:
- setWeight: 20
- setHeaderRoute: {match: [{headerName: x-staff, headerValue: {exact: 'yes'}}]}
COPIES
- confirm: {}
- setWeight: 60
- confirm: {}
scaleDownDelaySeconds: 1
";

/// A router, and how to read back what it was told.
struct Case {
    /// Whether its definitions must be brought.
    defined: bool,
    fields: &'static str,
    object: Value,
    /// Where the object that says it is in the API, below its group's version.
    path: &'static str,
    told: fn(&Value) -> String,
    /// What it says at rest, at the first step, and at the second.
    says: [&'static str; 3],
}

impl Case {
    /// ingress-nginx has no copies.
    fn steps(&self) -> String {
        if self.defined { STEPS.replace("COPIES", "- setMirror: 30") } else { STEPS.replace("COPIES\n", "") }
    }

    /// The stage that waits first.
    fn first(&self) -> &'static str {
        if self.defined { "mirror-30" } else { "header-route" }
    }

    async fn told(&self, release: &Release) -> String {
        let object = release.get(self.path, "").await;
        object.map_or_else(|| "nothing".to_owned(), |object| (self.told)(&object))
    }

    /// Two releases: one grows and is aborted, the other is promoted.
    async fn goes_through(&self, more: &[(&str, &str)]) {
        let (policy, app, manifest) = (canary(&(self.fields.to_owned() + &self.steps())), app(""), with_service("1.0"));
        let files = [(POLICY_FILE, &*policy), (APP_FILE, &*app), (DEPLOYMENT, &*manifest)];
        let release = Release::on(Place::live(), &files, vec![("dca".to_owned(), 3)], 10).await;
        release.until("checkout", "1.0 is stable", |seen| seen.is(1, Activity::Stable)).await;
        if self.defined {
            define(&release).await;
        }
        release.commit("who sends requests there", |clone| {
            clone.write("apps/checkout/route.yaml", &self.object.to_string());
            for (path, text) in more {
                clone.write(path, text);
            }
        });
        let there = async {
            while release.get(self.path.trim_end_matches("-canary"), "").await.is_none() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), there).await.expect("it is applied");
        tokio::select! {
            () = self.two_releases(&release) => {}
            () = stand_in(&release), if self.fields == routed::GATEWAY_FIELDS => {}
        }
    }

    async fn two_releases(&self, release: &Release) {
        let [rest, first, second] = self.says;
        assert_eq!(self.told(release).await, rest);
        for (number, tag) in [(2, "2.0"), (3, "3.0")] {
            merge(release, tag);
            let seen = waits(release, number, self.first()).await;
            assert_eq!((self.told(release).await.as_str(), seen.pods()), (first, format!("1.0: 4, {tag}: 1")));
            decide(release, &format!("{number:04}/confirm/{}", self.first()));
            let seen = waits(release, number, "weight-60").await;
            assert_eq!((self.told(release).await.as_str(), seen.pods()), (second, format!("1.0: 4, {tag}: 3")));
            let (decision, pods) = if number == 2 { ("abort", "1.0: 4") } else { ("promote", "3.0: 4") };
            decide(release, &format!("{number:04}/{decision}"));
            let seen = release.until("checkout", decision, |seen| seen.is(number, Activity::Stable)).await;
            assert_eq!((self.told(release).await.as_str(), seen.pods().as_str()), (rest, pods));
        }
    }
}

/// Every backend of a rule with its weight, before it which header it is for: `x-staff: checkout-canary 1 | checkout 40, …`.
fn rules(route: &Value) -> String {
    let one = |rule: &Value| {
        let header = &rule["matches"][0]["headers"][0]["name"];
        let header = header.as_str().map(|name| format!("{name}: ")).unwrap_or_default();
        let backends = rule["backendRefs"].as_array().into_iter().flatten();
        let backends: Vec<String> =
            backends.map(|it| format!("{} {}", it["name"].as_str().unwrap(), it["weight"])).collect();
        let filters = rule["filters"].as_array().into_iter().flatten();
        let copies: String = filters
            .map(|it| &it["requestMirror"])
            .map(|it| format!("; {} % copied to {}", it["percent"], it["backendRef"]["name"].as_str().unwrap()))
            .collect();
        header + &backends.join(", ") + &copies
    };
    route["spec"]["rules"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" | ")
}

/// The same of a `VirtualService`.
fn routes(service: &Value) -> String {
    let one = |route: &Value| {
        let headers = route["match"][0]["headers"].as_object();
        let header = headers.and_then(|all| all.keys().next()).map(|name| format!("{name}: ")).unwrap_or_default();
        let entries = route["route"].as_array().into_iter().flatten();
        let entries: Vec<String> =
            entries.map(|it| format!("{} {}", it["destination"]["host"].as_str().unwrap(), it["weight"])).collect();
        let mirrors = route["mirrors"].as_array().into_iter().flatten();
        let copies: String = mirrors
            .map(|it| (&it["percentage"]["value"], it["destination"]["host"].as_str().unwrap()))
            .map(|(share, host)| format!("; {share} % copied to {host}"))
            .collect();
        header + &entries.join(", ") + &copies
    };
    service["spec"]["http"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" | ")
}

/// What the canary annotations say.
fn annotations(ingress: &Value) -> String {
    let of = |name: &str| {
        let value = &ingress["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")];
        value.as_str().unwrap_or("none").to_owned()
    };
    format!("{} %, {}: {}", of("canary-weight"), of("canary-by-header"), of("canary-by-header-value"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingress_nginx_gets_a_second_ingress_and_loses_it_again() {
    let backend = json!({"service": {"name": "checkout", "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let case = Case {
        defined: false,
        fields: "traffic: {nginx: {ingress: checkout}}\n",
        object: json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "checkout"},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": "shop.example.com", "http": {"paths": paths}}]},
        }),
        path: "apis/networking.k8s.io/v1/namespaces/shop/ingresses/checkout-canary",
        told: annotations,
        says: ["nothing", "20 %, x-staff: yes", "60 %, x-staff: yes"],
    };
    case.goes_through(&[]).await;
}

/// Puts the definitions in place, and lets the account of `deploy/` change such objects, as people do who use them.
async fn define(release: &Release) {
    let directory = std::env::var_os("LOCKTENDER_TEST_CRDS").expect("the definitions are a real control plane's");
    for definition in definitions(directory.as_ref()) {
        create(release, "apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    }
    let group = "rbac.authorization.k8s.io";
    let groups = json!(["gateway.networking.k8s.io", "networking.istio.io"]);
    let verbs = json!(["get", "list", "watch", "create", "patch", "delete"]);
    let named = json!({"name": "tests-routers"});
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": named,
        "rules": [{"apiGroups": groups, "resources": ["*"], "verbs": verbs}],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": named,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "tests-routers"},
        "subjects": [{"kind": "ServiceAccount", "name": "locktender", "namespace": deployed::NAMESPACE}],
    });
    for (resource, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        create(release, &format!("apis/{group}/v1/{resource}"), object).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real control plane with Istio's definitions"]
async fn istio_gets_destinations_and_a_route_and_is_given_back() {
    let case = Case {
        defined: true,
        fields: "traffic: {istio: {virtualService: checkout, destinationRule: checkout}}\n",
        object: json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "checkout"},
            "spec": {"hosts": ["checkout"], "http": [{"route": [{"destination": {"host": "checkout"}}]}]},
        }),
        path: "apis/networking.istio.io/v1/namespaces/shop/virtualservices/checkout",
        told: routes,
        says: [
            "checkout null",
            "x-staff: checkout-canary null | checkout 80, checkout-canary 20; 30 % copied to checkout-canary",
            "x-staff: checkout-canary null | checkout 40, checkout-canary 60; 30 % copied to checkout-canary",
        ],
    };
    let rule = "\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: checkout}
spec: {host: checkout, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";
    case.goes_through(&[("apps/checkout/rule.yaml", rule)]).await;
}

/// Creates what the test before may have left.
async fn create(release: &Release, path: &str, object: Value) {
    match release.live().ask("POST", path, object).await {
        Err(error) if !error.contains("AlreadyExists") => panic!("{path}: {error}"),
        _ => {}
    }
}

/// Answers as a gateway does: it has seen whatever was written.
async fn stand_in(release: &Release) {
    let path = "apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/checkout";
    loop {
        let route = release.get(path, "").await.unwrap();
        let generation = &route["metadata"]["generation"];
        if route["status"]["parents"][0]["conditions"][0]["observedGeneration"] != *generation {
            let condition = |name: &str| {
                json!({"type": name, "status": "True", "reason": name, "message": "", "observedGeneration": generation,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            };
            let parent = json!({"parentRef": {"name": "public"}, "controllerName": "tests.example/gateway",
                "conditions": [condition("Accepted"), condition("ResolvedRefs")]});
            let status = json!({"status": {"parents": [parent]}});
            release.live().ask("PATCH", &format!("{path}/status"), status).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real control plane with the Gateway API's definitions"]
async fn a_route_gets_a_backend_and_a_rule_and_is_given_back() {
    let case = Case {
        defined: true,
        fields: routed::GATEWAY_FIELDS,
        object: routed::route(),
        path: "apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/checkout",
        told: rules,
        says: [
            "checkout 1",
            "x-staff: checkout-canary 1 | checkout 80, checkout-canary 20; 30 % copied to checkout-canary",
            "x-staff: checkout-canary 1 | checkout 40, checkout-canary 60; 30 % copied to checkout-canary",
        ],
    };
    case.goes_through(&[]).await;
}
