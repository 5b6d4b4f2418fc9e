//! Requests as the server sees them: lists, watches, tables, dry runs, discovery.

#![allow(clippy::unwrap_used)]

use locktender::sandbox::api::{Api, Request, Response, Watch};
use serde_json::{Value, json};

use super::{api, deployment, pod};

fn request(method: &str, url: &str, body: Option<Value>) -> Request {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    Request {
        method: method.into(),
        path: path.into(),
        query: query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect(),
        content_type: "application/json".into(),
        user_agent: "test/1".into(),
        body: body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
        ..Request::default()
    }
}

fn get(api: &mut Api, url: &str) -> Response {
    api.handle(&request("GET", url, None))
}

fn post(api: &mut Api, url: &str, body: Value) -> Response {
    api.handle(&request("POST", url, Some(body)))
}

fn names(response: &Response) -> Vec<&str> {
    let items = response.value()["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn watch(api: &Api, url: &str) -> Watch {
    api.open_watch(&request("GET", url, None)).unwrap().unwrap()
}

/// What a watch told: `ADDED a`.
fn told(frames: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    frames
        .iter()
        .map(|frame| format!("{} {}", text(&frame["type"]), text(&frame["object"]["metadata"]["name"])))
        .collect()
}

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Pods a (tier 0), b (tier 1) and c (tier 0).
fn three_pods() -> Api {
    let mut api = api();
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut made = pod(name);
        made["metadata"]["labels"]["tier"] = (index % 2).to_string().into();
        assert_eq!(post(&mut api, PODS, made).status, 201);
    }
    api
}

#[test]
fn lists_are_selected_by_labels_and_fields() {
    let mut api = three_pods();
    let list = get(&mut api, PODS);
    assert_eq!(list.value()["kind"], "PodList");
    assert_eq!(list.value()["metadata"]["resourceVersion"], api.revision().to_string());
    assert!(list.value()["items"][0].get("kind").is_none());
    assert_eq!(names(&get(&mut api, &format!("{PODS}?labelSelector=tier=0"))), ["a", "c"]);
    assert_eq!(names(&get(&mut api, &format!("{PODS}?labelSelector=tier notin (0),app"))), ["b"]);
    assert_eq!(
        names(&get(&mut api, &format!("{PODS}?fieldSelector=status.phase=Pending,metadata.name!=a"))),
        ["b", "c"]
    );
    assert_eq!(names(&get(&mut api, "/api/v1/pods?fieldSelector=spec.nodeName=")), ["a", "b", "c"]);
    assert_eq!(get(&mut api, &format!("{PODS}?fieldSelector=spec.foo=1")).status, 400);
    assert_eq!(get(&mut api, &format!("{PODS}?labelSelector=a in b")).status, 400);
}

#[test]
fn pages_of_a_list_are_all_of_one_revision() {
    let mut api = three_pods();
    let first = get(&mut api, &format!("{PODS}?limit=2"));
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first.value()["metadata"]["remainingItemCount"], 1);
    let token = first.value()["metadata"]["continue"].as_str().unwrap().to_owned();
    api.handle(&request("DELETE", &format!("{PODS}/c"), None));
    post(&mut api, PODS, pod("d"));
    let second = get(&mut api, &format!("{PODS}?limit=2&continue={token}"));
    assert_eq!(names(&second), ["c"]);
    assert_eq!(second.value()["metadata"]["resourceVersion"], first.value()["metadata"]["resourceVersion"]);
    api.compact(api.revision());
    assert_eq!(get(&mut api, &format!("{PODS}?limit=2&continue={token}")).status, 410);
}

#[test]
fn a_list_of_the_past_is_exact_or_gone() {
    let mut api = three_pods();
    let then = api.revision() - 1;
    assert_eq!(names(&get(&mut api, &format!("{PODS}?resourceVersion={then}&resourceVersionMatch=Exact"))), ["a", "b"]);
    assert_eq!(
        names(&get(&mut api, &format!("{PODS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan"))).len(),
        3
    );
    assert_eq!(get(&mut api, &format!("{PODS}?resourceVersion=99999")).status, 504);
    api.compact(then + 1);
    let gone = get(&mut api, &format!("{PODS}?resourceVersion={then}&resourceVersionMatch=Exact"));
    assert_eq!((gone.status, &gone.value()["reason"]), (410, &json!("Expired")));
}

