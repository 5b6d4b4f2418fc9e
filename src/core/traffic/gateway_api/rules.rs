//! What a split makes of a route's rules.

use serde_json::{Value, json};

use super::HttpRoute;
use crate::core::{
    policy::Percent,
    traffic::{
        Split,
        route::{Misfit, list},
        split::{Affinity, HeaderRoute, Matcher, Subject},
        weights::Entries,
    },
};

/// The most rules of a route, and the most matches in all of them together.
const MOST_RULES: usize = 16;
const MOST_MATCHES: usize = 128;

/// Returns the header matches that a header route adds to a rule's.
pub(super) fn headers(route: &HeaderRoute) -> Result<Vec<Value>, Misfit> {
    let mut headers: Vec<Value> = Vec::new();
    for one in &route.matches {
        let (name, kind, value) = match (&one.subject, &one.value) {
            (Subject::Header(name), Matcher::Exact(text)) => (name.as_str(), "Exact", text.clone()),
            (Subject::Header(name), other) => (name.as_str(), "RegularExpression", other.anchored()),
            (Subject::Cookie(name), value) => ("Cookie", "RegularExpression", value.in_cookies(name)),
        };
        if headers.iter().any(|header| is_header(header, name)) {
            return Err(Misfit(format!("one request header can be matched once, and `{name}` is twice")));
        }
        headers.push(json!({ "type": kind, "name": name, "value": value }));
    }
    Ok(headers)
}

fn is_header(header: &Value, name: &str) -> bool {
    header["name"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name))
}

/// Which references of a route are of which side.
pub(super) struct References<'a> {
    pub route: &'a HttpRoute,
    pub affinity: Option<&'a Affinity>,
}

