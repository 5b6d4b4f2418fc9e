//! From files to objects: multi-document YAML and JSON, lists expanded, namespaces filled in.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Object;
use crate::core::{
    cluster::{Kind, ObjectKey, Scope},
    problem::Problem,
    render::Files,
    yaml::{self, Data, Limits, Node, Span},
};

/// One object with the place that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The object, without what only a server writes.
    pub object: Object,
    /// The path from the repository's root.
    pub file: String,
    /// Where the object starts.
    pub span: Span,
}

impl Manifest {
    /// Builds a problem with this object.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::at(&self.file, self.span.into(), message)
    }
}

/// No object is larger: with its managed fields it must stay below what etcd takes (1.5 MiB).
const MOST_BYTES: usize = 1 << 20;
/// The API server's limit of all annotations of an object together.
const MOST_ANNOTATIONS: usize = 256 << 10;
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Returns whether a file of an application with plain sources holds manifests. `directory` is the application's.
pub fn is_manifest(directory: &str, path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let relative = path.strip_prefix(directory).map(|rest| rest.trim_start_matches('/'));
    matches!(extension, "yaml" | "yml" | "json") && relative != Some("app.yaml")
}

/// Reads all objects of one application, in the order of files and documents.
///
/// Namespaced objects that name no namespace get `namespace`. `scope` says where objects of a kind live, as far as the
/// caller knows; custom resources are looked up in the definitions among `files` first.
///
/// # Errors
///
/// Everything that is wrong with the files. Nothing of an application is used unless all of it reads.
pub fn parse(
    files: &Files,
    namespace: &str,
    scope: impl Fn(&Kind) -> Option<Scope>,
) -> Result<Vec<Manifest>, Vec<Problem>> {
    let mut reader = Reader { manifests: Vec::new(), problems: Vec::new() };
    for (file, bytes) in files {
        if bytes.starts_with(LFS) {
            let problem = Problem::in_file(file, "it is a pointer of Git LFS, not the file itself");
            reader.problems.push(problem.help("commit the file without LFS"));
            continue;
        }
        match yaml::parse(file, bytes, &Limits::MANIFESTS) {
            Ok(documents) => documents.into_iter().for_each(|document| reader.document(file, document)),
            Err(problem) => reader.problems.push(problem),
        }
    }
    let Reader { mut manifests, mut problems } = reader;
    let defined = defined_scopes(&manifests);
    for manifest in &mut manifests {
        let kind = manifest.object.kind();
        let defined = defined.get(&(kind.group.clone(), kind.kind.clone())).copied();
        let scope = defined.or_else(|| scope(&kind)).unwrap_or_else(|| builtin_scope(&kind));
        match scope {
            Scope::Cluster => drop(manifest.object.remove(&["metadata", "namespace"])),
            Scope::Namespaced if manifest.object.namespace().is_empty() => {
                manifest.object.set(&["metadata", "namespace"], Value::String(namespace.to_owned()));
            }
            Scope::Namespaced => {}
        }
    }
    problems.extend(twice(&manifests));
    if problems.is_empty() { Ok(manifests) } else { Err(problems) }
}

/// Returns the problems of objects that are there twice: the second is marked, and the first named.
fn twice(manifests: &[Manifest]) -> Vec<Problem> {
    let mut seen: HashMap<ObjectKey, &Manifest> = HashMap::new();
    let mut problems = Vec::new();
    for manifest in manifests {
        match seen.get(&manifest.object.key()) {
            Some(first) => problems.push(
                manifest
                    .problem(format!("{} is here twice", manifest.object.key()))
                    .label(format!("the first is at {}:{}", first.file, first.span.line)),
            ),
            None => drop(seen.insert(manifest.object.key(), manifest)),
        }
    }
    problems
}

/// Returns where the objects live whose definitions are among the manifests.
fn defined_scopes(manifests: &[Manifest]) -> BTreeMap<(String, String), Scope> {
    let definitions = manifests.iter().map(|manifest| &manifest.object);
    let definitions = definitions.filter(|object| object.text(&["kind"]) == "CustomResourceDefinition");
    let scope = |object: &Object| match object.text(&["spec", "scope"]) {
        "Cluster" => Scope::Cluster,
        _ => Scope::Namespaced,
    };
    let name = |object: &Object| {
        (object.text(&["spec", "group"]).to_owned(), object.text(&["spec", "names", "kind"]).to_owned())
    };
    definitions.map(|object| (name(object), scope(object))).collect()
}

