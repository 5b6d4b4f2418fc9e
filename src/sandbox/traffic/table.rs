//! What the gateway does with requests: read from Gateways, HTTPRoutes, Services and EndpointSlices as they are.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{GATEWAY_CLASS, endpoints, matching::Matching, status};
use crate::sandbox::{api::Api, kubelet::PodRange, message::Head, value};

pub(super) const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";
pub(super) const ROUTES: &str = "httproutes.gateway.networking.k8s.io";

/// Rules by the address that they hold at, those that go first first.
#[derive(Debug, Default)]
pub struct Table {
    /// Every address that a gateway listens on has an entry.
    pub listeners: BTreeMap<SocketAddr, Vec<Rule>>,
}

/// What is done with some requests.
#[derive(Clone, Debug)]
pub struct Rule {
    hostnames: Vec<String>,
    matching: Matching,
    /// Where they go.
    pub backends: Vec<Target>,
    /// Where copies go, and how many of a hundred.
    pub mirrors: Vec<(Target, u64)>,
}

/// One backend of a rule.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its share of the sum.
    pub weight: u64,
    /// What is ready; `None` where there is no such Service.
    pub endpoints: Option<Vec<SocketAddr>>,
    /// Headers that its answers get.
    pub added: Vec<(String, String)>,
}

impl Table {
    /// Returns the rule that takes a request.
    pub fn rule(&self, listener: SocketAddr, request: &Head) -> Option<&Rule> {
        self.listeners.get(&listener)?.iter().find(|rule| {
            let host = request.header("host").unwrap_or_default().split(':').next().unwrap_or_default();
            let named = |name: &String| match name.strip_prefix('*') {
                Some(end) => host.ends_with(end) && host.len() > end.len(),
                None => name == host,
            };
            (rule.hostnames.is_empty() || rule.hostnames.iter().any(named)) && rule.matching.takes(request)
        })
    }

    /// Reads everything, and the objects whose status says something else. `salt` keeps the addresses of two sandboxes
    /// apart.
    pub fn read(api: &Api, salt: u64) -> (Self, Vec<Value>) {
        let mut table = Self::default();
        let mut told = Vec::new();
        for gateway in api.list(GATEWAYS).filter(|gateway| is_ours(gateway)) {
            let address = address_of(gateway, salt);
            for (_, port) in listeners(gateway) {
                table.listeners.entry(SocketAddr::from((address, port))).or_default();
            }
            told.extend(status::gateway(gateway, address, api.now()));
        }
        for route in api.list(ROUTES) {
            let parents = value::items(route, &["spec", "parentRefs"]).iter();
            let ours: Vec<_> = parents.filter_map(|parent| Some((parent, gateway_of(api, route, parent)?))).collect();
            // Whoever has no gateway here is told so once, and costs nothing.
            let read = if ours.is_empty() { Ok(Rules::default()) } else { read_rules(api, route) };
            let mut parents = Vec::new();
            for (parent, gateway) in ours {
                let taken = attached(&gateway, route, parent);
                if let (Ok((rules, _)), Ok(ports)) = (&read, &taken) {
                    let address = address_of(&gateway, salt);
                    for port in ports {
                        let at = table.listeners.entry(SocketAddr::from((address, *port))).or_default();
                        at.extend(rules.iter().cloned());
                    }
                }
                let refused = taken.err().or_else(|| read.as_ref().err().cloned());
                let missing = read.as_ref().ok().and_then(|(_, missing)| missing.clone());
                parents.push((parent.clone(), refused, missing));
            }
            told.extend(status::route(route, &parents, api.now()));
        }
        for rules in table.listeners.values_mut() {
            rules.sort_by_key(|rule| rule.matching.order());
        }
        (table, told)
    }
}

fn is_ours(gateway: &Value) -> bool {
    value::text(gateway, &["spec", "gatewayClassName"]) == GATEWAY_CLASS
}

fn gateway_of(api: &Api, route: &Value, parent: &Value) -> Option<std::sync::Arc<Value>> {
    let text = |name: &str, default| parent[name].as_str().unwrap_or(default).to_owned();
    if text("kind", "Gateway") != "Gateway" {
        return None;
    }
    let namespace = text("namespace", value::namespace(route));
    api.get(GATEWAYS, &namespace, &text("name", "")).filter(|gateway| is_ours(gateway))
}

fn address_of(gateway: &Value, salt: u64) -> Ipv4Addr {
    let digest = Sha256::digest(format!("{salt}/gateway/{}", value::uid(gateway)).as_bytes());
    PodRange::LOOPBACK.at(digest.iter().take(8).fold(0, |place, byte| place << 8 | u64::from(*byte)))
}

