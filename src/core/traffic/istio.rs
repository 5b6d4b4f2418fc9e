//! Istio's `VirtualService`: weights of its destinations, routes for headers, mirrored requests.

use serde_json::{Value, json};

use super::{
    Split,
    route::{Answer, Backends, Misfit, Route, Target, find, list},
    split::{Affinity, HeaderRoute, Matcher, Subject},
    weights::Entries,
};
use crate::core::{cluster::Kind, manifest::Object, policy::Percent};

const GROUP: &str = "networking.istio.io";
/// What the names of our own routes begin with.
const OURS: &str = "locktender-";

/// A `VirtualService` whose HTTP routes send to the Service of the side that serves, by host.
///
/// Destinations of the other side's host stand beside it, with the weight shared out. The first route that matches
/// wins, so a header route is one before the others, named `locktender-…`. Where a `DestinationRule` says how the
/// Service is spoken to, the other side's host gets a copy of it. Subsets are not used: they pick pods behind one
/// Service, and the two sides have a Service each.
///
/// Istio says in the API what it has seen only where its status is switched on: a generation that is behind, or an
/// error, is a "not yet"; where it says nothing, objects as they should be are taken for a yes. What the proxies have
/// heard is not in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name of the `DestinationRule` of the Service that serves.
    pub destination_rule: Option<String>,
    /// The two Services.
    pub backends: Backends,
}

impl VirtualService {
    fn target(&self) -> Target {
        Target::new(Kind::new(GROUP, "v1", "VirtualService"), &self.namespace, &self.name)
    }

    fn rule(&self, suffix: &str) -> Option<Target> {
        let name = format!("{}{suffix}", self.destination_rule.as_ref()?);
        Some(Target::new(Kind::new(GROUP, "v1", "DestinationRule"), &self.namespace, &name))
    }

    fn misfit(&self, why: impl std::fmt::Display) -> Misfit {
        Misfit(format!("{}: {why}", self.target()))
    }

