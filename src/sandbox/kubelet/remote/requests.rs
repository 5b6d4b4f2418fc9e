//! One write as one request, and what its answer means.

use std::time::Duration;

use http::{Method, Request, header};
use serde_json::{Value, json};

use super::watches::{self, WATCHED};
use crate::sandbox::{
    cache::Key,
    value,
    write::{Dependents, Write},
};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Says who asks, for the API server's audit log.
const USER_AGENT: &str = concat!("locktender-sandbox-kubelet/", env!("CARGO_PKG_VERSION"));

/// Sends a write. Returns the object as it is afterwards, where the answer has it.
///
/// # Errors
///
/// Says why it was not carried out.
pub(super) async fn send(client: &kube::Client, write: &Write) -> Result<Option<Value>, String> {
    let request = request(write)?;
    let answer = tokio::time::timeout(LIMIT, client.request::<Value>(request)).await;
    match answer.map_err(|_| "no answer in time".to_owned())? {
        Ok(answer) => Ok((!matches!(write, Write::Delete { .. } | Write::Bind { .. })).then_some(answer)),
        // Somebody else was faster.
        Err(kube::Error::Api(status)) if status.code == 404 && matches!(write, Write::Delete { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn request(write: &Write) -> Result<Request<Vec<u8>>, String> {
    let (method, path, body) = match write {
        Write::Create(object) => (Method::POST, path_of(object, false)?, object.clone()),
        Write::Update(object) => (Method::PUT, path_of(object, true)?, object.clone()),
        Write::Status(object) => (Method::PUT, path_of(object, true)? + "/status", object.clone()),
        Write::Finalize(namespace) => (Method::PUT, path_of(namespace, true)? + "/finalize", namespace.clone()),
        Write::Bind { pod, uid, node } => {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name, "uid": uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            (Method::POST, path_to(pod)? + "/binding", binding)
        }
        Write::Delete { key, uid, dependents, now } => {
            let propagation = match dependents {
                Dependents::After => "Background",
                Dependents::Before => "Foreground",
            };
            let mut options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid},
                "propagationPolicy": propagation,
            });
            if *now {
                options["gracePeriodSeconds"] = 0.into();
            }
            (Method::DELETE, path_to(key)?, options)
        }
    };
    let request = Request::builder().method(method).uri(path).header(header::USER_AGENT, USER_AGENT);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    request.body(body.to_string().into_bytes()).map_err(|error| error.to_string())
}

fn path_of(object: &Value, named: bool) -> Result<String, String> {
    let watched = watches::of(object).ok_or_else(|| format!("no kind to write: {}", object["kind"]))?;
    let name = if named { value::name(object) } else { "" };
    Ok(path(watched.api_version, watched.plural, value::namespace(object), name))
}

fn path_to(key: &Key) -> Result<String, String> {
    let watched = WATCHED.iter().find(|it| it.resource == &*key.resource);
    let watched = watched.ok_or_else(|| format!("no kind to write: {}", key.resource))?;
    Ok(path(watched.api_version, watched.plural, &key.namespace, &key.name))
}

fn path(api_version: &str, plural: &str, namespace: &str, name: &str) -> String {
    let mut path =
        if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
    if !namespace.is_empty() {
        path += &format!("/namespaces/{namespace}");
    }
    path += &format!("/{plural}");
    if !name.is_empty() {
        path += &format!("/{name}");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_goes_to_its_own_path() {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "dca-1", "namespace": "kube-node-lease"},
        });
        let path = |write| request(&write).map(|request| request.uri().to_string());
        let base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        assert_eq!(path(Write::Create(lease.clone())), Ok(base.to_owned()));
        assert_eq!(path(Write::Update(lease)), Ok(format!("{base}/dca-1")));
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "dca-1"}});
        assert_eq!(path(Write::Status(node)), Ok("/api/v1/nodes/dca-1/status".to_owned()));
        assert!(path(Write::Create(json!({"apiVersion": "v1", "kind": "Secret"}))).is_err());
    }
}
