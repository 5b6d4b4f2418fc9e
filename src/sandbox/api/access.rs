//! Who may do what: everybody everything, but for what is forbidden on command.

use serde_json::{Value, json};

use super::{
    Api, Status,
    handle::Target,
    request::{Request, Response},
};
use crate::sandbox::faults;

/// Who asks where nobody is impersonated.
const WHO: &str = "sandbox";

/// Something that is forbidden. In each pattern `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Whom: `system:serviceaccount:shop:*`; `sandbox` is who impersonates nobody.
    pub user: String,
    /// `create`, `patch`, …
    pub verb: String,
    /// `secrets`, `deployments.apps`.
    pub resource: String,
    /// "" for objects of the cluster.
    pub namespace: String,
}

impl Forbidden {
    /// Builds a rule from its four patterns.
    pub fn new(user: &str, verb: &str, resource: &str, namespace: &str) -> Self {
        let [user, verb, resource, namespace] = [user, verb, resource, namespace].map(str::to_owned);
        Self { user, verb, resource, namespace }
    }
}

impl Api {
    /// Forbids all this, and nothing else any more.
    pub fn forbid(&mut self, rules: Vec<Forbidden>) {
        self.forbidden = rules;
    }

    fn is_forbidden(&self, user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
        self.forbidden.iter().any(|rule| {
            faults::matches(&rule.user, user)
                && faults::matches(&rule.verb, verb)
                && faults::matches(&rule.resource, resource)
                && faults::matches(&rule.namespace, namespace)
        })
    }

    /// Refuses a request that is forbidden to whom it is made by.
    pub(super) fn authorise(&self, request: &Request, target: &Target) -> Result<(), Status> {
        let (resource, namespace) = (&target.resource, &target.namespace);
        let name = target.name.as_deref().unwrap_or_default();
        let verb = match (request.method.as_str(), name.is_empty()) {
            ("GET", true) if request.flag("watch") => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "create",
        };
        let makes = request.content_type.starts_with("application/apply-patch")
            && self.store.get(&resource.key, namespace, name).is_none();
        let refused = [Some(verb), makes.then_some("create")].into_iter().flatten();
        let user = who(request);
        match refused.into_iter().find(|verb| self.is_forbidden(user, verb, &resource.key, namespace)) {
            None => Ok(()),
            Some(verb) => {
                let place = if namespace.is_empty() {
                    "at the cluster scope".to_owned()
                } else {
                    format!("in the namespace \"{namespace}\"")
                };
                let (plural, group) = resource.key.split_once('.').unwrap_or((&resource.key, ""));
                Err(resource.about(name).forbidden(&format!(
                    "User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" {place}"
                )))
            }
        }
    }

    /// Answers who somebody is, and what they may do.
    pub(super) fn review(&self, path: &str, request: &Request) -> Result<Option<Response>, Status> {
        let answer = match path {
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
                let mut review = request.json_body()?;
                let asked =
                    |name: &str| review["spec"]["resourceAttributes"][name].as_str().unwrap_or_default().to_owned();
                let group = asked("group");
                let resource =
                    if group.is_empty() { asked("resource") } else { format!("{}.{group}", asked("resource")) };
                let forbidden = self.is_forbidden(who(request), &asked("verb"), &resource, &asked("namespace"));
                review["status"] = json!({"allowed": !forbidden});
                review
            }
            "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
                let mut review = request.json_body()?;
                let groups = groups(who(request));
                review["status"] = json!({"userInfo": {"username": who(request), "groups": groups}});
                review
            }
            _ => return Ok(None),
        };
        if request.method != "POST" {
            return Err(Status::method_not_allowed());
        }
        Ok(Some(Response::json(201, answer)))
    }
}

/// In whose name a request is made.
fn who(request: &Request) -> &str {
    if request.impersonates.is_empty() { WHO } else { &request.impersonates }
}

fn groups(user: &str) -> Value {
    let Some((namespace, _)) = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) else {
        return json!(["system:masters"]);
    };
    json!(["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"])
}
