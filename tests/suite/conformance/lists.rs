//! Lists, selectors, watches, resource versions.

use serde_json::{Value, json};

use super::server::{Answer, Server};

const MAPS: &str = "/api/v1/namespaces/NS/configmaps";
const OURS: &str = "/api/v1/namespaces/NS/configmaps?labelSelector=ours";

async fn with_maps() -> Server {
    let mut server = Server::start().await;
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "back")] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"ours": "yes", "tier": tier}}});
        server.ask("POST", MAPS, map).await;
    }
    server
}

fn names(answer: &Answer) -> Value {
    let items = answer.body["items"].as_array().unwrap_or_else(|| panic!("no list: {answer:?}"));
    items.iter().map(|item| item["metadata"]["name"].clone()).collect()
}

#[tokio::test]
async fn a_list_says_what_it_is_and_its_items_do_not() {
    let mut server = with_maps().await;
    server.see("GET", &format!("{OURS}&fieldSelector=metadata.name=a"), Value::Null).await;
    server.see("GET", &format!("{MAPS}?labelSelector=none"), Value::Null).await;
    matches!(server);
}

#[tokio::test]
async fn selectors_choose() {
    let mut server = with_maps().await;
    for selector in [
        "labelSelector=ours,tier=back",
        "labelSelector=ours,tier==front",
        "labelSelector=ours,tier!=front",
        "labelSelector=ours,tier%20in%20(front,%20back)",
        "labelSelector=ours,tier%20notin%20(front)",
        "labelSelector=ours,!tier",
        "labelSelector=ours&fieldSelector=metadata.name!=a",
        "labelSelector=ours&fieldSelector=metadata.name=a,metadata.namespace=NS",
    ] {
        let answer = server.ask("GET", &format!("{MAPS}?{selector}"), Value::Null).await;
        server.tell_value(selector, names(&answer));
    }
    server.leave_words_out();
    for selector in
        ["labelSelector=a%20b", "labelSelector=tier%20in%20()", "fieldSelector=data.a=1", "fieldSelector=metadata.name"]
    {
        server.see("GET", &format!("{MAPS}?{selector}"), Value::Null).await;
    }
    server.see("GET", "/api/v1/namespaces/NS/pods?fieldSelector=spec.image=x", Value::Null).await;
    let known = "spec.nodeName=,status.phase!=Running,spec.schedulerName=x,spec.restartPolicy=Always,status.podIP=1";
    server
        .see_part("GET", &format!("/api/v1/namespaces/NS/pods?fieldSelector={known}"), Value::Null, &["/items"])
        .await;
    matches!(server);
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let mut server = with_maps().await;
    let first = server.ask("GET", &format!("{OURS}&limit=2"), Value::Null).await;
    server.tell_value("first", names(&first));
    server.tell_value("metadata", first.body["metadata"].clone());
    // A token may well have the letters that stand for the namespace in a path.
    let token = first.text("/metadata/continue").replace("NS", "%4ES");
    server
        .ask(
            "POST",
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bb", "labels": {"ours": "yes"}}}),
        )
        .await;
    let second = server.ask("GET", &format!("{OURS}&limit=2&continue={token}"), Value::Null).await;
    server.tell_value("second, as it was at the first", names(&second));
    assert_eq!(second.text("/metadata/resourceVersion"), first.text("/metadata/resourceVersion"));
    server.tell_value("metadata", second.body["metadata"].clone());
    server.leave_words_out();
    server.see("GET", &format!("{OURS}&limit=2&continue=nonsense"), Value::Null).await;
    server.see("GET", &format!("{OURS}&limit=-1"), Value::Null).await;
    matches!(server);
}

