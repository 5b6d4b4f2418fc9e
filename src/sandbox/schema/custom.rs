//! The types of custom resources, from the structural schema in their definitions.

use std::sync::Arc;

use serde_json::Value;

use super::{Field, ListKind, Scalar, Shape, Type, builtin};

/// Builds the shape of a custom resource from its `openAPIV3Schema`; without one, everything is kept.
pub fn object(schema: Option<&Value>) -> Shape {
    let mut made = match schema.map(shape) {
        Some(Shape::Inline(made)) => Type::clone(&made),
        _ => Type { open: true, ..Type::default() },
    };
    let text = || Field::of(Shape::Scalar(Scalar::Text));
    made.fields.insert("apiVersion".into(), text());
    made.fields.insert("kind".into(), text());
    if let Some(metadata) = builtin().shape("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
        made.fields.insert("metadata".into(), Field { always_written: true, ..Field::of(metadata) });
    }
    Shape::Inline(Arc::new(made))
}

fn shape(schema: &Value) -> Shape {
    let flag = |name: &str| schema[name] == Value::Bool(true);
    if flag("x-kubernetes-int-or-string") {
        return Shape::Scalar(Scalar::IntOrString);
    }
    let atomic = schema["x-kubernetes-map-type"] == "atomic";
    match schema["type"].as_str() {
        Some("string") => Shape::Scalar(Scalar::Text),
        Some("boolean") => Shape::Scalar(Scalar::Bool),
        Some("integer") => Shape::Scalar(Scalar::Int64),
        Some("number") => Shape::Scalar(Scalar::Number),
        Some("array") => {
            let kind = match schema["x-kubernetes-list-type"].as_str() {
                Some("map") => ListKind::Map(texts(&schema["x-kubernetes-list-map-keys"])),
                Some("set") => ListKind::Set,
                _ => ListKind::Atomic,
            };
            Shape::List { of: Box::new(shape(&schema["items"])), kind }
        }
        Some("object") => {
            let open = flag("x-kubernetes-preserve-unknown-fields");
            if let Some(properties) = schema["properties"].as_object() {
                let required = texts(&schema["required"]);
                let fields = properties.iter().map(|(name, sub)| {
                    let field = Field {
                        required: required.contains(name),
                        default: sub.get("default").cloned(),
                        values: texts(&sub["enum"]),
                        ..Field::of(shape(sub))
                    };
                    (name.clone(), field)
                });
                return Shape::Inline(Arc::new(Type { atomic, open, fields: fields.collect(), ..Type::default() }));
            }
            match schema.get("additionalProperties") {
                Some(of @ Value::Object(_)) => Shape::Map { of: Box::new(shape(of)), atomic },
                _ if open || schema["x-kubernetes-embedded-resource"] == true => Shape::Any { atomic },
                Some(Value::Bool(true)) => Shape::Any { atomic },
                _ => Shape::Inline(Arc::new(Type { atomic, ..Type::default() })),
            }
        }
        _ => Shape::Any { atomic },
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
