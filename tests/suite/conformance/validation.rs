//! What is refused, and in which words.

use serde_json::{Value, json};

use super::{
    defaults::deployment,
    server::{Answer, Server},
};

/// What makes an object wrong.
type Change = fn(&mut Value);

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/NS/deployments";

#[tokio::test]
async fn deployments_that_make_no_sense() {
    let mut server = Server::start().await;
    let changes: &[(&str, Change)] = &[
        ("no template", |it| drop(it["spec"].as_object_mut().unwrap().remove("template"))),
        ("no selector", |it| drop(it["spec"].as_object_mut().unwrap().remove("selector"))),
        ("a selector of nothing", |it| it["spec"]["selector"] = json!({})),
        ("another selector than the template's labels", |it| it["spec"]["selector"]["matchLabels"]["app"] = "x".into()),
        ("less than no replicas", |it| it["spec"]["replicas"] = (-1).into()),
        ("no containers", |it| it["spec"]["template"]["spec"]["containers"] = json!([])),
        ("no image", |it| {
            drop(it["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("image"))
        }),
        ("no progress by force", |it| {
            it["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})
        }),
        ("a strategy that is none", |it| it["spec"]["strategy"] = json!({"type": "Canary"})),
        ("two containers of a name", |it| {
            it["spec"]["template"]["spec"]["containers"] =
                json!([{"name": "a", "image": "a"}, {"name": "a", "image": "b"}])
        }),
        ("a restart policy of jobs", |it| it["spec"]["template"]["spec"]["restartPolicy"] = "Never".into()),
        ("a deadline before it is ready", |it| {
            it["spec"]["minReadySeconds"] = 30.into();
            it["spec"]["progressDeadlineSeconds"] = 20.into();
        }),
        ("a port that is none", |it| {
            it["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 99_999.into()
        }),
        ("a volume that is not there", |it| {
            it["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "x", "mountPath": "/x"}])
        }),
        ("text for a number", |it| it["spec"]["replicas"] = "three".into()),
        ("a number for text", |it| it["spec"]["template"]["spec"]["containers"][0]["image"] = 3.into()),
        ("a list for a map", |it| it["metadata"]["labels"] = json!(["a"])),
    ];
    for (what, change) in changes {
        let mut object = deployment();
        change(&mut object);
        server.note(what);
        server.see_part("POST", DEPLOYMENTS, object, &[]).await;
    }
    matches!(server);
}

#[tokio::test]
async fn a_selector_once_set_stays() {
    let mut server = Server::start().await;
    let mut idle = deployment();
    idle["spec"]["replicas"] = 0.into();
    server.ask("POST", DEPLOYMENTS, idle.clone()).await;
    idle["spec"]["selector"]["matchLabels"]["x"] = "y".into();
    idle["spec"]["template"]["metadata"]["labels"]["x"] = "y".into();
    server.see("PUT", &format!("{DEPLOYMENTS}/web"), idle.clone()).await;
    idle["kind"] = "StatefulSet".into();
    idle["spec"]["serviceName"] = "web".into();
    let sets = "/apis/apps/v1/namespaces/NS/statefulsets";
    server.ask("POST", sets, idle.clone()).await;
    idle["spec"]["serviceName"] = "other".into();
    idle["spec"]["podManagementPolicy"] = "Parallel".into();
    server.see("PUT", &format!("{sets}/web"), idle).await;
    matches!(server);
}

#[tokio::test]
async fn of_a_pod_only_little_may_be_changed() {
    let mut server = Server::start().await;
    let pods = "/api/v1/namespaces/NS/pods";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "labels": {"a": "b"}},
        "spec": {
            "schedulerName": "nobody", "activeDeadlineSeconds": 100, "automountServiceAccountToken": false,
            "initContainers": [{"name": "before", "image": "before:1"}],
            "containers": [{"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "1"}}}],
        },
    });
    let made = server.ask("POST", pods, pod).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let one = format!("{pods}/one");
    let strategic = "application/strategic-merge-patch+json";
    let container = |more: Value| {
        let mut container = json!({"name": "web"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": {"containers": [container]}})
    };
    server
        .see_patch(strategic, &one, container(json!({"image": "no such: image"})), &["/spec/containers/0/image"])
        .await;
    server
        .see_patch(
            strategic,
            &one,
            json!({"spec": {"initContainers": [{"name": "before", "image": "before:2"}]}}),
            &["/spec/initContainers/0/image"],
        )
        .await;
    server
        .see_patch(
            strategic,
            &one,
            json!({"spec": {"tolerations": [{"key": "x", "operator": "Exists"}]}}),
            &["/spec/tolerations"],
        )
        .await;
    server
        .see_patch(strategic, &one, json!({"spec": {"activeDeadlineSeconds": 50}}), &["/spec/activeDeadlineSeconds"])
        .await;
    for change in [
        container(json!({"env": [{"name": "A", "value": "1"}]})),
        container(json!({"imagePullPolicy": "Never"})),
        container(json!({"resources": {"requests": {"cpu": "2"}}})),
        container(json!({"image": ""})),
        json!({"spec": {"activeDeadlineSeconds": 80}}),
        json!({"spec": {"nodeName": "other"}}),
        json!({"spec": {"readinessGates": [{"conditionType": "example.com/x"}]}}),
        json!({"spec": {"terminationGracePeriodSeconds": 3}}),
    ] {
        let answer = server.ask_patch(strategic, &one, change.clone()).await;
        // After this come the fields that differ, as Go prints them.
        let message = answer.text("/message");
        let message = message.lines().next().unwrap().to_owned();
        server.tell_value(&change.to_string(), json!([answer.status, answer.body["reason"], message]));
    }
    matches!(server);
}

#[tokio::test]
async fn services_that_make_no_sense() {
    let mut server = Server::start().await;
    let services = "/api/v1/namespaces/NS/services";
    let service =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec});
    for spec in [
        json!({}),
        json!({"ports": []}),
        json!({"ports": [{"port": 0}]}),
        json!({"ports": [{"port": 80}, {"port": 81}]}),
        json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
        json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
        json!({"type": "Magic", "ports": [{"port": 80}]}),
        json!({"ports": [{"port": 80}], "clusterIP": "nonsense"}),
        json!({"ports": [{"port": 80}], "sessionAffinity": "Sometimes"}),
    ] {
        server.note(&spec.to_string());
        server.see("POST", services, service(spec)).await;
    }
    server.ask("POST", services, service(json!({"ports": [{"port": 80}]}))).await;
    server.note("an address stays");
    let path = format!("{services}/web");
    let answer =
        server.ask("PATCH", &path, json!({"spec": {"clusterIP": "10.96.255.7", "clusterIPs": ["10.96.255.7"]}})).await;
    server.tell_value("", json!([answer.status, answer.body["reason"], answer.body["details"]["causes"]]));
    matches!(server);
}

#[tokio::test]
async fn budgets_and_autoscalers_that_make_no_sense() {
    let mut server = Server::start().await;
    let budgets = "/apis/policy/v1/namespaces/NS/poddisruptionbudgets";
    let budget = |spec: Value| json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": spec});
    server
        .see(
            "POST",
            budgets,
            budget(json!({"minAvailable": 1, "maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}})),
        )
        .await;
    server.see("POST", budgets, budget(json!({"minAvailable": -1, "selector": {"matchLabels": {"a": "b"}}}))).await;
    server.see("POST", budgets, budget(json!({"minAvailable": "150%", "selector": {"matchLabels": {"a": "b"}}}))).await;
    let scalers = "/apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers";
    let scaler = |min: i32, max: i32| json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {"minReplicas": min, "maxReplicas": max, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    server.see("POST", scalers, scaler(0, 5)).await;
    server.see("POST", scalers, scaler(6, 5)).await;
    matches!(server);
}

#[tokio::test]
async fn jobs_that_make_no_sense_and_changes_of_them() {
    const JOBS: &str = "/apis/batch/v1/namespaces/NS/jobs";
    let mut server = Server::start().await;
    let job = |change: Change| {
        let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "migrate:1"}]}});
        let mut job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"},
            "spec": {"suspend": true, "template": template},
        });
        change(&mut job);
        job
    };
    server.note("it may not restart for ever");
    let always = job(|it| it["spec"]["template"]["spec"]["restartPolicy"] = "Always".into());
    server.see_part("POST", JOBS, always.clone(), &[]).await;
    server.ask("POST", JOBS, job(|_| ())).await;
    let path = format!("{JOBS}/migrate");
    server.note("who tries to make it again is told what is wrong with it, or that it is there");
    server.see_part("POST", &format!("{JOBS}?dryRun=All"), always, &[]).await;
    server.see_part("POST", &format!("{JOBS}?dryRun=All"), job(|_| ()), &[]).await;
    let image = json!([{"name": "a", "image": "migrate:2"}]);
    server.leave_words_out();
    server.note("the template of a suspended one");
    let holds = |kind: &str, answer: &Answer| {
        let conditions = answer.body["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|it| it["type"] == kind && it["status"] == "True"))
    };
    server.until(&path, |answer| holds("Suspended", answer)).await;
    for (what, change) in [
        ("another image", json!({"spec": {"template": {"spec": {"containers": image}}}})),
        ("more at once", json!({"spec": {"parallelism": 2}})),
    ] {
        server.note(what);
        server.see_part("PATCH", &path, change, &["/spec/parallelism"]).await;
    }
    matches!(server);
}
