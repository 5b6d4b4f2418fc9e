//! Manifests as they are published, and the limits of what is taken.

use locktender::core::{
    cluster::Scope,
    manifest::{Manifest, canonical_digest, digest, is_manifest, is_sliced, parse, stage},
    problem::Problem,
    render::Files,
};
use serde_json::json;

fn files<const N: usize>(files: [(&str, &str); N]) -> Files {
    files.into_iter().map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec().into())).collect()
}

fn read(text: &str) -> Result<Vec<Manifest>, Vec<Problem>> {
    parse(&files([("apps/a/a.yaml", text)]), "shop", |_| None)
}

fn keys(manifests: &[Manifest]) -> Vec<String> {
    manifests.iter().map(|manifest| manifest.object.key().to_string()).collect()
}

#[test]
fn bookinfo_reads_unchanged() {
    let bytes = std::fs::read(super::files::package("../shared/corpus/bookinfo/bookinfo.yaml")).unwrap();
    let files = Files::from([("apps/bookinfo/bookinfo.yaml".to_owned(), bytes.into())]);
    let manifests = parse(&files, "bookinfo", |_| None).unwrap();
    let objects: Vec<_> = manifests.into_iter().map(|manifest| manifest.object).collect();
    assert!(objects.iter().all(|object| object.namespace() == "bookinfo"));
    let staged = stage(&objects, &is_sliced);
    assert_eq!((staged.workloads.len(), objects.len()), (6, 14));
    let mut reversed = objects.clone();
    reversed.reverse();
    assert_eq!(digest(&objects), digest(&reversed));
}

#[test]
fn lists_are_expanded_and_namespaces_filled_in() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}}
- apiVersion: v1
  kind: ConfigMapList
  items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: other}}]
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: c, namespace: shop}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec: {group: example.com, scope: Cluster, names: {kind: Thing}}
---
{apiVersion: example.com/v1, kind: Thing, metadata: {name: d}}
---
{apiVersion: example.com/v1, kind: Known, metadata: {name: e}}
";
    let scope = |kind: &locktender::core::cluster::Kind| (kind.kind == "Known").then_some(Scope::Cluster);
    let manifests = parse(&files([("a.yaml", text)]), "shop", scope).unwrap();
    assert_eq!(
        keys(&manifests),
        [
            "Service/a in shop",
            "ConfigMap/b in other",
            "ClusterRole/c",
            "CustomResourceDefinition/things.example.com",
            "Thing/d",
            "Known/e"
        ]
    );
    assert_eq!(manifests[4].span.line, 17);
}

#[test]
fn what_only_a_server_writes_is_taken_away() {
    let text = "
apiVersion: v1
kind: Secret
metadata:
  name: a
  uid: u
  resourceVersion: '5'
  creationTimestamp: null
  managedFields: []
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{}'
    kept: 'yes'
data: {a: aHVudGVyMg==}
stringData: {b: hunter2}
status: {phase: x}
";
    let manifests = read(text).unwrap();
    let expected = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "a", "namespace": "shop", "annotations": {"kept": "yes"}},
        "data": {"a": "aHVudGVyMg==", "b": "aHVudGVyMg=="},
    });
    assert_eq!(manifests[0].object.0, expected);
    assert_eq!(canonical_digest(&manifests[0].object.0), canonical_digest(&expected));
}

#[test]
fn fault_33_what_no_server_takes_is_refused_before_anything_is_sent() {
    let map = |data: &str, annotation: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, annotations: {{a: {annotation}}}}}\ndata: {{a: {data}}}\n"
        )
    };
    assert!(read(&map(&"x".repeat(1_000_000), "ok")).is_ok());
    let problems = read(&map(&"x".repeat(2_000_000), "ok")).unwrap_err();
    assert!(problems[0].message.starts_with("ConfigMap/a has 2000"), "{}", problems[0]);
    let problems = read(&map("x", &"y".repeat(300_000))).unwrap_err();
    assert!(problems[0].message.contains("300001 bytes of annotations"), "{}", problems[0]);
}

#[test]
fn an_applications_own_file_is_no_manifest() {
    for (path, expected) in [
        ("apps/a/app.yaml", false),
        ("apps/a/sub/app.yaml", true),
        ("apps/a/web.yml", true),
        ("apps/a/web.json", true),
        ("apps/a/README.md", false),
        ("apps/a/yaml", false),
    ] {
        assert_eq!(is_manifest("apps/a", path), expected, "{path}");
    }
}
