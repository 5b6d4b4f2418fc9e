//! What a request looks like in an audit log: the line that a real API server writes of it at its level `Request`
//! (`audit.k8s.io/v1`), as far as somebody who reads it asks.

use serde_json::{Value, json};

use super::{Api, Request};

impl Api {
    /// Describes a request that was answered with `code`, or a watch that was opened, as of now.
    pub fn audited(&self, request: &Request, code: u16) -> Value {
        let now = format!("{:.6}", self.now());
        // As it was decoded: nobody sends it again.
        let query: Vec<String> = request.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut line = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Request",
            "stage": "ResponseComplete",
            "requestURI": format!("{}{mark}{}", request.path, query.join("&")),
            "verb": request.method.to_lowercase(),
            "user": {"username": "sandbox"},
            "userAgent": request.user_agent,
            "responseStatus": {"metadata": {}, "code": code},
            "requestReceivedTimestamp": now,
            "stageTimestamp": now,
        });
        let Some(target) = self.target(request.path.trim_end_matches('/')) else { return line };
        let verb = match (request.method.as_str(), &target.name) {
            ("GET", _) if request.flag("watch") => "watch",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("DELETE", None) => "deletecollection",
            ("PATCH", _) => "patch",
            _ => "get",
        };
        line["verb"] = json!(verb);
        if verb == "watch" {
            line["stage"] = json!("ResponseStarted");
        }
        let mut about = json!({"resource": target.resource.plural, "apiVersion": target.resource.version});
        let parts = [
            ("apiGroup", Some(target.resource.group.clone())),
            ("namespace", Some(target.namespace)),
            ("name", target.name),
            ("subresource", target.subresource),
        ];
        for (part, text) in parts {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                about[part] = json!(text);
            }
        }
        line["objectRef"] = about;
        // Other forms than JSON are left out.
        if let Ok(body) = serde_json::from_slice::<Value>(&request.body) {
            line["requestObject"] = body;
        }
        line
    }
}
