//! What is applied to an API server is no different afterwards, and what is taken out of a file goes: the comparison in
//! memory against the sandbox's own server-side apply, over HTTP.

use std::{collections::BTreeMap, sync::Arc};

use locktender::{
    adapter::kube::{KubeCluster, Settings, connect_with},
    core::{
        cluster::{Cluster, FIELD_MANAGER, Write},
        diff::{is_applied_by, owned_differs},
        manifest::{Object, parse, sort},
        render::Files,
        validate::validate,
    },
    sandbox::{
        http::{Shared, serve, url},
        kubeconfig,
        traffic::definitions::definitions,
    },
};
use serde_json::json;

use super::files::{directories, package, read};

/// Starts an API server without controllers and returns its client; the directory holds the kubeconfig.
async fn server() -> (KubeCluster, tempfile::TempDir) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = url(listener.local_addr().unwrap());
    tokio::spawn(serve(listener, Arc::new(Shared::new(1)), "t0ken".into(), None, std::future::pending()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    kubeconfig::write(&file, &url, "t0ken").unwrap();
    (connect_with(Some(&file), None, Settings::default()).await.unwrap(), directory)
}

async fn apply(cluster: &KubeCluster, object: &Object) -> Object {
    let write = Write::Apply { object: object.clone(), force: false, manager: None };
    let answer = cluster.write(&write).await;
    answer.unwrap_or_else(|error| unreachable!("{}: {error}", object.key())).unwrap()
}

fn paths(desired: &Object, live: &Object) -> Vec<String> {
    owned_differs(desired, live, FIELD_MANAGER).into_iter().map(|change| change.path).collect()
}

const RICH: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: rich, namespace: shop, labels: {app: rich}, annotations: {a: b}}
spec:
  replicas: 2
  selector: {matchLabels: {app: rich}}
  template:
    metadata: {labels: {app: rich}}
    spec:
      hostNetwork: false
      tolerations: [{key: a, operator: Exists}]
      initContainers:
      - {name: first, image: 'init:1', command: [sh, -c, 'true']}
      - {name: proxy, image: 'proxy:1', restartPolicy: Always}
      containers:
      - name: app
        image: app:1
        args: [--a, --b]
        env:
        - {name: A, value: x}
        - {name: B, value: $(A)}
        - {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        envFrom: [{configMapRef: {name: settings}}]
        ports: [{name: http, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]
        resources: {requests: {cpu: 1000m, memory: 1024Mi}, limits: {memory: 1Gi}}
        readinessProbe: {httpGet: {path: /, port: http}}
        volumeMounts: [{name: all, mountPath: /all, readOnly: false}, {name: tmp, mountPath: /tmp}]
      volumes:
      - {name: tmp, emptyDir: {}}
      - name: all
        projected:
          sources:
          - configMap: {name: settings, items: [{key: a, path: b}]}
          - serviceAccountToken: {path: token}
---
apiVersion: v1
kind: Service
metadata: {name: rich, namespace: shop}
spec:
  selector: {app: rich}
  ports: [{name: http, port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: rich, namespace: shop}
spec:
  podSelector: {}
  ingress: [{ports: [{port: 80}, {port: 53, protocol: UDP}]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: rich, namespace: shop}
spec: {maxUnavailable: 25%, selector: {matchLabels: {app: rich}}}
---
apiVersion: v1
kind: Secret
metadata: {name: rich, namespace: shop}
stringData: {key: value}
";

/// Every object of the examples, of bookinfo and of a manifest with many fields, by where it comes from.
fn objects() -> BTreeMap<String, Vec<Object>> {
    let mut all = BTreeMap::new();
    for example in directories(&package("examples")) {
        for (name, (_, manifests)) in validate(&read(&example), &BTreeMap::new(), |_| None).applications {
            all.insert(name.to_string(), manifests.into_iter().map(|manifest| manifest.object).collect());
        }
    }
    let bookinfo = std::fs::read(package("../shared/corpus/bookinfo/bookinfo.yaml")).unwrap();
    for (name, bytes) in [("bookinfo", bookinfo), ("rich", RICH.as_bytes().to_vec())] {
        let files = Files::from([("a.yaml".to_owned(), bytes.into())]);
        let manifests = parse(&files, name, |_| None).unwrap();
        all.insert(name.to_owned(), manifests.into_iter().map(|manifest| manifest.object).collect());
    }
    all
}

#[tokio::test]
async fn what_was_applied_does_not_differ() {
    let (cluster, _directory) = server().await;
    for definition in definitions() {
        apply(&cluster, &Object(definition)).await;
    }
    let mut number = 0;
    for (name, mut objects) in objects() {
        let namespaces: std::collections::BTreeSet<String> =
            objects.iter().map(|object| object.namespace().to_owned()).collect();
        for namespace in namespaces.iter().filter(|namespace| *namespace != "default") {
            apply(&cluster, &Object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})))
                .await;
        }
        sort(&mut objects);
        for object in objects {
            let live = apply(&cluster, &object).await;
            assert!(is_applied_by(&live, FIELD_MANAGER), "{}", object.key());
            assert_eq!(paths(&object, &live), [""; 0], "{} of {name}: {}", object.key(), live.0);
            number += 1;
        }
    }
    assert!(number > 20, "{number}");
}

/// Whatever single field is taken out of an object, applying it changes the live one exactly where the comparison says
/// that it would.
#[tokio::test]
async fn the_comparison_says_what_applying_does() {
    let (cluster, _directory) = server().await;
    apply(&cluster, &Object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))).await;
    let files = Files::from([("a.yaml".to_owned(), RICH.as_bytes().to_vec().into())]);
    let full = parse(&files, "shop", |_| None).unwrap().remove(0).object;
    let container = "/spec/template/spec/containers/0";
    let mut wrong = Vec::new();
    for (parent, field) in [
        ("/metadata/labels", "app"),
        ("/metadata", "annotations"),
        ("/spec/template/spec", "tolerations"),
        ("/spec/template/spec", "hostNetwork"),
        (container, "args"),
        (container, "envFrom"),
        (container, "readinessProbe"),
        (&format!("{container}/resources"), "limits"),
        (&format!("{container}/resources/requests"), "cpu"),
        (&format!("{container}/env"), "1"),
        (&format!("{container}/ports"), "1"),
        (&format!("{container}/volumeMounts"), "1"),
        (&format!("{container}/volumeMounts/0"), "readOnly"),
        ("/spec/template/spec/initContainers", "1"),
        ("/spec/template/spec/volumes/1/projected/sources", "1"),
    ] {
        let before = apply(&cluster, &full).await;
        let mut less = full.clone();
        let parent_value = less.0.pointer_mut(parent).unwrap();
        match parent_value.as_array_mut() {
            Some(items) => drop(items.remove(field.parse().unwrap())),
            None => drop(parent_value.as_object_mut().unwrap().remove(field).unwrap()),
        }
        let said = paths(&less, &before);
        let after = apply(&cluster, &less).await;
        let changes = before.at(&["spec"]) != after.at(&["spec"])
            || before.at(&["metadata", "labels"]) != after.at(&["metadata", "labels"])
            || before.at(&["metadata", "annotations"]) != after.at(&["metadata", "annotations"]);
        if changes == said.is_empty() || !paths(&less, &after).is_empty() {
            wrong.push(format!(
                "{parent}/{field}: changed: {changes}, said: {said:?}, then: {:?}",
                paths(&less, &after)
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
