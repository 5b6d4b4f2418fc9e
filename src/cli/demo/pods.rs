//! What the cluster says of the application's pods, and what the pods say of themselves.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{cli::error::Error, sandbox::server::Sandbox};

/// Asks the API server, and each pod on its own address.
pub struct Asker {
    client: reqwest::Client,
    pods: String,
    token: String,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// What an update in place never changes.
    pub identity: Identity,
    /// The unit that it runs in.
    pub unit: String,
    /// The version that it answers with over HTTP; empty where it answers nothing.
    pub version: String,
    /// The container that runs: another one after every restart.
    pub container: String,
}

/// What makes a pod this pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.nodeName`.
    pub node: String,
    /// `status.podIP`.
    pub address: String,
}

/// All pods, at one moment, in order of unit and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods(pub Vec<Pod>);

impl Asker {
    /// Makes one for an application in a sandbox.
    ///
    /// # Errors
    ///
    /// There is no TLS provider.
    pub fn of(sandbox: &Sandbox, app: &str) -> Result<Self, Error> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build();
        let client = client.map_err(|error| Error::because("cannot make an HTTP client", &error))?;
        let pods = format!("{}/api/v1/namespaces/shop/pods?labelSelector=app%3D{app}", sandbox.url);
        Ok(Self { client, pods, token: sandbox.token.clone() })
    }

    /// Lists the pods, and asks each for its version.
    ///
    /// # Errors
    ///
    /// The API server does not answer. A pod that does not answer is no error.
    pub async fn pods(&self) -> Result<Pods, Error> {
        let wrong = |error: reqwest::Error| Error::because("cannot list the pods", &error);
        let request = self.client.get(&self.pods).bearer_auth(&self.token);
        let response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(wrong)?;
        let list: Value = response.json().await.map_err(wrong)?;
        let listed = list["items"].as_array().into_iter().flatten();
        let listed = listed.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let mut pods = futures::future::join_all(listed.map(|pod| self.ask(pod))).await;
        pods.sort_by(|a, b| (&a.unit, &a.identity).cmp(&(&b.unit, &b.identity)));
        Ok(Pods(pods))
    }

    async fn ask(&self, pod: &Value) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let identity = Identity {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&pod["status"]["podIP"]),
        };
        let answer = self.answer(&identity.address).await.unwrap_or_default();
        Pod {
            unit: text(&answer["unit"]),
            version: text(&answer["version"]),
            container: text(&pod["status"]["containerStatuses"][0]["containerID"]),
            identity,
        }
    }

    async fn answer(&self, address: &str) -> Option<Value> {
        self.client.get(format!("http://{address}:8080/")).send().await.ok()?.json().await.ok()
    }
}

impl Pods {
    /// Counts the pods that answer with `version`, by unit.
    pub fn at(&self, version: &str) -> BTreeMap<&str, usize> {
        let mut units = BTreeMap::new();
        for pod in self.0.iter().filter(|pod| pod.version == version) {
            *units.entry(pod.unit.as_str()).or_default() += 1;
        }
        units
    }

    /// Counts the pods of `earlier` that are there still, with name, UID, node and address.
    pub fn kept(&self, earlier: &Self) -> usize {
        earlier.0.iter().filter(|pod| self.0.iter().any(|now| now.identity == pod.identity)).count()
    }

    /// Returns the pods of `earlier` whose container is another one now, or that are gone.
    pub fn restarted<'a>(&self, earlier: &'a Self) -> Vec<&'a Pod> {
        let same = |pod: &Pod| self.0.iter().any(|now| now.identity == pod.identity && now.container == pod.container);
        earlier.0.iter().filter(|pod| !same(pod)).collect()
    }
}
