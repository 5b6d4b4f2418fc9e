//! The request of each write: pure, so that what goes over the wire is read here and pinned by tests.

use http::Method;
use serde_json::{Value, json};

use super::{counts::Verb, discovery::Resource, refusal::Subject, transport::Call};
use crate::core::{
    cluster::{Access, ClusterError, FIELD_MANAGER, Kind, ObjectKey, PatchType, Scope, Write},
    manifest::Object,
};

/// Returns the kind a write is about.
pub(super) fn kind_of(write: &Write) -> Kind {
    match write {
        Write::Apply { object, .. } | Write::Create { object } => object.kind(),
        Write::Patch { kind, .. } | Write::Delete { kind, .. } => kind.clone(),
    }
}

/// Returns what a write is about, for messages and for reading its answer.
pub(super) fn subject_of(write: &Write) -> Subject {
    let what = match write {
        Write::Apply { object, .. } | Write::Create { object } => object.key().to_string(),
        Write::Patch { key, subresource: Some(subresource), .. } => format!("{key} ({subresource})"),
        Write::Patch { key, .. } | Write::Delete { key, .. } => key.to_string(),
    };
    let json_patch = matches!(write, Write::Patch { patch: PatchType::Json, .. });
    Subject { what, kind: kind_of(write), json_patch }
}

/// Builds the request of `write`. [`ClusterError::Invalid`] where it cannot be put into a request at all: no name,
/// no namespace, a patch of another shape than its type asks for.
pub(super) fn request(write: &Write, resource: &Resource, dry_run: bool) -> Result<Call, ClusterError> {
    let kind = kind_of(write);
    match write {
        Write::Apply { object, force, manager } => {
            let mut object = object.clone();
            // An apply that carries managed fields is refused.
            object.remove(&["metadata", "managedFields"]);
            let mut query = Query::writing(manager.as_deref().unwrap_or(FIELD_MANAGER), dry_run);
            query.add("fieldValidation", "Strict");
            if *force {
                query.add("force", "true");
            }
            let path = object_path(&kind, &object.key(), resource)?;
            Ok(Call {
                verb: Verb::Apply,
                resource: resource.name(&kind),
                method: Method::PATCH,
                target: path + &query.0,
                body: Some(("application/apply-patch+yaml", bytes(&object.0))),
            })
        }
        Write::Create { object } => {
            let mut query = Query::writing(FIELD_MANAGER, dry_run);
            query.add("fieldValidation", "Strict");
            Ok(Call {
                verb: Verb::Create,
                resource: resource.name(&kind),
                method: Method::POST,
                target: collection_path(&kind, object.namespace(), resource)? + &query.0,
                body: Some(("application/json", bytes(&object.0))),
            })
        }
        Write::Patch { key, uid, resource_version, patch, body, subresource, .. } => {
            let mut path = object_path(&kind, key, resource)?;
            if let Some(subresource) = subresource {
                path.push('/');
                path.push_str(&segment(subresource)?);
            }
            let (content_type, body) = guarded(*patch, body, uid, resource_version.as_deref())?;
            Ok(Call {
                verb: Verb::Patch,
                resource: resource.name(&kind),
                method: Method::PATCH,
                target: path + &Query::writing(FIELD_MANAGER, dry_run).0,
                body: Some((content_type, bytes(&body))),
            })
        }
        Write::Delete { key, uid, resource_version, orphan, .. } => {
            let mut preconditions = json!({"uid": uid});
            if let Some(version) = resource_version {
                preconditions["resourceVersion"] = json!(version);
            }
            let mut options = json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": preconditions,
                "propagationPolicy": if *orphan { "Orphan" } else { "Background" },
            });
            if dry_run {
                // With options in the body, those in the query are not read.
                options["dryRun"] = json!(["All"]);
            }
            Ok(Call {
                verb: Verb::Delete,
                resource: resource.name(&kind),
                method: Method::DELETE,
                target: object_path(&kind, key, resource)?,
                body: Some(("application/json", bytes(&options))),
            })
        }
    }
}

