//! Reads the router of a strategy, and the steps that only a router can carry out.

use super::{
    Percent,
    read::{Fields, Reader, dns_label, dns_subdomain},
    read_analysis::whole,
};
use crate::core::{
    traffic::{Affinity, HeaderRoute, Match, Matcher, Misfit, Router, Split, Subject, haproxy},
    yaml::{Data, Node},
};

/// The fields of `traffic`.
pub(super) const TRAFFIC: &[&str] = &["gatewayApi", "istio", "nginx", "haproxy"];
/// The fields of a condition on a request.
pub(super) const MATCH: &[&str] = &["headerName", "headerValue", "cookieName", "cookieValue"];
/// The ways to compare a text.
pub(super) const VALUE: &[&str] = &["exact", "prefix", "regex"];
/// The cookie of session affinity where the policy names none.
const COOKIE: &str = "locktender-side";

/// Takes a router: one of those there are.
pub(super) fn traffic(reader: &mut Reader<'_>, node: &Node) -> Option<Router> {
    let fields = reader.fields(node, TRAFFIC)?;
    let mut named = TRAFFIC.iter().filter_map(|name| fields.entry(name));
    let (Some(entry), None) = (named.next(), named.next()) else {
        if fields.len() != 1 {
            let problem = reader.problem(node.span, "traffic goes through one router");
            problem.label = Some(format!("write one of {}", TRAFFIC.join(", ")));
        }
        return None;
    };
    let node = &entry.value;
    match entry.key.as_str() {
        "gatewayApi" => {
            let fields = reader.fields(node, &["httpRoute"])?;
            Some(Router::GatewayApi { http_route: name(reader, &fields, "httpRoute")? })
        }
        "istio" => {
            let fields = reader.fields(node, &["virtualService", "destinationRule"])?;
            let rule = fields.get("destinationRule").and_then(|node| reader.checked(node, dns_subdomain));
            let virtual_service = name(reader, &fields, "virtualService")?;
            Some(Router::Istio { virtual_service, destination_rule: rule.map(str::to_owned) })
        }
        "nginx" => {
            let fields = reader.fields(node, &["ingress"])?;
            Some(Router::Nginx { ingress: name(reader, &fields, "ingress")? })
        }
        _ => {
            let fields = reader.fields(node, &["backend", "runtime"])?;
            let backend = reader.required(&fields, "backend").and_then(|node| reader.checked(node, backend));
            let runtime = reader.required(&fields, "runtime").and_then(|node| runtime(reader, node));
            Some(Router::Haproxy { backend: backend?.to_owned(), runtime: runtime? })
        }
    }
}

fn name(reader: &mut Reader<'_>, fields: &Fields<'_>, field: &str) -> Option<String> {
    let node = reader.required(fields, field)?;
    reader.checked(node, dns_subdomain).map(str::to_owned)
}

fn backend(text: &str) -> Result<(), String> {
    match haproxy::is_name(text) {
        true => Ok(()),
        false => Err(format!("`{text}` is no name of a backend: letters, digits and `-_.:`")),
    }
}

fn runtime(reader: &mut Reader<'_>, node: &Node) -> Option<haproxy::Runtime> {
    match reader.text(node)?.parse() {
        Ok(runtime) => Some(runtime),
        Err(message) => {
            reader.problem(node.span, message);
            None
        }
    }
}

/// Takes a step that changes how a router shares requests out, beside the weight. Says what the router cannot do.
pub(super) fn step(reader: &mut Reader<'_>, router: &Router, name: &str, node: &Node, split: &mut Split) {
    let before = split.clone();
    let read = match name {
        "setHeaderRoute" => header_route(reader, node).map(|route| split.headers.push(route)),
        "setMirror" => mirror(reader, node).map(|share| split.mirror = Some(share).filter(|share| share.get() > 0)),
        _ => affinity(reader, node).map(|affinity| split.affinity = Some(affinity)),
    };
    if read.is_some()
        && let Err(Misfit(why)) = router.carries(split)
    {
        reader.problem(node.span, why);
        *split = before;
    }
}

/// Takes the conditions of which all must hold on a request.
fn header_route(reader: &mut Reader<'_>, node: &Node) -> Option<HeaderRoute> {
    let fields = reader.fields(node, &["match"])?;
    let node = reader.required(&fields, "match")?;
    let items = reader.list(node)?;
    if items.is_empty() {
        reader.problem(node.span, "nothing is looked at").label = Some("write a `headerName`".to_owned());
    }
    let matches: Option<Vec<Match>> = items.iter().map(|item| condition(reader, item)).collect();
    matches.filter(|matches| !matches.is_empty()).map(|matches| HeaderRoute { matches })
}

fn condition(reader: &mut Reader<'_>, node: &Node) -> Option<Match> {
    let fields = reader.fields(node, MATCH)?;
    let sides = [("headerName", "headerValue"), ("cookieName", "cookieValue")];
    let mut named = sides.into_iter().filter(|(name, value)| fields.get(name).or(fields.get(value)).is_some());
    let (Some((name, value)), None) = (named.next(), named.next()) else {
        let problem = reader.problem(node.span, "a condition looks at one header or at one cookie");
        problem.label = Some("write `headerName` and `headerValue`, or `cookieName` and `cookieValue`".to_owned());
        return None;
    };
    let subject = reader.required(&fields, name).and_then(|node| reader.checked(node, token)).map(str::to_owned);
    let value = reader.required(&fields, value).and_then(|node| matcher(reader, node));
    let subject = subject.map(|text| if name == "headerName" { Subject::Header(text) } else { Subject::Cookie(text) });
    Some(Match { subject: subject?, value: value? })
}

fn matcher(reader: &mut Reader<'_>, node: &Node) -> Option<Matcher> {
    let fields = reader.fields(node, VALUE)?;
    let mut named = VALUE.iter().filter_map(|name| fields.entry(name));
    let (Some(entry), None) = (named.next(), named.next()) else {
        if fields.len() != 1 {
            reader.problem(node.span, "a value is compared in one way").label =
                Some("write one of exact, prefix, regex".to_owned());
        }
        return None;
    };
    let text = reader.text(&entry.value)?.to_owned();
    Some(match entry.key.as_str() {
        "exact" => Matcher::Exact(text),
        "prefix" => Matcher::Prefix(text),
        _ => Matcher::Regex(text),
    })
}

/// Names of headers and cookies, by RFC 9110, section 5.6.2.
fn token(text: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(good) {
        true => Ok(()),
        false => Err(format!("`{text}` is no name of a header or cookie")),
    }
}

/// Takes the share of requests that is copied, `30` or `30%`; 0 copies none any more.
fn mirror(reader: &mut Reader<'_>, node: &Node) -> Option<Percent> {
    match node.data {
        Data::Text(_) => reader.percent(node, 0),
        _ => reader.integer(node, 0..=100).and_then(|number| Percent::new(u8::try_from(number).ok()?)),
    }
}

fn affinity(reader: &mut Reader<'_>, node: &Node) -> Option<Affinity> {
    let fields = reader.fields(node, &["cookie", "maxAge"])?;
    let cookie = fields.get("cookie").map(|node| reader.checked(node, dns_label).map(str::to_owned));
    let max_age = fields.get("maxAge").and_then(|node| whole(reader, node));
    let cookie = match cookie {
        Some(named) => named?,
        None => COOKIE.to_owned(),
    };
    // Each rollout has a value of its own, which its plan names.
    Some(Affinity { cookie, value: String::new(), max_age })
}