#[test]
fn a_watch_tells_what_happened_since_a_revision() {
    let mut api = three_pods();
    let since = api.revision();
    let mut all = watch(&api, &format!("{PODS}?watch=true&resourceVersion={since}"));
    let mut some = watch(&api, &format!("{PODS}?watch=1&labelSelector=tier=0&resourceVersion={since}"));
    assert!(api.poll(&mut all).is_empty());
    let mut patch = request("PATCH", &format!("{PODS}/a"), Some(json!({"metadata": {"labels": {"tier": "1"}}})));
    patch.content_type = "application/merge-patch+json".into();
    assert_eq!(api.handle(&patch).status, 200);
    patch.path = format!("{PODS}/b");
    patch.body = br#"{"metadata":{"labels":{"tier":"0"}}}"#.to_vec();
    api.handle(&patch);
    api.handle(&request("DELETE", &format!("{PODS}/c"), None));
    assert_eq!(told(&api.poll(&mut all)), ["MODIFIED a", "MODIFIED b", "DELETED c"]);
    let frames = api.poll(&mut some);
    assert_eq!(told(&frames), ["DELETED a", "ADDED b", "DELETED c"]);
    assert_eq!(frames[0]["object"]["metadata"]["labels"]["tier"], "0");
    assert_eq!(frames[0]["object"]["metadata"]["resourceVersion"], (since + 1).to_string());
    assert!(api.poll(&mut all).is_empty());
}

#[test]
fn a_watch_without_a_revision_starts_with_what_is_there() {
    let api = three_pods();
    let mut plain = watch(&api, &format!("{PODS}?watch=true"));
    assert_eq!(told(&api.poll(&mut plain)), ["ADDED a", "ADDED b", "ADDED c"]);
    let url =
        format!("{PODS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut streamed = watch(&api, &url);
    let frames = api.poll(&mut streamed);
    assert_eq!(told(&frames), ["ADDED a", "ADDED b", "ADDED c", "BOOKMARK "]);
    assert_eq!(
        frames[3]["object"],
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "resourceVersion": api.revision().to_string(),
                "annotations": {"k8s.io/initial-events-end": "true"},
            },
        })
    );
    assert_eq!(
        api.open_watch(&request("GET", &format!("{PODS}?watch=true&sendInitialEvents=true"), None)).unwrap_err().code,
        422
    );
}