/// Builds the question whether whoever asks may do something.
pub(super) fn access_review(access: &Access, resource: &Resource) -> Call {
    let mut attributes = json!({
        "verb": access.verb,
        "group": access.kind.group,
        "version": access.kind.version,
        "resource": resource.plural,
    });
    if resource.scope == Scope::Namespaced {
        attributes["namespace"] = json!(access.namespace);
    }
    if let Some(name) = &access.name {
        attributes["name"] = json!(name);
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    Call {
        verb: Verb::Create,
        resource: "selfsubjectaccessreviews.authorization.k8s.io".to_owned(),
        method: Method::POST,
        target: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
        body: Some(("application/json", bytes(&review))),
    }
}

/// Adds UID and resource version to a patch, so that it is refused when they are others now.
fn guarded(
    patch: PatchType,
    body: &Value,
    uid: &str,
    resource_version: Option<&str>,
) -> Result<(&'static str, Value), ClusterError> {
    let content_type = match patch {
        PatchType::Json => {
            let Value::Array(operations) = body else {
                return Err(ClusterError::Invalid("a JSON patch must be a list of operations".into()));
            };
            let mut guards = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
            let version = resource_version
                .map(|version| json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
            guards.extend(version);
            guards.extend(operations.iter().cloned());
            return Ok(("application/json-patch+json", Value::Array(guards)));
        }
        PatchType::Merge => "application/merge-patch+json",
        PatchType::Strategic => "application/strategic-merge-patch+json",
    };
    if !body.is_object() || body.get("metadata").is_some_and(|metadata| !metadata.is_object()) {
        return Err(ClusterError::Invalid("a merge patch and its metadata must be objects".into()));
    }
    let mut body = Object(body.clone());
    body.set(&["metadata", "uid"], json!(uid));
    if let Some(version) = resource_version {
        body.set(&["metadata", "resourceVersion"], json!(version));
    }
    Ok((content_type, body.0))
}

/// Returns the path of one object: `/apis/apps/v1/namespaces/shop/deployments/checkout`.
pub(super) fn object_path(kind: &Kind, key: &ObjectKey, resource: &Resource) -> Result<String, ClusterError> {
    Ok(format!("{}/{}", collection_path(kind, &key.namespace, resource)?, segment(&key.name)?))
}

/// Returns the path of the objects of a kind in a namespace; objects of the cluster have none.
fn collection_path(kind: &Kind, namespace: &str, resource: &Resource) -> Result<String, ClusterError> {
    let version = version_path(kind)?;
    let plural = segment(&resource.plural)?;
    match resource.scope {
        Scope::Cluster => Ok(format!("{version}/{plural}")),
        Scope::Namespaced if namespace.is_empty() => {
            Err(ClusterError::Invalid(format!("a {} lives in a namespace, and none is named", kind.kind)))
        }
        Scope::Namespaced => Ok(format!("{version}/namespaces/{}/{plural}", segment(namespace)?)),
    }
}

/// Returns the path of all objects of a kind, in all namespaces.
pub(super) fn everywhere_path(kind: &Kind, resource: &Resource) -> Result<String, ClusterError> {
    Ok(format!("{}/{}", version_path(kind)?, segment(&resource.plural)?))
}

/// Returns the path of a group and version: `/api/v1`, `/apis/apps/v1`.
pub(super) fn version_path(kind: &Kind) -> Result<String, ClusterError> {
    let version = segment(&kind.version)?;
    if kind.group.is_empty() {
        Ok(format!("/api/{version}"))
    } else {
        Ok(format!("/apis/{}/{version}", segment(&kind.group)?))
    }
}

/// Encodes one segment of a path. Names come from people's files: one with a slash in it must not reach another
/// object than the one that was checked.
fn segment(text: &str) -> Result<String, ClusterError> {
    if matches!(text, "" | "." | "..") {
        return Err(ClusterError::Invalid(format!("`{text}` names nothing")));
    }
    Ok(encoded(text))
}

fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// A query string; "" or starting with `?`.
pub(super) struct Query(pub(super) String);

impl Query {
    pub(super) fn new() -> Self {
        Self(String::new())
    }

    fn writing(manager: &str, dry_run: bool) -> Self {
        let mut query = Self::new();
        query.add("fieldManager", manager);
        if dry_run {
            query.add("dryRun", "All");
        }
        query
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&encoded(value));
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn deployments() -> Resource {
        Resource { plural: "deployments".into(), scope: Scope::Namespaced }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey { group: "apps".into(), kind: "Deployment".into(), namespace: "shop".into(), name: name.into() }
    }

    fn object(name: &str) -> Object {
        Object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7", "managedFields": [{}]},
        }))
    }

    fn patch(patch: PatchType, body: Value, version: Option<&str>) -> Write {
        Write::Patch {
            kind: Kind::new("apps", "v1", "Deployment"),
            key: key("checkout"),
            uid: "u1".into(),
            resource_version: version.map(Into::into),
            patch,
            body,
            subresource: Some("scale".into()),
        }
    }

    fn sent(call: &Call) -> Value {
        serde_json::from_slice(&call.body.as_ref().unwrap().1).unwrap()
    }

    #[test]
    fn an_apply_carries_its_resource_version_and_no_managed_fields() {
        let write = Write::Apply { object: object("checkout"), force: true, manager: None };
        let call = request(&write, &deployments(), true).unwrap();
        assert_eq!(
            call.target,
            "/apis/apps/v1/namespaces/shop/deployments/checkout?fieldManager=locktender&dryRun=All&fieldValidation=Strict&force=true"
        );
        assert_eq!(sent(&call)["metadata"], json!({"name": "checkout", "namespace": "shop", "resourceVersion": "7"}));
        assert_eq!(call.body.unwrap().0, "application/apply-patch+yaml");
    }

    #[test]
    fn a_creation_goes_to_the_collection() {
        let call = request(&Write::Create { object: object("checkout") }, &deployments(), false).unwrap();
        assert_eq!((call.method.as_str(), call.verb), ("POST", Verb::Create));
        assert_eq!(
            call.target,
            "/apis/apps/v1/namespaces/shop/deployments?fieldManager=locktender&fieldValidation=Strict"
        );
    }

    #[test]
    fn a_merge_patch_is_guarded_in_its_metadata() {
        let body = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 3}});
        for (kind, content_type) in [
            (PatchType::Merge, "application/merge-patch+json"),
            (PatchType::Strategic, "application/strategic-merge-patch+json"),
        ] {
            let call = request(&patch(kind, body.clone(), Some("7")), &deployments(), false).unwrap();
            assert_eq!(call.target, "/apis/apps/v1/namespaces/shop/deployments/checkout/scale?fieldManager=locktender");
            assert_eq!(
                sent(&call),
                json!({"metadata": {"labels": {"a": "b"}, "uid": "u1", "resourceVersion": "7"}, "spec": {"replicas": 3}})
            );
            assert_eq!(call.body.unwrap().0, content_type);
        }
    }

    #[test]
    fn a_json_patch_is_guarded_by_tests_that_come_first() {
        let body = json!([{"op": "remove", "path": "/metadata/labels/a"}]);
        let call = request(&patch(PatchType::Json, body.clone(), Some("7")), &deployments(), false).unwrap();
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": "u1"});
        let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"});
        assert_eq!(sent(&call), json!([uid, version, body[0]]));
        let call = request(&patch(PatchType::Json, body.clone(), None), &deployments(), false).unwrap();
        assert_eq!(sent(&call), json!([uid, body[0]]));
    }

    #[test]
    fn a_patch_of_another_shape_than_its_type_is_not_sent() {
        for (kind, body) in [
            (PatchType::Json, json!({"spec": {}})),
            (PatchType::Merge, json!([])),
            (PatchType::Strategic, json!({"metadata": null})),
        ] {
            let refused = request(&patch(kind, body, None), &deployments(), false);
            assert!(matches!(refused, Err(ClusterError::Invalid(_))), "{kind:?}");
        }
    }

    #[test]
    fn a_deletion_says_what_was_seen_and_what_becomes_of_the_dependents() {
        let mut write = Write::Delete {
            kind: Kind::new("apps", "v1", "Deployment"),
            key: key("checkout"),
            uid: "u1".into(),
            resource_version: Some("7".into()),
            orphan: true,
        };
        let options = sent(&request(&write, &deployments(), true).unwrap());
        assert_eq!(options["preconditions"], json!({"uid": "u1", "resourceVersion": "7"}));
        assert_eq!((&options["propagationPolicy"], &options["dryRun"]), (&json!("Orphan"), &json!(["All"])));
        if let Write::Delete { resource_version, orphan, .. } = &mut write {
            (*resource_version, *orphan) = (None, false);
        }
        let options = sent(&request(&write, &deployments(), false).unwrap());
        assert_eq!(options["preconditions"], json!({"uid": "u1"}));
        assert_eq!((&options["propagationPolicy"], options.get("dryRun")), (&json!("Background"), None));
    }

    #[test]
    fn a_name_cannot_reach_another_path() {
        let path = |name: &str| object_path(&Kind::new("apps", "v1", "Deployment"), &key(name), &deployments());
        assert_eq!(
            path("../../secrets/x?a=b").unwrap(),
            "/apis/apps/v1/namespaces/shop/deployments/..%2F..%2Fsecrets%2Fx%3Fa%3Db"
        );
        for name in ["", ".", ".."] {
            assert!(matches!(path(name), Err(ClusterError::Invalid(_))), "{name:?}");
        }
    }

    #[test]
    fn an_object_of_a_namespace_that_names_none_is_not_sent() {
        let mut nowhere = object("checkout");
        nowhere.remove(&["metadata", "namespace"]);
        let refused = request(&Write::Create { object: nowhere }, &deployments(), false).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the API server refuses it: a Deployment lives in a namespace, and none is named"
        );
    }
}
