//! Watching: what is told, and what a fault makes of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use locktender::{
    adapter::kube::Settings,
    core::cluster::{Cluster, ClusterEvent, Kind},
};
use serde_json::{Value, json};

use super::{
    fake::{After, Answer, Fake, Seen, discovery, line},
    pod, pods, settings,
};

fn list(version: &str, items: &[Value]) -> Answer {
    Answer::Json(200, json!({"kind": "PodList", "metadata": {"resourceVersion": version}, "items": items}))
}

fn gone() -> String {
    line("ERROR", &json!({"kind": "Status", "code": 410, "reason": "Expired"}))
}

async fn next(fake: &Fake) -> ClusterEvent {
    let next = fake.cluster.next_event();
    tokio::time::timeout(Duration::from_secs(20), next).await.expect("an event")
}

/// An event in a few words: `listed a b at 7`, `applied a at 8`.
fn short(event: &ClusterEvent) -> String {
    match event {
        ClusterEvent::Listed { objects, resource_version, .. } => {
            let names: Vec<&str> = objects.iter().map(|object| object.name()).collect();
            format!("listed {} at {resource_version}", names.join(" "))
        }
        ClusterEvent::Applied(object) => format!("applied {} at {}", object.name(), object.resource_version()),
        ClusterEvent::Deleted(object) => format!("deleted {} at {}", object.name(), object.resource_version()),
        ClusterEvent::Lost { reason, .. } => format!("lost: {reason}"),
    }
}

/// Watches pods on a server with this script and returns the first events.
async fn events(fake: &Fake, count: usize) -> Vec<String> {
    fake.cluster.watch(&pods()).await;
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(short(&next(fake).await));
    }
    events
}

async fn scripted(settings: Settings, mut script: impl FnMut(&Seen) -> Answer + Send + 'static) -> Fake {
    Fake::start(settings, move |seen| discovery(seen).unwrap_or_else(|| script(seen))).await
}

#[tokio::test]
async fn a_kind_is_listed_in_pages_and_watched_from_there() {
    let (answer, watch) = Answer::open_watch(&[]);
    let mut answer = Some(answer);
    let fake = scripted(Settings { page_size: 2, ..settings() }, move |seen| match seen.query.get("continue") {
        _ if seen.is_watch() => answer.take().unwrap_or(Answer::Hang),
        None => {
            // The items of a list do not say what they are.
            let mut items = [pod("a", "1"), pod("b", "2")];
            for item in &mut items {
                item.as_object_mut().unwrap().retain(|name, _| name == "metadata");
            }
            let metadata = json!({"resourceVersion": "7", "continue": "more"});
            Answer::Json(200, json!({"kind": "PodList", "metadata": metadata, "items": items}))
        }
        Some(_) => list("7", &[pod("c", "3")]),
    })
    .await;
    fake.cluster.watch(&pods()).await;
    fake.cluster.watch(&pods()).await;
    let event = next(&fake).await;
    assert_eq!(short(&event), "listed a b c at 7");
    let ClusterEvent::Listed { kind, objects, .. } = event else { unreachable!() };
    assert_eq!(kind, pods());
    assert!(objects.iter().all(|object| object.kind() == pods()));

    watch.send(line("ADDED", &pod("d", "8"))).unwrap();
    assert_eq!(short(&next(&fake).await), "applied d at 8");
    // One event in two chunks, two in one.
    let (deleted, changed) = (line("DELETED", &pod("a", "9")), line("MODIFIED", &pod("b", "10")));
    let (head, tail) = deleted.split_at(20);
    watch.send(head.to_owned()).unwrap();
    watch.send(format!("{tail}{changed}")).unwrap();
    assert_eq!(short(&next(&fake).await), "deleted a at 9");
    assert_eq!(short(&next(&fake).await), "applied b at 10");
    assert_eq!(fake.cluster.try_event(), None);
    assert_eq!(fake.short(), ["discover /api/v1", "list pods", "list pods after more", "watch pods from 7"]);
    assert_eq!(fake.seen()[3].query["allowWatchBookmarks"], "true");
}