/// Returns where the objects of Kubernetes' own kinds live; for when no cluster can be asked.
pub fn builtin_scope(kind: &Kind) -> Scope {
    const CLUSTER: &[(&str, &[&str])] = &[
        ("", &["Namespace", "Node", "PersistentVolume", "ComponentStatus"]),
        ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
        ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
        ("apiregistration.k8s.io", &["APIService"]),
        ("storage.k8s.io", &["StorageClass", "CSIDriver", "CSINode", "VolumeAttachment", "VolumeAttributesClass"]),
        ("scheduling.k8s.io", &["PriorityClass"]),
        ("networking.k8s.io", &["IngressClass", "IPAddress", "ServiceCIDR"]),
        ("node.k8s.io", &["RuntimeClass"]),
        ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle"]),
        ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
        ("gateway.networking.k8s.io", &["GatewayClass"]),
        ("resource.k8s.io", &["DeviceClass", "ResourceSlice"]),
        (
            "admissionregistration.k8s.io",
            &[
                "ValidatingWebhookConfiguration",
                "MutatingWebhookConfiguration",
                "ValidatingAdmissionPolicy",
                "ValidatingAdmissionPolicyBinding",
                "MutatingAdmissionPolicy",
                "MutatingAdmissionPolicyBinding",
            ],
        ),
    ];
    let of_cluster = CLUSTER.iter().any(|(group, kinds)| *group == kind.group && kinds.contains(&kind.kind.as_str()));
    if of_cluster { Scope::Cluster } else { Scope::Namespaced }
}

struct Reader {
    manifests: Vec<Manifest>,
    problems: Vec<Problem>,
}