#[test]
fn a_watch_from_a_compacted_revision_ends_with_gone() {
    let mut api = three_pods();
    let old = api.revision() - 2;
    api.compact(api.revision());
    let mut late = watch(&api, &format!("{PODS}?watch=true&resourceVersion={old}"));
    let frames = api.poll(&mut late);
    assert_eq!((&frames[0]["type"], &frames[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(late.is_over());
}

#[test]
fn a_dry_run_answers_and_writes_nothing() {
    let mut api = three_pods();
    let before = api.revision();
    let made = post(&mut api, &format!("{PODS}?dryRun=All"), pod("d"));
    assert_eq!((made.status, &made.value()["metadata"]["name"]), (201, &json!("d")));
    let mut apply = request(
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/web?dryRun=All&fieldManager=m",
        Some(deployment()),
    );
    apply.content_type = "application/apply-patch+yaml".into();
    assert_eq!(api.handle(&apply).status, 201);
    assert_eq!(api.handle(&request("DELETE", &format!("{PODS}/a?dryRun=All"), None)).status, 200);
    assert_eq!(get(&mut api, &format!("{PODS}/d")).status, 404);
    assert_eq!(api.revision(), before);
    // What a dry run made is what a real one makes.
    assert_eq!(post(&mut api, PODS, pod("d")).value()["metadata"]["uid"], made.value()["metadata"]["uid"]);
}

#[test]
fn unknown_fields_are_refused_warned_of_or_dropped() {
    let mut api = api();
    let mut wrong = pod("a");
    wrong["spec"]["containers"][0]["imagee"] = "x".into();
    let strict = post(&mut api, &format!("{PODS}?fieldValidation=Strict"), wrong.clone());
    assert_eq!(strict.status, 400);
    assert_eq!(
        strict.value()["message"],
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
         \"spec.containers[0].imagee\""
    );
    let warned = post(&mut api, PODS, wrong.clone());
    assert_eq!(warned.warnings, ["unknown field \"spec.containers[0].imagee\""]);
    assert!(warned.value()["spec"]["containers"][0].get("imagee").is_none());
    wrong["metadata"]["name"] = "b".into();
    assert!(post(&mut api, &format!("{PODS}?fieldValidation=Ignore"), wrong).warnings.is_empty());
}

#[test]
fn tables_have_the_columns_that_people_know() {
    let mut api = three_pods();
    let mut bound = Value::clone(&api.get("pods", "default", "a").unwrap());
    bound["status"] = json!({
        "phase": "Running", "podIP": "127.1.0.1",
        "containerStatuses": [{
            "name": "web", "ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-11-21T11:59:00Z", "exitCode": 1}},
        }],
    });
    api.update(bound, Some("status")).unwrap();
    let mut asked = request("GET", PODS, None);
    asked.accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json".into();
    let table = api.handle(&asked);
    let columns = table.value()["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<&str> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(
        columns,
        ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates"]
    );
    assert_eq!(
        table.value()["rows"][0]["cells"],
        json!(["a", "0/1", "CrashLoopBackOff", "2 (60s ago)", "0s", "127.1.0.1", "<none>", "<none>", "<none>"])
    );
    assert_eq!(table.value()["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[test]
fn media_types_that_are_not_spoken_are_refused() {
    let mut api = api();
    let mut asked = request("GET", PODS, None);
    asked.accept = "application/vnd.kubernetes.protobuf".into();
    assert_eq!(api.handle(&asked).status, 406);
    asked.accept = "application/vnd.kubernetes.protobuf,application/json".into();
    assert_eq!(api.handle(&asked).status, 200);
    let mut sent = request("POST", PODS, Some(pod("a")));
    sent.content_type = "application/cbor".into();
    assert_eq!(api.handle(&sent).status, 415);
    sent.content_type = "application/vnd.kubernetes.protobuf".into();
    assert_eq!(api.handle(&sent).status, 400, "it is JSON");
    let mut patched = request("PATCH", &format!("{PODS}/a"), Some(json!({})));
    patched.content_type = "text/plain".into();
    assert_eq!(api.handle(&patched).status, 415);
}

#[test]
fn paths_verbs_and_bodies_that_do_not_fit_are_refused() {
    let mut api = three_pods();
    for (method, url, body, status) in [
        ("GET", "/apis/nothing.example/v1/things", None, 404),
        ("GET", "/api/v1/namespaces/default/pods/a/nothing", None, 404),
        ("PUT", PODS, None, 405),
        ("POST", "/api/v1/pods", Some(pod("x")), 405),
        ("POST", PODS, Some(deployment()), 400),
        ("POST", PODS, Some(json!({})), 422),
        ("PUT", "/api/v1/namespaces/default/pods/b", Some(pod("a")), 400),
        ("POST", "/api/v1/namespaces/kube-system/pods", Some(pod("a")), 400),
        ("DELETE", "/api/v1/namespaces/default/pods/none", None, 404),
        ("DELETE", "/api/v1/namespaces/default/pods/a?propagationPolicy=Never", None, 422),
    ] {
        let response = api.handle(&request(method, url, body));
        assert_eq!(response.status, status, "{method} {url}: {}", response.value());
    }
}

#[test]
fn a_scale_changes_the_count_and_nothing_else() {
    let mut api = api();
    let web = "/apis/apps/v1/namespaces/default/deployments/web";
    post(&mut api, "/apis/apps/v1/namespaces/default/deployments", deployment());
    let mut scale = get(&mut api, &format!("{web}/scale")).value().clone();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(3), &json!("app=web")));
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(api.handle(&request("PUT", &format!("{web}/scale"), Some(scale.clone()))).status, 200);
    assert_eq!(get(&mut api, web).value()["spec"]["replicas"], 5);
    // Decided on an older version.
    assert_eq!(api.handle(&request("PUT", &format!("{web}/scale"), Some(scale.clone()))).status, 409);
    scale["metadata"]["resourceVersion"] = Value::Null;
    scale["spec"]["replicas"] = (-1).into();
    assert_eq!(api.handle(&request("PUT", &format!("{web}/scale"), Some(scale))).status, 422);
}

#[test]
fn an_eviction_spends_the_pods_budget() {
    let mut api = three_pods();
    let evict = |api: &mut Api, name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        post(api, &format!("{PODS}/{name}/eviction"), eviction)
    };
    for name in ["a", "b", "c"] {
        let mut running = Value::clone(&api.get("pods", "default", name).unwrap());
        running["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        api.update(running, Some("status")).unwrap();
    }
    let budget = |name: &str| {
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        })
    };
    let mut made = Value::clone(&api.create(budget("one")).unwrap());
    assert_eq!(evict(&mut api, "a").status, 429, "no controller has looked at it yet");
    made["status"] = json!({
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3,
    });
    api.update(made, Some("status")).unwrap();
    assert_eq!(evict(&mut api, "a").status, 201);
    let refused = evict(&mut api, "b");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.value()["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.value()["details"]["causes"][0]["message"],
        "The disruption budget one needs 2 healthy pods and has 3 currently"
    );
    api.create(budget("two")).unwrap();
    assert_eq!(evict(&mut api, "b").status, 500);
}

