//! Where a Service sends requests, as whoever carries them out knows it: by watching its EndpointSlices.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::sync::watch;

use crate::{cli::error::Error, core::rollout::labels, sandbox::server::Sandbox};

/// After how long a watch that failed is begun anew.
const AGAIN: Duration = Duration::from_millis(100);

/// A pod that a Service sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `127.80.3.1:8080`.
    pub address: String,
    /// The tag of its image.
    pub version: String,
    /// Its label `locktender.dev/digest`.
    pub digest: String,
}

/// Reads a Service's endpoints.
#[derive(Clone)]
pub struct Endpoints {
    client: Client,
    url: String,
    token: String,
}

/// EndpointSlices by name: each with its pods' addresses and names.
type Slices = BTreeMap<String, Vec<(String, String)>>;

impl Endpoints {
    /// Makes a reader for a sandbox.
    ///
    /// # Errors
    ///
    /// There is no TLS provider.
    pub fn of(sandbox: &Sandbox) -> Result<Self, Error> {
        // A watch lasts; what it says is read as it comes.
        let client = Client::builder().connect_timeout(Duration::from_secs(5)).no_proxy().build();
        let client = client.map_err(|error| Error::because("cannot make an HTTP client", &error))?;
        Ok(Self { client, url: sandbox.url.clone(), token: sandbox.token.clone() })
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    async fn slices(&self, service: &str, watched: bool) -> Result<Response, reqwest::Error> {
        let watch = if watched { "&watch=1" } else { "" };
        let selector = format!("kubernetes.io%2Fservice-name%3D{service}{watch}");
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector={selector}");
        self.get(&path).send().await?.error_for_status()
    }

    /// Reads them once.
    ///
    /// # Errors
    ///
    /// The API server does not answer.
    pub async fn now(&self, service: &str) -> Result<Vec<Endpoint>, Error> {
        let wrong = |error: reqwest::Error| Error::because("cannot list the endpoints", &error);
        let list: Value = self.slices(service, false).await.map_err(wrong)?.json().await.map_err(wrong)?;
        let slices = list["items"].as_array().into_iter().flatten();
        let slices: Slices = slices.map(|slice| (name(slice), serving(slice))).collect();
        Ok(self.known(&slices, &mut BTreeMap::new()).await)
    }

    /// Tells of them for ever. A watch that ends is begun anew: it tells everything again.
    pub async fn follow(self, service: &str, table: watch::Sender<Vec<Endpoint>>) {
        let mut pods = BTreeMap::new();
        loop {
            if let Err(error) = self.follow_once(service, &table, &mut pods).await {
                tracing::debug!(%error, "the watch of endpoints is begun anew");
                // An API server that is away is not asked in a circle.
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn follow_once(
        &self,
        service: &str,
        table: &watch::Sender<Vec<Endpoint>>,
        pods: &mut BTreeMap<String, (String, String)>,
    ) -> Result<(), reqwest::Error> {
        let mut stream = self.slices(service, true).await?;
        let (mut slices, mut text) = (Slices::new(), Vec::new());
        while let Some(chunk) = stream.chunk().await? {
            text.extend_from_slice(&chunk);
            let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { continue };
            let lines: Vec<u8> = text.drain(..=end).collect();
            for event in lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()) {
                let event: Value = event;
                let slice = &event["object"];
                match event["type"].as_str() {
                    Some("ADDED" | "MODIFIED") => drop(slices.insert(name(slice), serving(slice))),
                    Some("DELETED") => drop(slices.remove(&name(slice))),
                    _ => {}
                }
            }
            let now = self.known(&slices, pods).await;
            table.send_replace(now);
        }
        Ok(())
    }

    /// Finds out what the pods are; `pods` keeps it. One that is gone already is no endpoint.
    async fn known(&self, slices: &Slices, pods: &mut BTreeMap<String, (String, String)>) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        for (address, pod) in slices.values().flatten() {
            if !pods.contains_key(pod) {
                let Ok(known) = self.pod(pod).await else { continue };
                pods.insert(pod.clone(), known);
            }
            if let Some((version, digest)) = pods.get(pod).cloned() {
                endpoints.push(Endpoint { address: address.clone(), version, digest });
            }
        }
        endpoints
    }

    /// Returns where the Gateway takes requests, once its status says so.
    pub async fn gateway(&self) -> String {
        loop {
            match self.gateway_now().await {
                Ok(Some(address)) => return address,
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the gateway is looked for again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn gateway_now(&self) -> Result<Option<String>, reqwest::Error> {
        let path = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/public";
        let gateway: Value = self.get(path).send().await?.json().await?;
        let address = gateway["status"]["addresses"][0]["value"].as_str();
        Ok(address.map(|address| format!("{address}:{}", gateway["spec"]["listeners"][0]["port"])))
    }

    /// Returns the digest of a pod; `None` where it is gone.
    pub async fn digest(&self, pod: &str) -> Option<String> {
        self.pod(pod).await.ok().map(|(_, digest)| digest)
    }

    async fn pod(&self, name: &str) -> Result<(String, String), reqwest::Error> {
        let path = format!("/api/v1/namespaces/shop/pods/{name}");
        let pod: Value = self.get(&path).send().await?.error_for_status()?.json().await?;
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        let digest = pod["metadata"]["labels"][labels::DIGEST].as_str().unwrap_or_default();
        Ok((image.rsplit(':').next().unwrap_or_default().to_owned(), digest.to_owned()))
    }
}

fn name(slice: &Value) -> String {
    slice["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Returns address and pod of each endpoint that takes requests.
fn serving(slice: &Value) -> Vec<(String, String)> {
    let port = &slice["ports"][0]["port"];
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let one = |endpoint: &Value| {
        let address = format!("{}:{port}", endpoint["addresses"][0].as_str()?);
        Some((address, endpoint["targetRef"]["name"].as_str()?.to_owned()))
    };
    ready.filter_map(one).collect()
}