impl Reader {
    fn document(&mut self, file: &str, document: Node) {
        let kind = document.get("kind").and_then(Node::text).unwrap_or_default();
        let is_list = kind.ends_with("List") && document.get("items").is_some_and(|n| matches!(n.data, Data::List(_)));
        if !is_list {
            return self.object(file, document);
        }
        if let Data::Map(entries) = document.data {
            let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.data);
            if let Some(Data::List(items)) = items {
                items.into_iter().for_each(|item| self.document(file, item));
            }
        }
    }

    fn object(&mut self, file: &str, document: Node) {
        let before = self.problems.len();
        self.check(file, &document);
        self.check_replicas(file, &document);
        if self.problems.len() > before {
            return;
        }
        let span = document.span;
        let mut object = Object(document.into_value());
        strip(&mut object);
        let manifest = Manifest { object, file: file.to_owned(), span };
        if let Some(message) = too_large(&manifest.object) {
            self.problems.push(manifest.problem(format!("{} {message}", manifest.object.key())));
            return;
        }
        self.manifests.push(manifest);
    }

    fn problem(&mut self, file: &str, span: Span, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem::at(file, span.into(), message));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn check(&mut self, file: &str, document: &Node) {
        if !matches!(document.data, Data::Map(_)) {
            let message = format!("expected an object, found {}", document.type_name());
            self.problem(file, document.span, message).label = Some("with `apiVersion`, `kind` and `metadata`".into());
            return;
        }
        let api_version = self.required(file, document, "apiVersion");
        let kind = self.required(file, document, "kind");
        if let (Some(api_version), Some(kind)) = (api_version, kind)
            && self.is_foreign(file, document, api_version, kind)
        {
            return;
        }
        let metadata = document.get("metadata");
        let name = metadata.and_then(|metadata| metadata.get("name")).and_then(Node::text).unwrap_or_default();
        if let Some(entry) = metadata.and_then(|metadata| metadata.entry("generateName")) {
            self.problem(file, entry.key_span, "`generateName` makes another object each time").label =
                Some("write `name`".into());
        } else if name.is_empty() {
            let span = document.place(&["metadata", "name"]);
            let what = kind.map_or_else(|| "the object".to_owned(), |kind| format!("the {kind}"));
            let label = match metadata.and_then(|metadata| metadata.get("name")) {
                Some(node) if !node.is_null() => format!("it must be a text, and is {}", node.type_name()),
                _ => "`metadata.name` is missing".to_owned(),
            };
            self.problem(file, span, format!("{what} has no name")).label = Some(label);
        }
        for field in ["labels", "annotations"] {
            let texts = metadata.and_then(|metadata| metadata.get(field)).map(Node::entries).unwrap_or_default();
            for entry in texts.iter().filter(|entry| entry.value.text().is_none()) {
                let message = format!("{field} are texts, and `{}` is {}", entry.key, entry.value.type_name());
                self.problem(file, entry.value.span, message).label = Some("put it in quotes".into());
            }
        }
        if matches!((api_version, kind), (Some("v1"), Some("ConfigMap" | "Secret"))) {
            self.check_texts(file, document);
        }
    }

    /// Refuses what quotas are counted from and cannot be counted: read as something else, it would be staged wrongly.
    fn check_replicas(&mut self, file: &str, document: &Node) {
        let kind = document.get("kind").and_then(Node::text).unwrap_or_default();
        if !matches!(kind, "Deployment" | "StatefulSet" | "ReplicaSet") {
            return;
        }
        let Some(replicas) = document.get("spec").and_then(|spec| spec.get("replicas")) else { return };
        let value = replicas.to_value();
        if value.is_null() || value.as_u64().is_some_and(|count| i32::try_from(count).is_ok()) {
            return;
        }
        let message = format!("`replicas` is {}, not a number of pods", replicas.type_name());
        self.problem(file, replicas.span, message).label = Some("write a whole number".into());
    }

    /// Refuses values of ConfigMaps and Secrets that are no texts: the most common slip of all.
    fn check_texts(&mut self, file: &str, document: &Node) {
        for field in ["data", "stringData", "binaryData"] {
            let entries = document.get(field).map(Node::entries).unwrap_or_default();
            for entry in entries.iter().filter(|entry| entry.value.text().is_none() && !entry.value.is_null()) {
                let message =
                    format!("values of `{field}` are texts, and `{}` is {}", entry.key, entry.value.type_name());
                self.problem(file, entry.value.span, message).label = Some("put it in quotes".into());
            }
        }
    }

    fn required<'n>(&mut self, file: &str, document: &'n Node, name: &str) -> Option<&'n str> {
        let text = document.get(name).and_then(Node::text).filter(|text| !text.is_empty());
        if text.is_none() {
            self.problem(file, document.place(&[name]), format!("`{name}` is missing"));
        }
        text
    }

    /// Refuses what is no manifest although it looks like one; returns whether it is.
    fn is_foreign(&mut self, file: &str, document: &Node, api_version: &str, kind: &str) -> bool {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let label = match group {
            "locktender.dev" => "only `app.yaml`, and files in the policies' directory, are read by Locktender itself",
            "kustomize.config.k8s.io" => "write `source: {kustomize: {}}` into app.yaml",
            _ => return false,
        };
        let message = format!("a {kind} cannot be applied");
        self.problem(file, document.place(&["kind"]), message).label = Some(label.into());
        true
    }
}

/// Takes away what only a server writes, as it is found in exported objects: sent back, each would be refused or fought.
/// A Secret's `stringData` becomes the `data` that a server makes of it, so that live objects can be compared with it.
fn strip(object: &mut Object) {
    object.remove(&["status"]);
    for field in
        ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink", "deletionTimestamp"]
    {
        object.remove(&["metadata", field]);
    }
    object.remove(&["metadata", "annotations", super::redact::LAST_APPLIED]);
    object.remove(&["metadata", "annotations", "deployment.kubernetes.io/revision"]);
    object.remove(&["spec", "template", "metadata", "creationTimestamp"]);
    if super::is_secret(object)
        && let Some(Value::Object(texts)) = object.remove(&["stringData"])
    {
        for (name, text) in texts {
            let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
            object.set(&["data", &name], Value::String(encoded));
        }
    }
}

fn too_large(object: &Object) -> Option<String> {
    let annotations = object.at(&["metadata", "annotations"]).and_then(Value::as_object);
    let annotations: usize =
        annotations.into_iter().flatten().map(|(name, text)| name.len() + text.as_str().map_or(0, str::len)).sum();
    if annotations > MOST_ANNOTATIONS {
        return Some(format!("has {annotations} bytes of annotations, and a server takes {MOST_ANNOTATIONS}"));
    }
    // A vector always takes what is written to it.
    let bytes = serde_json::to_vec(&object.0).map_or(0, |bytes| bytes.len());
    (bytes > MOST_BYTES).then(|| format!("has {bytes} bytes, and at most {MOST_BYTES} can be applied"))
}