#[tokio::test]
async fn a_list_at_a_version_is_not_older() {
    let mut server = with_maps().await;
    let now = server.ask("GET", OURS, Value::Null).await.text("/metadata/resourceVersion");
    for how in [
        format!("resourceVersion={now}"),
        "resourceVersion=0".to_owned(),
        format!("resourceVersion={now}&resourceVersionMatch=NotOlderThan"),
    ] {
        let answer = server.ask("GET", &format!("{OURS}&{how}"), Value::Null).await;
        server.tell_value(how.split('=').next().unwrap(), names(&answer));
    }
    server.see("GET", &format!("{OURS}&resourceVersion=nonsense"), Value::Null).await;
    server.see("GET", &format!("{OURS}&resourceVersionMatch=Exact"), Value::Null).await;
    matches!(server);
}

async fn tell(server: &mut Server, watch: &mut super::server::Watch) {
    let (kind, object) = watch.next().await.unwrap();
    let shown = json!([kind, object["metadata"]["name"], object["metadata"]["labels"], object["kind"]]);
    server.tell_value("event", shown);
}

#[tokio::test]
async fn a_watch_tells_each_change_after_its_version() {
    let mut server = with_maps().await;
    let version = server.ask("GET", OURS, Value::Null).await.text("/metadata/resourceVersion");
    let mut watch = server.watch(&format!("{OURS}&watch=true&resourceVersion={version}")).await;
    let mut back = server.watch(&format!("{MAPS}?watch=true&labelSelector=tier=back&resourceVersion={version}")).await;
    server.ask("PATCH", &format!("{MAPS}/a"), json!({"data": {"x": "1"}})).await;
    tell(&mut server, &mut watch).await;
    server.ask("PATCH", &format!("{MAPS}/b"), json!({"metadata": {"labels": {"tier": "front"}}})).await;
    tell(&mut server, &mut watch).await;
    server.note("who selects by that label sees it go");
    tell(&mut server, &mut back).await;
    server.ask("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"tier": "back"}}})).await;
    tell(&mut server, &mut back).await;
    tell(&mut server, &mut watch).await;
    server.ask("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    tell(&mut server, &mut watch).await;
    tell(&mut server, &mut back).await;
    matches!(server);
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there() {
    let mut server = with_maps().await;
    let mut watch = server.watch(&format!("{OURS}&watch=true")).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let (kind, object) = watch.next().await.unwrap();
        told.push(format!("{kind} {}", object["metadata"]["name"]));
    }
    told.sort();
    server.tell_value("told", told.into());
    matches!(server);
}

#[tokio::test]
async fn a_watch_tells_when_it_has_told_what_is_there() {
    let mut server = with_maps().await;
    let path =
        format!("{OURS}&watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    if server.older().await.is_some() {
        // 1.33 has it, and refuses it unless it is switched on: Locktender lists before it watches.
        server.see("GET", &path, Value::Null).await;
        matches!(server);
        return;
    }
    let mut all = server.watch(&path).await;
    for _ in 0..3 {
        assert_eq!(all.next().await.unwrap().0, "ADDED");
    }
    let (kind, bookmark) = all.next().await.unwrap();
    server.tell_value(&kind, bookmark["metadata"]["annotations"].clone());
    matches!(server);
}

#[tokio::test]
async fn a_watch_ends_in_time() {
    let mut server = with_maps().await;
    let version = server.ask("GET", OURS, Value::Null).await.text("/metadata/resourceVersion");
    let path = format!("{OURS}&watch=true&resourceVersion={version}&timeoutSeconds=1");
    assert!(server.watch(&path).await.next().await.is_none());
}

#[tokio::test]
async fn a_watch_from_an_old_version_tells_all_or_that_it_is_gone() {
    let server = with_maps().await;
    let mut watch = server.watch(&format!("{OURS}&watch=true&resourceVersion=1")).await;
    let (kind, told) = watch.next().await.unwrap();
    // How long changes are kept is the server's: a young one knows them all, one of two minutes no longer.
    match kind.as_str() {
        "ADDED" => assert_eq!(told["metadata"]["name"], "a"),
        "ERROR" => assert_eq!(
            json!([told["code"], told["reason"], told["status"], told["kind"]]),
            json!([410, "Expired", "Failure", "Status"])
        ),
        _ => panic!("{kind}: {told}"),
    }
}
