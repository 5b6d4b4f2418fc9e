//! Lists: selectors, pages, and lists of the past.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{
    Api, Request, Response, Status,
    handle::{Target, outgoing, partial},
    request::Form,
    selector::{Fields, Labels},
    tables,
    write::{name, space},
};

/// What a list or a watch selects.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub namespace: String,
    pub labels: Labels,
    pub fields: Fields,
}

impl Selection {
    pub fn of(request: &Request, target: &Target) -> Result<Self, Status> {
        let mut fields = request.parameter("fieldSelector").unwrap_or_default().to_owned();
        // A watch of one object is written as a path, too.
        if let Some(name) = &target.name {
            fields = format!("{fields},metadata.name={name}");
        }
        Ok(Self {
            namespace: target.namespace.clone(),
            labels: Labels::parse(request.parameter("labelSelector").unwrap_or_default())?,
            fields: Fields::parse(&fields, &target.resource)?,
        })
    }

    pub fn matches(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || space(object) == self.namespace)
            && self.labels.matches(object)
            && self.fields.matches(object)
    }
}

/// Where the next page starts.
struct Page {
    revision: u64,
    after: (String, String),
}

impl Page {
    fn read(token: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        Some(Self { revision: value["rv"].as_u64()?, after: (text("namespace")?, text("name")?) })
    }

    fn write(revision: u64, last: &Value) -> String {
        let token = json!({"rv": revision, "namespace": space(last), "name": name(last)});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
    }
}

impl Api {
    pub(super) fn answer_list(&self, request: &Request, target: &Target, form: Form) -> Result<Response, Status> {
        let selection = Selection::of(request, target)?;
        let asked = self.revision_of(request)?;
        let exact = request.parameter("resourceVersionMatch") == Some("Exact");
        let page = match request.parameter("continue").filter(|token| !token.is_empty()) {
            Some(token) => Some(Page::read(token).ok_or_else(|| Status::bad_request("continue key is not valid"))?),
            None => None,
        };
        let revision = match (&page, asked) {
            (Some(page), _) => page.revision,
            (None, Some(asked)) if exact => asked,
            (None, Some(asked)) if asked > self.revision() => return Err(too_large(asked, self.revision())),
            _ => self.revision(),
        };
        let resource = &target.resource;
        let at_rest = revision == self.revision();
        let everything: Vec<Arc<Value>> = if at_rest && selection.namespace.is_empty() {
            self.store.list(&resource.key).cloned().collect()
        } else if at_rest {
            self.store.list_in(&resource.key, &selection.namespace).cloned().collect()
        } else {
            self.store.list_at(&resource.key, revision)?
        };
        let is_next = |object: &&Arc<Value>| {
            page.as_ref()
                .is_none_or(|page| (space(object), name(object)) > (page.after.0.as_str(), page.after.1.as_str()))
        };
        let mut found: Vec<Arc<Value>> =
            everything.iter().filter(is_next).filter(|object| selection.matches(object)).cloned().collect();
        let limit = request.parameter("limit").and_then(|text| text.parse::<usize>().ok()).filter(|limit| *limit > 0);
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let Some(limit) = limit.filter(|limit| found.len() > *limit) {
            let left = found.len() - limit;
            found.truncate(limit);
            if let Some(last) = found.last() {
                metadata["continue"] = Page::write(revision, last).into();
            }
            if selection.labels.is_empty() && selection.fields == Fields::default() {
                metadata["remainingItemCount"] = left.into();
            }
        }
        let body = match form {
            Form::Table => tables::table(resource, &found, metadata, self.now, request.parameter("includeObject")),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": found.iter().map(|object| partial(object)).collect::<Vec<_>>(),
            }),
            Form::Object => json!({
                "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version, "metadata": metadata,
                "items": found.iter().map(|object| outgoing(object, resource, true)).collect::<Vec<_>>(),
            }),
        };
        Ok(Response::json(200, body))
    }

    /// Returns the resource version that a list or watch asks for; `None` for "" and "0", which will take any.
    pub(super) fn revision_of(&self, request: &Request) -> Result<Option<u64>, Status> {
        let text = request.parameter("resourceVersion").unwrap_or_default();
        if request.parameter("resourceVersionMatch").is_some_and(|wanted| !wanted.is_empty())
            && text.is_empty()
            && !request.flag("sendInitialEvents")
        {
            let message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided".to_owned();
            let reason = "FieldValueForbidden";
            return Err(Status::wrong_option("ListOptions", "resourceVersionMatch", reason, message));
        }
        match text {
            "" | "0" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }
}

fn too_large(asked: u64, newest: u64) -> Status {
    let message = format!("Too large resource version: {asked}, current: {newest}");
    let mut status = Status::new(504, "Timeout", message);
    status.details.retry_after = Some(1);
    status.details.causes.push(super::Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".into(),
        field: String::new(),
    });
    status
}
