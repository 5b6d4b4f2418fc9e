//! Reads what was sent as Go's structs would: wrong types are errors, unknown fields are reported and dropped, empty
//! fields that Go leaves out are left out, so that an update that says nothing new changes nothing.

use serde_json::{Map, Value};

use super::{Field, Scalar, Shape, Type, path::Path, quantity};

/// How to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An object: empty fields are left out, structs that Go always writes are added.
    Object,
    /// What was given to server-side apply: only nulls are left out.
    Applied,
}

/// What was found wrong while reading.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Paths of fields that the type does not have, `spec.foo`.
    pub unknown: Vec<String>,
    /// The first value of a wrong type.
    pub wrong: Option<Wrong>,
}

/// A value of a wrong type.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In the words of Go's JSON decoder.
    pub message: String,
    /// `spec.replicas`.
    pub path: String,
    /// What was found: `string`, `object`, …
    pub found: &'static str,
    /// What Go wanted: `int32`, `[]string`, …
    pub wanted: String,
}

/// Reads `value` as `shape` in place.
pub fn decode(value: &mut Value, shape: &Shape, mode: Mode) -> Report {
    let mut reader = Reader { mode, report: Report::default() };
    reader.value(value, shape, &Path::Root, "");
    reader.report
}

struct Reader {
    mode: Mode,
    report: Report,
}

impl Reader {
    /// `owner`: the struct that the value is a field of, as Go's messages name it.
    fn value(&mut self, value: &mut Value, shape: &Shape, path: &Path<'_>, owner: &str) {
        match shape {
            Shape::Any { .. } => {}
            Shape::Scalar(scalar) => self.scalar(value, *scalar, path, owner),
            Shape::Map { of, .. } => match value {
                Value::Object(members) => {
                    for (name, member) in members.iter_mut() {
                        self.value(member, of, &Path::Field(path, name), owner);
                    }
                }
                other => self.wrong(other, &format!("map[string]{}", go_name(of)), path, owner),
            },
            Shape::List { of, .. } => match value {
                Value::Array(items) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.value(item, of, &Path::Item(path, index), owner);
                    }
                }
                other => self.wrong(other, &format!("[]{}", go_name(of)), path, owner),
            },
            Shape::Builtin(_) | Shape::Inline(_) => {
                let Some(of) = shape.as_type() else { return };
                match value {
                    Value::Object(members) => self.members(members, of, path),
                    other => self.wrong(other, &go_name(shape), path, owner),
                }
            }
        }
    }

    fn members(&mut self, members: &mut Map<String, Value>, of: &Type, path: &Path<'_>) {
        let owner = of.name.rsplit('.').next().unwrap_or(&of.name);
        // Custom resources have their defaults in their schema; Kubernetes' own are code (`api::defaults`).
        if self.mode == Mode::Object && of.name.is_empty() {
            for (name, field) in &of.fields {
                if let (Some(default), true) = (&field.default, members.get(name).is_none_or(Value::is_null)) {
                    members.insert(name.clone(), default.clone());
                }
            }
        }
        members.retain(|name, value| {
            let field = of.fields.get(name);
            if let Some(field) = field.filter(|_| !value.is_null()) {
                self.value(value, &field.shape, &Path::Field(path, name), owner);
            }
            let known = of.open || field.is_some();
            if !known {
                self.report.unknown.push(Path::Field(path, name).to_string());
            }
            known && !value.is_null()
        });
        if self.mode == Mode::Object {
            members.retain(|name, value| of.fields.get(name).is_none_or(|field| !is_left_out(value, field)));
            for (name, field) in of.fields.iter().filter(|(_, field)| field.always_written) {
                if !members.contains_key(name) {
                    let mut made = Value::Object(Map::new());
                    self.value(&mut made, &field.shape, &Path::Field(path, name), owner);
                    members.insert(name.clone(), made);
                }
            }
        }
    }

    fn scalar(&mut self, value: &mut Value, scalar: Scalar, path: &Path<'_>, owner: &str) {
        let right = match scalar {
            Scalar::Text | Scalar::Time | Scalar::MicroTime | Scalar::Bytes => value.is_string(),
            Scalar::Bool => value.is_boolean(),
            Scalar::Int32 => whole(value).is_some_and(|number| i32::try_from(number).is_ok()),
            Scalar::Int64 => whole(value).is_some(),
            Scalar::Number => value.is_number(),
            Scalar::IntOrString => value.is_string() || whole(value).is_some(),
            Scalar::Quantity => {
                let text = match &*value {
                    Value::String(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                    _ => String::new(),
                };
                match quantity::canonical(&text) {
                    Some(canonical) => {
                        *value = Value::String(canonical);
                        true
                    }
                    None => {
                        let message = "quantities must match the regular expression \
                                       '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                        self.report.wrong.get_or_insert_with(|| Wrong {
                            message: message.to_owned(),
                            path: path.to_string(),
                            found: "string",
                            wanted: go_scalar(scalar).to_owned(),
                        });
                        return;
                    }
                }
            }
        };
        if !right {
            self.wrong(value, go_scalar(scalar), path, owner);
        }
    }

    fn wrong(&mut self, value: &Value, wanted: &str, path: &Path<'_>, owner: &str) {
        let found = match value {
            Value::Null => return,
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let shown = match value {
            Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
            _ => found.to_owned(),
        };
        let place = format!("{owner}.{}", path.names().join("."));
        self.report.wrong.get_or_insert_with(|| Wrong {
            message: format!("json: cannot unmarshal {shown} into Go struct field {place} of type {wanted}"),
            path: path.to_string(),
            found,
            wanted: wanted.to_owned(),
        });
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let float = value.as_f64()?;
        #[allow(clippy::cast_possible_truncation)]
        (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
    })
}

fn is_left_out(value: &Value, field: &Field) -> bool {
    if !field.omit_empty || field.always_written {
        return false;
    }
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty() && matches!(field.shape, Shape::Map { .. }),
        Value::String(text) => text.is_empty() && !field.pointer,
        Value::Bool(yes) => !yes && !field.pointer,
        Value::Number(number) => {
            let plain = matches!(field.shape, Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString));
            plain && !field.pointer && number.as_i64() == Some(0)
        }
        Value::Null => true,
    }
}

fn go_name(shape: &Shape) -> String {
    match shape {
        Shape::Scalar(scalar) => go_scalar(*scalar).to_owned(),
        Shape::Any { .. } => "interface {}".to_owned(),
        Shape::Map { of, .. } => format!("map[string]{}", go_name(of)),
        Shape::List { of, .. } => format!("[]{}", go_name(of)),
        Shape::Builtin(_) | Shape::Inline(_) => {
            let name = shape.as_type().map(|of| of.name.as_str()).unwrap_or_default();
            let mut parts = name.rsplit('.');
            let (kind, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{kind}")
        }
    }
}

fn go_scalar(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Text => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Number => "float64",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Bytes => "[]uint8",
    }
}