impl References<'_> {
    fn names(&self, reference: &Value, service: &str) -> bool {
        let text = |name: &str, default| reference[name].as_str().unwrap_or(default);
        text("group", "").is_empty()
            && text("kind", "Service") == "Service"
            && text("name", "") == service
            && text("namespace", &self.route.namespace) == self.route.backends.namespace
    }

    fn is_stable(&self, reference: &Value) -> bool {
        self.names(reference, &self.route.backends.stable)
    }

    fn is_canary(&self, reference: &Value) -> bool {
        self.names(reference, &self.route.backends.canary)
    }

    fn canary_of(&self, reference: &Value) -> Value {
        let mut canary = reference.clone();
        canary["name"] = json!(self.route.backends.canary);
        if let Some(affinity) = self.affinity {
            set_cookie(&mut canary, affinity);
        }
        canary
    }

    fn entries<T>(&self, call: impl FnOnce(&Entries<'_>) -> T) -> T {
        call(&Entries {
            is_stable: &|reference| self.is_stable(reference),
            is_canary: &|reference| self.is_canary(reference),
            canary_of: &|reference| self.canary_of(reference),
            unsaid: 1,
        })
    }

    fn serves(&self, rule: &Value) -> bool {
        list(rule, "backendRefs").iter().any(|reference| self.is_stable(reference))
    }

    /// Returns the rules with a split. `rules` must be clear.
    pub fn split(&self, rules: Vec<Value>, split: &Split, headers: &[Vec<Value>]) -> Result<Vec<Value>, Misfit> {
        let mut ours = Vec::new();
        let mut others = Vec::new();
        for mut rule in rules {
            if self.serves(&rule) {
                for added in headers {
                    ours.push(self.header_rule(&rule, added)?);
                }
                if let Some(Value::Array(references)) = rule.get_mut("backendRefs") {
                    self.entries(|entries| entries.share(references, split.weight))?;
                }
                self.mirror(&mut rule, split.mirror);
            }
            others.push(rule);
        }
        if !others.iter().any(|rule| self.serves(rule)) {
            return Err(Misfit(format!("no rule names the Service {}", self.route.backends.stable)));
        }
        ours.append(&mut others);
        let matches: usize = ours.iter().map(|rule| list(rule, "matches").len().max(1)).sum();
        if ours.len() > MOST_RULES || matches > MOST_MATCHES {
            let most = format!("at most {MOST_RULES} rules and {MOST_MATCHES} matches");
            let there = format!("{} and {matches} with the header routes", ours.len());
            return Err(Misfit(format!("a route has {most}, and there would be {there}")));
        }
        Ok(ours)
    }

    /// Returns the rules without what is ours. `known`: the header matches that rules of ours add.
    pub fn clear(&self, rules: Vec<Value>, known: &[Vec<Value>]) -> Vec<Value> {
        let mut kept: Vec<Value> = rules.into_iter().filter(|rule| !self.is_ours(rule, known)).collect();
        for rule in &mut kept {
            let canary = |filter: &Value| self.is_canary(&filter["requestMirror"]["backendRef"]);
            if let Some(Value::Array(filters)) = rule.get_mut("filters") {
                let before = filters.len();
                filters.retain(|filter| !canary(filter));
                if filters.is_empty() && before > 0 {
                    rule.as_object_mut().map(|rule| rule.remove("filters"));
                }
            }
            if let Some(Value::Array(references)) = rule.get_mut("backendRefs") {
                self.entries(|entries| entries.join(references));
            }
        }
        kept
    }

    /// Returns the other side's share, the largest of all rules.
    pub fn shared(&self, rules: &[Value]) -> Percent {
        let serving = rules.iter().filter(|rule| self.serves(rule));
        let shares = serving.map(|rule| self.entries(|entries| entries.shared(list(rule, "backendRefs"))));
        shares.max().unwrap_or_default()
    }

    fn is_ours(&self, rule: &Value, known: &[Vec<Value>]) -> bool {
        let references = list(rule, "backendRefs");
        let added = |one: &Value| known.iter().any(|added| list(one, "headers").ends_with(added));
        rule.get("name").is_none()
            && !references.is_empty()
            && references.iter().all(|reference| self.is_canary(reference))
            && !list(rule, "matches").is_empty()
            && list(rule, "matches").iter().all(added)
    }

    /// Copies a rule for the requests with some headers: they go to the other side.
    fn header_rule(&self, rule: &Value, added: &[Value]) -> Result<Value, Misfit> {
        let mut copy = rule.clone();
        copy.as_object_mut().map(|copy| copy.remove("name"));
        let anything = [json!({ "path": { "type": "PathPrefix", "value": "/" } })];
        let matches = list(rule, "matches");
        let mut narrowed = Vec::new();
        for one in if matches.is_empty() { &anything } else { matches } {
            let mut one = one.clone();
            let mut headers = list(&one, "headers").to_vec();
            for header in added {
                let name = header["name"].as_str().unwrap_or_default();
                if headers.iter().any(|known| is_header(known, name)) {
                    return Err(Misfit(format!("a rule matches the header `{name}` already")));
                }
                headers.push(header.clone());
            }
            one["headers"] = Value::Array(headers);
            narrowed.push(one);
        }
        copy["matches"] = Value::Array(narrowed);
        let serving = list(rule, "backendRefs").iter().filter(|reference| self.is_stable(reference));
        let canaries = serving.map(|reference| {
            let mut canary = self.canary_of(reference);
            canary["weight"] = json!(1);
            canary
        });
        copy["backendRefs"] = canaries.collect();
        Ok(copy)
    }

    /// Adds the filter that copies requests to the other side.
    fn mirror(&self, rule: &mut Value, share: Option<Percent>) {
        let Some(share) = share.filter(|share| share.get() > 0) else { return };
        let Some(serving) = list(rule, "backendRefs").iter().find(|reference| self.is_stable(reference)) else {
            return;
        };
        let mut reference = json!({ "group": "", "kind": "Service", "name": self.route.backends.canary });
        for name in ["namespace", "port"] {
            if let Some(value) = serving.get(name) {
                reference[name] = value.clone();
            }
        }
        let mut mirror = json!({ "backendRef": reference });
        if share != Percent::ALL {
            mirror["percent"] = json!(share);
        }
        let mut filters = list(rule, "filters").to_vec();
        filters.push(json!({ "type": "RequestMirror", "requestMirror": mirror }));
        rule["filters"] = Value::Array(filters);
    }
}

/// Lets a reference's answers set the cookie of session affinity. A reference has at most one filter of the kind.
fn set_cookie(reference: &mut Value, affinity: &Affinity) {
    let kind = "ResponseHeaderModifier";
    let mut filters = list(reference, "filters").to_vec();
    let at = filters.iter().position(|filter| filter["type"] == kind).unwrap_or_else(|| {
        filters.push(json!({ "type": kind }));
        filters.len() - 1
    });
    let modifier = &mut filters[at]["responseHeaderModifier"];
    let mut add = list(modifier, "add").to_vec();
    add.push(json!({ "name": "Set-Cookie", "value": affinity.set_cookie() }));
    modifier["add"] = Value::Array(add);
    reference["filters"] = Value::Array(filters);
}