/// Returns name and port of a gateway's listeners.
fn listeners(gateway: &Value) -> impl Iterator<Item = (&Value, u16)> {
    let listeners = value::items(gateway, &["spec", "listeners"]).iter();
    listeners.filter_map(|one| Some((one, u16::try_from(value::number(one, &["port"])).ok()?)))
}

/// Returns the ports at which a gateway takes a route, or why it takes it nowhere.
fn attached(gateway: &Value, route: &Value, parent: &Value) -> Result<Vec<u16>, status::Refusal> {
    let named = listeners(gateway).filter(|(listener, port)| {
        let section = parent["sectionName"].as_str();
        section.is_none_or(|name| name == value::text(listener, &["name"]))
            && parent["port"].as_u64().is_none_or(|wanted| wanted == u64::from(*port))
    });
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        return Err(status::Refusal::new("NoMatchingParent", "it has no such listener"));
    }
    let allowed = named.into_iter().filter(|(listener, _)| {
        let from = value::text(listener, &["allowedRoutes", "namespaces", "from"]);
        from == "All" || value::namespace(gateway) == value::namespace(route)
    });
    let ports: Vec<u16> = allowed.map(|(_, port)| port).collect();
    if ports.is_empty() {
        return Err(status::Refusal::new("NotAllowedByListeners", "it takes routes of its own namespace only"));
    }
    Ok(ports)
}

type Rules = (Vec<Rule>, Option<String>);

/// Returns a route's rules, one for each of their matches, and which Service is missing; or why it is not taken.
fn read_rules(api: &Api, route: &Value) -> Result<Rules, status::Refusal> {
    let namespace = value::namespace(route);
    let hostnames = value::items(route, &["spec", "hostnames"]).iter().filter_map(Value::as_str);
    let hostnames: Vec<String> = hostnames.map(str::to_owned).collect();
    let unsupported = |why: String| status::Refusal::new("UnsupportedValue", &why);
    let (mut rules, mut missing) = (Vec::new(), None);
    for rule in value::items(route, &["spec", "rules"]) {
        let mut target = |reference: &Value, added: Vec<(String, String)>| {
            let service = value::text(reference, &["name"]);
            let namespace = reference["namespace"].as_str().unwrap_or(namespace);
            let endpoints = endpoints(api, namespace, service, value::number(reference, &["port"]));
            if endpoints.is_none() {
                missing = Some(format!("there is no Service {service} with that port in {namespace}"));
            }
            Target { weight: value::number_or(reference, &["weight"], 1).try_into().unwrap_or(0), endpoints, added }
        };
        let mut mirrors = Vec::new();
        let mut added = Vec::new();
        for filter in value::items(rule, &["filters"]) {
            match value::text(filter, &["type"]) {
                "RequestMirror" => {
                    let percent = filter["requestMirror"]["percent"].as_u64().unwrap_or(100);
                    mirrors.push((target(&filter["requestMirror"]["backendRef"], Vec::new()), percent));
                }
                _ => added.extend(added_headers(filter).map_err(unsupported)?),
            }
        }
        let mut backends = Vec::new();
        for reference in value::items(rule, &["backendRefs"]) {
            let mut added = added.clone();
            for filter in value::items(reference, &["filters"]) {
                added.extend(added_headers(filter).map_err(unsupported)?);
            }
            backends.push(target(reference, added));
        }
        let matches = value::items(rule, &["matches"]);
        for one in if matches.is_empty() { &[Value::Null] } else { matches } {
            let matching = Matching::read(one).map_err(unsupported)?;
            let (hostnames, backends, mirrors) = (hostnames.clone(), backends.clone(), mirrors.clone());
            rules.push(Rule { hostnames, matching, backends, mirrors });
        }
    }
    Ok((rules, missing))
}

/// Returns the headers that a filter adds to answers: the only kind beside mirrors that is known here.
fn added_headers(filter: &Value) -> Result<Vec<(String, String)>, String> {
    let modifier = &filter["responseHeaderModifier"];
    let others = modifier.as_object().is_none_or(|modifier| modifier.keys().any(|name| name != "add"));
    if value::text(filter, &["type"]) != "ResponseHeaderModifier" || others {
        return Err(format!("the sandbox's gateway does not know the filter {filter}"));
    }
    let text = |one: &Value, name| value::text(one, &[name]).to_owned();
    Ok(value::items(modifier, &["add"]).iter().map(|one| (text(one, "name"), text(one, "value"))).collect())
}