    /// What follows a Service's name in a host that is this Service's: "", `.shop`, `.shop.svc.cluster.local`.
    fn domain<'v>(&self, host: &'v Value, service: &str) -> Option<&'v str> {
        let domain = host.as_str()?.strip_prefix(service)?;
        let full = format!(".{}.svc.", self.backends.namespace);
        let short = [&full[..full.len() - 5], &full[..full.len() - 1]];
        let here = domain.is_empty() && self.namespace == self.backends.namespace;
        (here || short.contains(&domain) || domain.starts_with(&full)).then_some(domain)
    }

    fn names(&self, destination: &Value, service: &str) -> bool {
        self.domain(&destination["host"], service).is_some()
    }

    fn is_stable(&self, entry: &Value) -> bool {
        self.names(&entry["destination"], &self.backends.stable)
    }

    fn is_canary(&self, entry: &Value) -> bool {
        self.names(&entry["destination"], &self.backends.canary)
    }

    fn canary_host(&self, host: &Value) -> Value {
        let domain = self.domain(host, &self.backends.stable).unwrap_or_default();
        json!(format!("{}{domain}", self.backends.canary))
    }

    fn canary_of(&self, entry: &Value, affinity: Option<&Affinity>) -> Value {
        let mut canary = entry.clone();
        canary["destination"]["host"] = self.canary_host(&entry["destination"]["host"]);
        if let Some(affinity) = affinity {
            canary["headers"]["response"]["add"]["Set-Cookie"] = json!(affinity.set_cookie());
        }
        canary
    }

    fn entries<T>(&self, affinity: Option<&Affinity>, call: impl FnOnce(&Entries<'_>) -> T) -> T {
        call(&Entries {
            is_stable: &|entry| self.is_stable(entry),
            is_canary: &|entry| self.is_canary(entry),
            canary_of: &|entry| self.canary_of(entry, affinity),
            unsaid: 0,
        })
    }

    fn serves(&self, route: &Value) -> bool {
        list(route, "route").iter().any(|entry| self.is_stable(entry))
    }

    fn split_into(&self, service: &Object, split: &Split) -> Result<Object, Misfit> {
        let mut service = self.cleared(service);
        let headers = split.header_routes().iter().map(headers).collect::<Result<Vec<_>, _>>()?;
        let mut ours = Vec::new();
        let mut others = list(&service.0["spec"], "http").to_vec();
        for route in others.iter_mut().filter(|route| self.serves(route)) {
            for added in &headers {
                ours.push(self.header_route(route, added, split, ours.len())?);
            }
            if let Some(Value::Array(entries)) = route.get_mut("route") {
                self.entries(split.affinity.as_ref(), |entries_of| entries_of.share(entries, split.weight))?;
            }
            self.mirror(route, split.mirror)?;
        }
        if !others.iter().any(|route| self.serves(route)) {
            return Err(Misfit(format!("no route names the host {}", self.backends.stable)));
        }
        ours.append(&mut others);
        service.set(&["spec", "http"], Value::Array(ours));
        Ok(service)
    }

    fn cleared(&self, service: &Object) -> Object {
        let mut service = service.clone();
        let Some(Value::Array(mut routes)) = service.at(&["spec", "http"]).cloned() else { return service };
        routes.retain(|route| !route["name"].as_str().is_some_and(|name| name.starts_with(OURS)));
        for route in &mut routes {
            if let Some(Value::Array(mirrors)) = route.get_mut("mirrors") {
                let before = mirrors.len();
                mirrors.retain(|mirror| !self.is_canary(mirror));
                if mirrors.is_empty() && before > 0 {
                    route.as_object_mut().map(|route| route.remove("mirrors"));
                }
            }
            if let Some(Value::Array(entries)) = route.get_mut("route") {
                self.entries(None, |entries_of| entries_of.join(entries));
            }
        }
        service.set(&["spec", "http"], Value::Array(routes));
        service
    }

    /// Copies a route for the requests with some headers: they go to the other side.
    fn header_route(&self, route: &Value, added: &Value, split: &Split, index: usize) -> Result<Value, Misfit> {
        let mut copy = route.clone();
        copy["name"] = json!(format!("{OURS}{index}"));
        let anything = [json!({})];
        let matches = list(route, "match");
        let mut narrowed = Vec::new();
        for one in if matches.is_empty() { &anything } else { matches } {
            let mut one = one.clone();
            for (name, value) in added.as_object().into_iter().flatten() {
                if one["headers"].get(name).is_some() {
                    return Err(Misfit(format!("a route matches the header `{name}` already")));
                }
                one["headers"][name] = value.clone();
            }
            narrowed.push(one);
        }
        copy["match"] = Value::Array(narrowed);
        let serving: Vec<&Value> = list(route, "route").iter().filter(|entry| self.is_stable(entry)).collect();
        let alone = serving.len() == 1;
        let canaries = serving.into_iter().map(|entry| {
            let mut canary = self.canary_of(entry, split.affinity.as_ref());
            if alone {
                canary.as_object_mut().map(|canary| canary.remove("weight"));
            }
            canary
        });
        copy["route"] = canaries.collect();
        Ok(copy)
    }

    /// Copies requests to the other side.
    fn mirror(&self, route: &mut Value, share: Option<Percent>) -> Result<(), Misfit> {
        let Some(share) = share.filter(|share| share.get() > 0) else { return Ok(()) };
        if route.get("mirror").is_some() {
            return Err(Misfit("a route has a `mirror` already: write it as `mirrors`".to_owned()));
        }
        let Some(serving) = list(route, "route").iter().find(|entry| self.is_stable(entry)) else { return Ok(()) };
        let mut destination = serving["destination"].clone();
        destination["host"] = self.canary_host(&destination["host"]);
        let mut mirrors = list(route, "mirrors").to_vec();
        mirrors.push(json!({ "destination": destination, "percentage": { "value": share.get() } }));
        route["mirrors"] = Value::Array(mirrors);
        Ok(())
    }

    /// Copies the `DestinationRule` of the Service for the other side's host.
    fn canary_rule(&self, rule: &Object, target: &Target) -> Result<Object, Misfit> {
        let host = rule.at(&["spec", "host"]).cloned().unwrap_or_default();
        if self.domain(&host, &self.backends.stable).is_none() {
            return Err(Misfit(format!("its host {host} is not the Service {}", self.backends.stable)));
        }
        let mut spec = rule.0["spec"].clone();
        spec["host"] = self.canary_host(&host);
        Ok(Object(json!({
            "apiVersion": rule.0["apiVersion"],
            "kind": "DestinationRule",
            "metadata": { "name": target.key.name, "namespace": self.namespace },
            "spec": spec,
        })))
    }
}

