//! Kubernetes' own types, as data: fields, list keys, patch strategies, what is required and what is left out when
//! empty. Merging and validation are driven by it, never by code for a kind.
//!
//! `types.json.gz` is made by `extract.py`, which says from what. Types of custom resources are made from their
//! definitions ([`custom`]) into the same shapes.

pub mod custom;
pub mod decode;
pub mod path;
pub mod protobuf;
mod quantity;

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;
use serde_json::Value;

/// A scalar's type, by the name that Go has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `string`.
    Text,
    /// `bool`.
    Bool,
    /// `int32`.
    Int32,
    /// `int64`.
    Int64,
    /// `float64`.
    Number,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `metav1.Time`.
    Time,
    /// `metav1.MicroTime`.
    MicroTime,
    /// `[]byte`, base64.
    Bytes,
}

/// How a list's items are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one value.
    Atomic,
    /// Items are scalars, each at most once.
    Set,
    /// Items are objects with these keys.
    Map(Vec<String>),
}

/// What a value may look like.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A scalar.
    Scalar(Scalar),
    /// Anything; owned as one value where `atomic`, field by field otherwise.
    Any {
        /// Whether it is owned as one value.
        atomic: bool,
    },
    /// One of Kubernetes' own types, by its place in [`Schema::types`].
    Builtin(usize),
    /// A type of a custom resource.
    Inline(Arc<Type>),
    /// An object with free keys.
    Map {
        /// What the values are.
        of: Box<Shape>,
        /// Whether it is owned as one value.
        atomic: bool,
    },
    /// A list.
    List {
        /// What the items are.
        of: Box<Shape>,
        /// How items are told apart.
        kind: ListKind,
    },
}

impl Shape {
    /// Returns the type, where the value is an object with named fields.
    pub fn as_type(&self) -> Option<&Type> {
        match self {
            Self::Builtin(index) => builtin().types.get(*index),
            Self::Inline(made) => Some(made),
            _ => None,
        }
    }

    /// Returns the shape of the member `name` of an object of this shape.
    pub fn member(&self, name: &str) -> Option<&Shape> {
        match self {
            Self::Map { of, .. } => Some(of),
            Self::Any { .. } => Some(&ANY),
            _ => {
                let of = self.as_type()?;
                of.fields.get(name).map(|field| &field.shape).or(of.open.then_some(&ANY))
            }
        }
    }
}

/// Anything, owned field by field.
pub static ANY: Shape = Shape::Any { atomic: false };

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged by this key; scalars as a set where there is none.
    pub merge: bool,
    /// The key by which items are merged.
    pub key: Option<String>,
    /// `$retainKeys` is understood.
    pub retain_keys: bool,
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct Field {
    /// What its value looks like.
    pub shape: Shape,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when it is not given.
    pub default: Option<Value>,
    /// A struct that is written even when it is empty.
    pub always_written: bool,
    /// Left out when empty (`omitempty`).
    pub omit_empty: bool,
    /// Empty and absent are told apart.
    pub pointer: bool,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The values of an enumeration; empty where any will do.
    pub values: Vec<String>,
    /// The field's number in Protobuf, after those of the messages that it lies in there and not in JSON.
    pub numbers: Vec<u64>,
}

impl Field {
    /// Builds a plain field.
    pub fn of(shape: Shape) -> Self {
        Self {
            shape,
            required: false,
            default: None,
            always_written: false,
            omit_empty: false,
            pointer: true,
            patch: PatchStrategy::default(),
            values: Vec::new(),
            numbers: Vec::new(),
        }
    }
}

/// An object with named fields.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// `io.k8s.api.apps.v1.Deployment`.
    pub name: String,
    /// Group, version and kind, of types that are objects.
    pub kind: Option<(String, String, String)>,
    /// Whether it is owned as one value.
    pub atomic: bool,
    /// Whether fields that are not named are kept.
    pub open: bool,
    /// By name.
    pub fields: BTreeMap<String, Field>,
}

/// All of Kubernetes' types that the sandbox knows.
#[derive(Debug)]
pub struct Schema {
    /// In the order of their names.
    pub types: Vec<Type>,
    by_name: HashMap<String, usize>,
}

impl Schema {
    /// Returns the shape of a type, `io.k8s.api.core.v1.Pod`.
    pub fn shape(&self, name: &str) -> Option<Shape> {
        self.by_name.get(name).map(|index| Shape::Builtin(*index))
    }