#[tokio::test]
async fn fault_07_large_objects_are_listed_a_few_at_a_time() {
    const COUNT: usize = 20;
    let sized = Settings { page_size: 50, page_bytes: 4 << 10, ..settings() };
    let fake = scripted(sized, move |seen| {
        if seen.is_watch() {
            return Answer::silent_watch(&[]);
        }
        let limit: usize = seen.query["limit"].parse().unwrap();
        let from: usize = seen.query.get("continue").map_or(0, |from| from.parse().unwrap());
        let to = COUNT.min(from + limit);
        let items: Vec<Value> = (from..to)
            .map(|number| {
                let mut pod = pod(&format!("p-{number:02}"), "1");
                pod["metadata"]["annotations"] = json!({"filler": "x".repeat(1 << 10)});
                pod
            })
            .collect();
        let more = if to < COUNT { to.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": "7", "continue": more});
        Answer::Json(200, json!({"kind": "PodList", "metadata": metadata, "items": items}))
    })
    .await;
    let names: Vec<String> = (0..COUNT).map(|number| format!("p-{number:02}")).collect();
    assert_eq!(events(&fake, 1).await, [format!("listed {} at 7", names.join(" "))]);
    let asked = fake.seen().into_iter().filter(|seen| seen.query.contains_key("limit"));
    let asked: Vec<String> = asked.map(|seen| seen.query["limit"].clone()).collect();
    assert_eq!(asked[..3], ["50", "12", "3"], "each time it was too much");
    assert!(asked[3..].iter().all(|limit| limit == "3") && asked.len() == 2 + COUNT.div_ceil(3), "{asked:?}");
}

#[tokio::test]
async fn fault_17_a_watch_that_is_too_old_is_listed_anew() {
    let mut lists = 0;
    let fake = scripted(settings(), move |seen| match (seen.is_watch(), lists) {
        (true, 1) => Answer::closed_watch(&[line("ADDED", &pod("b", "8")), gone()]),
        (true, 2) => Answer::status(410, "Expired", json!({})),
        (true, _) => Answer::silent_watch(&[]),
        _ => {
            lists += 1;
            list(&format!("{lists}0"), &[pod("a", "1")])
        }
    })
    .await;
    assert_eq!(
        events(&fake, 4).await,
        ["listed a at 10", "applied b at 8", "listed a at 20", "listed a at 30"],
        "410 inside a watch and instead of one; b's deletion is seen by the list"
    );
}

#[tokio::test]
async fn fault_17_a_watch_that_is_cut_off_goes_on_from_the_last_whole_event() {
    let mut watches = 0;
    let fake = scripted(settings(), move |seen| {
        if !seen.is_watch() {
            return list("7", &[]);
        }
        watches += 1;
        let whole = line("ADDED", &pod("a", "8"));
        match watches {
            1 => Answer::Watch(vec![Some(whole), Some(r#"{"type":"MODIFIED","obj"#.into()), None], After::Close),
            2 => Answer::closed_watch(&[line("MODIFIED", &pod("a", "9")), r#"{"type":"DEL"#.into()]),
            3 => Answer::closed_watch(&[line("BOOKMARK", &pod("", "12"))]),
            4 => Answer::closed_watch(&[line("DELETED", &pod("a", "13"))]),
            _ => Answer::silent_watch(&[]),
        }
    })
    .await;
    assert_eq!(
        events(&fake, 4).await,
        ["listed  at 7", "applied a at 8", "applied a at 9", "deleted a at 13"],
        "no list but the first"
    );
    assert_eq!(
        fake.short()[1..6],
        ["list pods", "watch pods from 7", "watch pods from 8", "watch pods from 9", "watch pods from 12"]
    );
}

#[tokio::test]
async fn a_list_that_expires_between_its_pages_is_read_in_one_piece() {
    let fake = scripted(settings(), |seen| match (seen.query.get("limit"), seen.query.get("continue")) {
        _ if seen.is_watch() => Answer::silent_watch(&[]),
        (Some(_), None) => {
            let metadata = json!({"resourceVersion": "7", "continue": "more"});
            Answer::Json(200, json!({"metadata": metadata, "items": [pod("a", "1")]}))
        }
        (Some(_), Some(_)) => Answer::status(410, "Expired", json!({})),
        (None, _) => list("9", &[pod("a", "1"), pod("b", "2")]),
    })
    .await;
    assert_eq!(events(&fake, 1).await, ["listed a b at 9"]);
}

#[tokio::test]
async fn fault_16_a_server_that_fails_is_lost_once_and_listed_when_it_is_back() {
    let mut lists = 0;
    let fake = scripted(settings(), move |seen| match (seen.is_watch(), lists) {
        (true, 1) => Answer::Text(500, "oops"),
        (true, _) => Answer::silent_watch(&[]),
        _ => {
            lists += 1;
            if (2..6).contains(&lists) { Answer::Text(503, "oops") } else { list(&lists.to_string(), &[]) }
        }
    })
    .await;
    assert_eq!(
        events(&fake, 4).await,
        [
            "listed  at 1",
            "lost: the API server cannot be reached: watch v1/Pod: HTTP status 500",
            "lost: the API server cannot be reached: list pods: HTTP status 503",
            "listed  at 6",
        ]
    );
    let watches = fake.short().iter().filter(|request| *request == "watch pods from 1").count();
    assert_eq!(watches, 3, "a watch is tried a few times before it is lost");
}

#[tokio::test]
async fn fault_18_a_missed_event_heals_by_the_next_list() {
    let mut lists = 0;
    let fake = scripted(Settings { relist_every: Duration::from_millis(50), ..settings() }, move |seen| {
        if seen.is_watch() {
            return Answer::silent_watch(&[]);
        }
        lists += 1;
        let missed = pod("missed", "2");
        list(&lists.to_string(), if lists == 1 { &[] } else { std::slice::from_ref(&missed) })
    })
    .await;
    assert_eq!(events(&fake, 2).await, ["listed  at 1", "listed missed at 2"]);
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_opened_again_from_its_last_bookmark() {
    let mut watches = 0;
    let fake = scripted(Settings { watch_silence: Duration::from_millis(200), ..settings() }, move |seen| {
        if !seen.is_watch() {
            return list("7", &[]);
        }
        watches += 1;
        let said = if watches == 1 { line("BOOKMARK", &pod("", "30")) } else { line("ADDED", &pod("a", "31")) };
        Answer::silent_watch(&[said])
    })
    .await;
    assert_eq!(events(&fake, 2).await, ["listed  at 7", "applied a at 31"]);
    assert_eq!(fake.short()[2..4], ["watch pods from 7", "watch pods from 30"]);
}

#[tokio::test]
async fn fault_30_a_kind_that_is_not_served_is_lost_and_watched_as_soon_as_it_is_defined() {
    let served = Arc::new(AtomicBool::new(false));
    let (things_served, definition) = (
        Arc::clone(&served),
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.com", "resourceVersion": "5"}, "spec": {"group": "example.com"},
        }),
    );
    let (answer, definitions) = Answer::open_watch(&[]);
    let mut answer = Some(answer);
    // So long a wait that only the definition can end it.
    let hour = Duration::from_secs(3_600);
    let fake = scripted(Settings { backoff: (hour, hour), doubt_after: hour, ..settings() }, move |seen| {
        let is_served = things_served.load(Ordering::SeqCst);
        match (seen.path.as_str(), seen.is_watch()) {
            ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", true) => answer.take().unwrap_or(Answer::Hang),
            ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", false) => list("4", &[]),
            ("/apis/example.com/v1", _) if is_served => {
                Answer::Json(200, json!({"resources": [{"name": "things", "kind": "Thing", "namespaced": true}]}))
            }
            ("/apis/example.com/v1/things", false) if is_served => list("6", &[]),
            (_, true) => Answer::Hang,
            _ => Answer::Text(404, "404 page not found"),
        }
    })
    .await;
    let things = Kind::new("example.com", "v1", "Thing");
    fake.cluster.watch(&Kind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")).await;
    assert_eq!(short(&next(&fake).await), "listed  at 4");
    fake.cluster.watch(&things).await;
    assert_eq!(short(&next(&fake).await), "lost: the cluster does not serve it: example.com/v1/Thing");

    served.store(true, Ordering::SeqCst);
    definitions.send(line("ADDED", &definition)).unwrap();
    assert_eq!(short(&next(&fake).await), "applied things.example.com at 5");
    assert_eq!(short(&next(&fake).await), "listed  at 6");
}

#[tokio::test]
async fn a_server_that_stops_answering_is_lost() {
    let fake = scripted(Settings { request_timeout: Duration::from_millis(400), ..settings() }, |seen| {
        if seen.is_watch() { Answer::Hang } else { list("7", &[]) }
    })
    .await;
    let events = events(&fake, 3).await;
    assert_eq!(events[1], "lost: the API server cannot be reached: watch pods: no answer within 400ms");
    assert_eq!(events[2], "listed  at 7");
}

#[tokio::test]
async fn a_cluster_that_is_dropped_watches_no_more() {
    let (answer, watch) = Answer::open_watch(&[]);
    let mut answer = Some(answer);
    let mut fake = scripted(settings(), move |seen| match seen.is_watch() {
        true => answer.take().unwrap_or(Answer::Hang),
        false => list("7", &[]),
    })
    .await;
    assert_eq!(events(&fake, 1).await, ["listed  at 7"]);
    watch.send(line("ADDED", &pod("a", "8"))).unwrap();
    assert_eq!(short(&next(&fake).await), "applied a at 8");
    let other = fake.directory.path().join("kubeconfig");
    fake.cluster = locktender::adapter::kube::connect(Some(&other), None).await.unwrap();
    // The server notices that nobody listens, and drops its end.
    tokio::time::timeout(Duration::from_secs(20), watch.closed()).await.expect("the watch is closed");
}