impl Route for VirtualService {
    fn reads(&self) -> Vec<Target> {
        [self.target()].into_iter().chain(self.rule("")).collect()
    }

    fn makes(&self) -> Vec<Target> {
        self.rule("-canary").into_iter().collect()
    }

    fn set(&self, objects: &[Object], split: &Split) -> Result<Vec<Object>, Misfit> {
        let service = find(objects, &self.target())?;
        let mut wanted = vec![self.split_into(service, split).map_err(|why| self.misfit(why))?];
        if let (Some(rule), Some(copy)) = (self.rule(""), self.rule("-canary")) {
            let object = find(objects, &rule)?;
            let canary = self.canary_rule(object, &copy).map_err(|why| Misfit(format!("{rule}: {why}")))?;
            wanted.extend([object.clone(), canary]);
        }
        Ok(wanted)
    }

    fn clear(&self, objects: &[Object]) -> Vec<Object> {
        let service = find(objects, &self.target()).map(|service| self.cleared(service));
        let rule = self.rule("").and_then(|rule| find(objects, &rule).ok().cloned());
        service.into_iter().chain(rule).collect()
    }

    fn share(&self, live: &[Object]) -> Percent {
        let Ok(service) = find(live, &self.target()) else { return Percent::default() };
        let serving = list(&service.0["spec"], "http").iter().filter(|route| self.serves(route));
        let shares = serving.map(|route| self.entries(None, |entries| entries.shared(list(route, "route"))));
        shares.max().unwrap_or_default()
    }

    fn said(&self, live: &[Object]) -> Answer {
        let targets = self.reads().into_iter().chain(self.makes());
        let objects = targets.filter_map(|target| find(live, &target).ok());
        objects.fold(Answer::Yes, |answer, object| answer.and_then(|| said(object)))
    }
}

/// Checks that there are routes for a split.
pub(super) fn carries(split: &Split) -> Result<(), Misfit> {
    split.header_routes().iter().try_for_each(|route| headers(route).map(drop))
}

/// Returns the header matches that a header route adds, by header.
fn headers(route: &HeaderRoute) -> Result<Value, Misfit> {
    let mut headers = json!({});
    for one in &route.matches {
        let (name, value) = match (&one.subject, &one.value) {
            (Subject::Header(name), Matcher::Exact(text)) => (name.to_lowercase(), json!({ "exact": text })),
            (Subject::Header(name), Matcher::Prefix(text)) => (name.to_lowercase(), json!({ "prefix": text })),
            (Subject::Header(name), Matcher::Regex(text)) => (name.to_lowercase(), json!({ "regex": text })),
            (Subject::Cookie(name), value) => ("cookie".to_owned(), json!({ "regex": value.in_cookies(name) })),
        };
        if headers.get(&name).is_some() {
            return Err(Misfit(format!("one request header can be matched once, and `{name}` is twice")));
        }
        headers[name] = value;
    }
    Ok(headers)
}

/// Returns what Istio says of an object, where it says anything. Its numbers may be texts.
fn said(object: &Object) -> Answer {
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let named = format!("{}/{}", object.text(&["kind"]), object.name());
    let status = &object.0["status"];
    let generation = object.number(&["metadata", "generation"]).unwrap_or(0);
    let conditions = list(status, "conditions");
    let seen = std::iter::once(status).chain(conditions).filter_map(|said| number(&said["observedGeneration"]));
    if let Some(seen) = seen.min().filter(|seen| *seen < generation) {
        return Answer::NotYet(format!("{named}: Istio has seen generation {seen}, not {generation} yet"));
    }
    if let Some(condition) = conditions.iter().find(|one| one["type"] == "Reconciled" && one["status"] != "True") {
        let message = condition["message"].as_str().unwrap_or_default();
        return Answer::NotYet(format!("{named}: not every proxy has it yet: {message}"));
    }
    match list(status, "validationMessages").iter().find(|message| message["level"] == "ERROR") {
        Some(message) => {
            let code = message["type"]["code"].as_str().unwrap_or("an error");
            Answer::NotYet(format!("{named}: Istio reports {code}"))
        }
        None => Answer::Yes,
    }
}