    /// Returns the shape of an object by group, version and kind.
    pub fn object(&self, group: &str, version: &str, kind: &str) -> Option<Shape> {
        let is = |of: &Type| of.kind.as_ref().is_some_and(|(g, v, k)| g == group && v == version && k == kind);
        self.types.iter().position(is).map(Shape::Builtin)
    }
}

/// Returns Kubernetes' types. Read once.
pub fn builtin() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| read(include_bytes!("types.json.gz")))
}

#[derive(Deserialize)]
struct RawType {
    #[serde(default)]
    g: Option<(String, String, String)>,
    #[serde(default)]
    a: u8,
    f: BTreeMap<String, RawNode>,
}

#[derive(Deserialize)]
#[allow(non_snake_case)]
struct RawNode {
    #[serde(default)]
    t: Option<String>,
    #[serde(default)]
    r: Option<String>,
    #[serde(default)]
    m: Option<Box<RawNode>>,
    #[serde(default)]
    l: Option<Box<RawNode>>,
    #[serde(default)]
    k: Option<Vec<String>>,
    #[serde(default)]
    S: u8,
    #[serde(default)]
    A: u8,
    #[serde(default)]
    p: String,
    #[serde(default)]
    pk: Option<String>,
    #[serde(default)]
    R: u8,
    #[serde(default)]
    D: Option<Value>,
    #[serde(default)]
    v: u8,
    #[serde(default)]
    o: u8,
    #[serde(default)]
    P: u8,
    #[serde(default)]
    e: Vec<String>,
    #[serde(default)]
    n: Vec<u64>,
}

/// The data is made by our own script and compiled in: a broken one yields an empty schema, which every test sees.
fn read(data: &[u8]) -> Schema {
    let mut text = String::new();
    let read = flate2::read::GzDecoder::new(data).read_to_string(&mut text);
    let raw: BTreeMap<String, RawType> = read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default();
    let by_name: HashMap<String, usize> = raw.keys().cloned().enumerate().map(|(index, name)| (name, index)).collect();
    let types = raw
        .into_iter()
        .map(|(name, raw)| Type {
            name,
            kind: raw.g,
            atomic: raw.a == 1,
            open: false,
            fields: raw.f.into_iter().map(|(name, node)| (name, field(node, &by_name))).collect(),
        })
        .collect();
    Schema { types, by_name }
}

fn field(raw: RawNode, by_name: &HashMap<String, usize>) -> Field {
    Field {
        required: raw.R == 1,
        default: raw.D.clone(),
        always_written: raw.v == 1,
        omit_empty: raw.o == 1,
        pointer: raw.P == 1,
        patch: PatchStrategy {
            merge: raw.p.split(',').any(|part| part == "merge"),
            key: raw.pk.clone(),
            retain_keys: raw.p.split(',').any(|part| part == "retainKeys"),
        },
        values: raw.e.clone(),
        numbers: raw.n.clone(),
        shape: shape(raw, by_name),
    }
}

fn shape(raw: RawNode, by_name: &HashMap<String, usize>) -> Shape {
    if let Some(index) = raw.r.and_then(|name| by_name.get(&name).copied()) {
        return Shape::Builtin(index);
    }
    if let Some(of) = raw.m {
        return Shape::Map { of: Box::new(shape(*of, by_name)), atomic: raw.A == 1 };
    }
    if let Some(of) = raw.l {
        let kind = match raw.k {
            Some(keys) => ListKind::Map(keys),
            None if raw.S == 1 => ListKind::Set,
            None => ListKind::Atomic,
        };
        return Shape::List { of: Box::new(shape(*of, by_name)), kind };
    }
    Shape::Scalar(match raw.t.as_deref() {
        Some("s") => Scalar::Text,
        Some("b") => Scalar::Bool,
        Some("i") => Scalar::Int32,
        Some("l") => Scalar::Int64,
        Some("n") => Scalar::Number,
        Some("q") => Scalar::Quantity,
        Some("x") => Scalar::IntOrString,
        Some("d") => Scalar::Time,
        Some("m") => Scalar::MicroTime,
        Some("y") => Scalar::Bytes,
        _ => return Shape::Any { atomic: true },
    })
}
