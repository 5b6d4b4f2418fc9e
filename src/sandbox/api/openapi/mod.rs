//! `/openapi/v3`, made from the same schema that objects are merged and validated by. It has no descriptions.

mod v2;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    request::{Body, Response},
    resources::{Registry, Resource},
};
use crate::sandbox::schema::{Field, ListKind, Scalar, Shape, Type};

/// Answers `/openapi/v2`, `/openapi/v3` and what is below it.
pub fn answer(registry: &Registry, path: &str) -> Option<Response> {
    if path == "/openapi/v2" {
        let content_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        let body = Body::Bytes(v2::document(registry));
        return Some(Response { status: 200, body, content_type, warnings: Vec::new() });
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        let paths: BTreeMap<String, Value> = registry
            .all()
            .iter()
            .map(|resource| {
                let place = place(resource);
                let url = format!("/openapi/v3/{place}?hash={}", super::discovery::VERSION.replace('+', "-"));
                (place, json!({"serverRelativeURL": url}))
            })
            .collect();
        return Some(Response::json(200, json!({"paths": paths})));
    }
    let wanted = rest.trim_start_matches('/');
    let of_version: Vec<_> = registry.all().iter().filter(|resource| place(resource) == wanted).collect();
    if of_version.is_empty() {
        return None;
    }
    let mut document = Document::default();
    let mut paths = Map::new();
    for resource in of_version {
        document.root(resource);
        paths.extend(operations(resource));
    }
    document.finish();
    Some(Response::json(
        200,
        json!({
            "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": super::discovery::VERSION}, "paths": paths,
            "components": {"schemas": document.schemas},
        }),
    ))
}

fn place(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}", resource.api_version)
    }
}

/// The operations, with the parameters that clients look for: `kubectl` asks whether `fieldValidation` is known.
fn operations(resource: &Resource) -> Vec<(String, Value)> {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let operation = |action: &str, parameters: &[&str]| {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
            .collect();
        json!({
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind, "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
        })
    };
    let scope = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
    let collection = format!("/{}/{scope}{}", place(resource), resource.plural);
    const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
    const LIST: [&str; 4] = ["labelSelector", "fieldSelector", "limit", "continue"];
    let one = format!("{collection}/{{name}}");
    vec![
        (collection, json!({"get": operation("list", &LIST), "post": operation("post", &WRITE)})),
        (
            one,
            json!({
                "get": operation("get", &[]),
                "put": operation("put", &WRITE),
                "patch": operation("patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
                "delete": operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
            }),
        ),
    ]
}

#[derive(Default)]
struct Document {
    schemas: BTreeMap<String, Value>,
    wanted: BTreeSet<usize>,
}

impl Document {
    fn root(&mut self, resource: &Resource) {
        match &resource.shape {
            Shape::Builtin(index) => {
                self.wanted.insert(*index);
            }
            Shape::Inline(made) => {
                let reversed: Vec<&str> = resource.group.split('.').rev().collect();
                let name = format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind);
                let mut schema = self.object(made);
                let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
                schema["x-kubernetes-group-version-kind"] = json!([kind]);
                self.schemas.insert(name, schema);
            }
            _ => {}
        }
    }

    /// Adds every type that is referred to.
    fn finish(&mut self) {
        while let Some(index) = self.wanted.pop_first() {
            let Some(of) = Shape::Builtin(index).as_type().cloned() else { continue };
            if self.schemas.contains_key(&of.name) {
                continue;
            }
            self.schemas.insert(of.name.clone(), Value::Null);
            let mut schema = self.object(&of);
            if let Some((group, version, kind)) = &of.kind {
                schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
            }
            self.schemas.insert(of.name, schema);
        }
    }

    fn object(&mut self, of: &Type) -> Value {
        let properties: Map<String, Value> =
            of.fields.iter().map(|(name, field)| (name.clone(), self.field(field))).collect();
        let required: Vec<&String> =
            of.fields.iter().filter(|(_, field)| field.required).map(|(name, _)| name).collect();
        let mut made = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            made["required"] = json!(required);
        }
        if of.atomic {
            made["x-kubernetes-map-type"] = "atomic".into();
        }
        if of.open {
            made["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        made
    }

    fn field(&mut self, field: &Field) -> Value {
        let mut made = self.shape(&field.shape);
        if let Some(reference) = made.get("$ref").cloned() {
            made = json!({"allOf": [{"$ref": reference}]});
        }
        if field.always_written {
            made["default"] = json!({});
        }
        if let Some(default) = &field.default {
            made["default"] = default.clone();
        }
        if !field.values.is_empty() {
            made["enum"] = field.values.clone().into();
        }
        let strategy: Vec<&str> = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")]
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, name)| name)
            .collect();
        if !strategy.is_empty() {
            made["x-kubernetes-patch-strategy"] = strategy.join(",").into();
        }
        if let Some(key) = &field.patch.key {
            made["x-kubernetes-patch-merge-key"] = key.clone().into();
        }
        made
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Any { atomic } => {
                let mut made = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                if *atomic {
                    made["x-kubernetes-map-type"] = "atomic".into();
                }
                made
            }
            Shape::Scalar(scalar) => scalar_schema(*scalar),
            Shape::Builtin(index) => {
                let name = shape.as_type().map(|of| of.name.clone()).unwrap_or_default();
                if !self.schemas.contains_key(&name) {
                    self.wanted.insert(*index);
                }
                json!({"$ref": format!("#/components/schemas/{name}")})
            }
            Shape::Inline(of) => self.object(of),
            Shape::Map { of, atomic } => {
                let mut made = json!({"type": "object", "additionalProperties": self.shape(of)});
                if *atomic {
                    made["x-kubernetes-map-type"] = "atomic".into();
                }
                made
            }
            Shape::List { of, kind } => {
                let mut made = json!({"type": "array", "items": self.shape(of)});
                match kind {
                    ListKind::Atomic => made["x-kubernetes-list-type"] = "atomic".into(),
                    ListKind::Set => made["x-kubernetes-list-type"] = "set".into(),
                    ListKind::Map(keys) => {
                        made["x-kubernetes-list-type"] = "map".into();
                        made["x-kubernetes-list-map-keys"] = keys.clone().into();
                    }
                }
                made
            }
        }
    }
}

fn scalar_schema(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Text => json!({"type": "string"}),
        Scalar::Bool => json!({"type": "boolean"}),
        Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
        Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
        Scalar::Number => json!({"type": "number", "format": "double"}),
        Scalar::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Scalar::IntOrString => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        Scalar::Time | Scalar::MicroTime => json!({"type": "string", "format": "date-time"}),
        Scalar::Bytes => json!({"type": "string", "format": "byte"}),
    }
}