#[test]
fn both_groups_of_events_are_one() {
    let mut api = api();
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-11-21T12:00:00.000000Z", "note": "it happened", "reason": "Happened", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "a"}, "reportingController": "me",
    });
    let made = post(&mut api, "/apis/events.k8s.io/v1/namespaces/default/events", event);
    assert_eq!((made.status, &made.value()["note"]), (201, &json!("it happened")));
    let core = get(&mut api, "/api/v1/namespaces/default/events/e");
    assert_eq!(
        (&core.value()["message"], &core.value()["involvedObject"]["name"]),
        (&json!("it happened"), &json!("a"))
    );
    assert_eq!(names(&get(&mut api, "/api/v1/events?fieldSelector=involvedObject.name=a")), ["e"]);
}

#[test]
fn deleting_a_collection_deletes_what_is_selected() {
    let mut api = three_pods();
    assert_eq!(api.handle(&request("DELETE", &format!("{PODS}?labelSelector=tier=0"), None)).status, 200);
    assert_eq!(names(&get(&mut api, PODS)), ["b"]);
}

#[test]
fn a_namespace_goes_when_its_finalizer_is_gone() {
    let mut api = api();
    post(
        &mut api,
        "/api/v1/namespaces",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
    );
    assert!(api.get("serviceaccounts", "shop", "default").is_some());
    let going = api.handle(&request("DELETE", "/api/v1/namespaces/shop", None));
    assert_eq!(going.value()["status"]["phase"], "Terminating");
    let mut late = pod("a");
    late["metadata"]["namespace"] = "shop".into();
    assert_eq!(post(&mut api, "/api/v1/namespaces/shop/pods", late).status, 403);
    let mut finalized = going.value().clone();
    finalized["spec"]["finalizers"] = json!([]);
    assert_eq!(api.handle(&request("PUT", "/api/v1/namespaces/shop/finalize", Some(finalized))).status, 200);
    assert!(api.get("namespaces", "", "shop").is_none());
}

#[test]
fn custom_resources_have_their_own_schema_and_versions() {
    let mut api = api();
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["length"], "properties": {
            "length": {"type": "integer"}, "flag": {"type": "string", "default": "none"}, "crew": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "rank": {"type": "string"}}},
            },
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"kind": "Boat", "plural": "boats"},
            "versions": [version("v1beta1", false), version("v1", true)],
        },
    });
    let made = post(&mut api, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition);
    assert_eq!(made.status, 201, "{}", made.value());
    assert_eq!(made.value()["status"]["acceptedNames"]["listKind"], "BoatList");
    let boats = "/apis/example.com/v1/namespaces/default/boats";
    let boat = json!({
        "apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "ada"},
        "spec": {"length": 9, "crew": [{"name": "Eve"}], "sails": 3}, "status": {"x": 1},
    });
    let made = post(&mut api, boats, boat.clone());
    assert_eq!(made.value()["spec"], json!({"length": 9, "flag": "none", "crew": [{"name": "Eve"}]}));
    assert!(made.value().get("status").is_none());
    assert_eq!(
        get(&mut api, "/apis/example.com/v1beta1/namespaces/default/boats/ada").value()["apiVersion"],
        "example.com/v1beta1"
    );
    let mut wrong = boat;
    wrong["metadata"]["name"] = "bob".into();
    wrong["spec"] = json!({});
    let refused = post(&mut api, boats, wrong.clone());
    assert_eq!(refused.value()["message"], "Boat.example.com \"bob\" is invalid: spec.length: Required value");
    wrong["spec"]["length"] = "9".into();
    assert_eq!(
        post(&mut api, boats, wrong).value()["message"],
        "Boat.example.com \"bob\" is invalid: spec.length: Invalid value: \"string\": spec.length in body must be of type \
         integer: \"string\""
    );
    let mut apply = request(
        "PATCH",
        &format!("{boats}/ada?fieldManager=m"),
        Some(json!({
            "apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "ada"},
            "spec": {"crew": [{"name": "Bob", "rank": "cook"}]},
        })),
    );
    apply.content_type = "application/apply-patch+yaml".into();
    let applied = api.handle(&apply);
    assert_eq!(
        applied.value()["spec"]["crew"],
        json!([{"name": "Eve"}, {"name": "Bob", "rank": "cook"}]),
        "{}",
        applied.value()
    );
    let gone = api.handle(&request(
        "DELETE",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boats.example.com",
        None,
    ));
    assert_eq!(gone.status, 200);
    assert_eq!(get(&mut api, boats).status, 404);
}
