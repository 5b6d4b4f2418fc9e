//! How requests reach pods: a gateway that follows the Gateway API, and a way to a Service.
//!
//! Both send to what EndpointSlices say is ready, and never try a second time: a request that was sent to a pod that
//! is gone fails, as it would for anybody.

pub mod definitions;
mod forward;
mod gateway;
mod matching;
mod status;
mod table;

use std::net::{IpAddr, SocketAddr};

pub use forward::Forward;
pub(super) use gateway::run;
use serde_json::Value;

use super::{api::Api, value};

/// The class of the gateways that the sandbox answers for.
pub const GATEWAY_CLASS: &str = "locktender-sandbox";
/// The name that it answers by.
pub const CONTROLLER: &str = "locktender.dev/sandbox-gateway";

/// Returns the ready endpoints behind a port of a Service; `None` where there is no such Service or port.
pub(super) fn endpoints(api: &Api, namespace: &str, service: &str, port: i64) -> Option<Vec<SocketAddr>> {
    let found = api.get("services", namespace, service)?;
    let ports = value::items(&found, &["spec", "ports"]);
    let name = value::text(ports.iter().find(|one| value::number(one, &["port"]) == port)?, &["name"]);
    let slices = api.list_in("endpointslices.discovery.k8s.io", namespace);
    let slices = slices.filter(|slice| value::label(slice, "kubernetes.io/service-name") == Some(service));
    let mut ready = Vec::new();
    for slice in slices {
        let named = value::items(slice, &["ports"]).iter().find(|one| value::text(one, &["name"]) == name);
        let Some(target) = named.and_then(|one| u16::try_from(value::number(one, &["port"])).ok()) else { continue };
        let endpoints = value::items(slice, &["endpoints"]).iter();
        // A missing condition counts as ready.
        let endpoints = endpoints.filter(|one| one["conditions"]["ready"] != Value::Bool(false));
        let addresses = endpoints.filter_map(|one| one["addresses"][0].as_str()?.parse::<IpAddr>().ok());
        ready.extend(addresses.map(|address| SocketAddr::new(address, target)));
    }
    Some(ready)
}
