//! Reads YAML: the one place that does, for everything that people write.
//!
//! Scalars mean what `kubectl` (`sigs.k8s.io/yaml`, which is `go-yaml` 2: YAML 1.1) makes of them; `scalar.rs` has the
//! rules, tried on kubectl 1.32. Stricter than kubectl in three things, because each is a mistake: duplicate keys, a
//! merge key after a key that it would override, and a float as a key that has no short spelling.
//!
//! The parser is `granit-parser`, the one under `serde-saphyr`: its events carry the positions of keys, which serde's
//! data model has no room for.

mod build;
mod scalar;

use serde_json::{Map, Value};

pub use build::{Limits, parse};
pub use serde_json::Number;

/// A place in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Counts from 1.
    pub line: u32,
    /// Counts characters from 1.
    pub column: u32,
    /// How many characters.
    pub length: u32,
}

impl From<Span> for (u32, u32, u32) {
    fn from(span: Span) -> Self {
        (span.line, span.column, span.length)
    }
}

/// One value of a document, with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it starts; for a block's map or list, where its first key or item is.
    pub span: Span,
    /// What it is.
    pub data: Data,
}

/// What a node is. These are JSON's types: Kubernetes knows no others.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Nothing, `~` or `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the file's order; no two keys are the same.
    Map(Vec<Entry>),
}

/// One member of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, as a text whatever it was written as.
    pub key: String,
    /// Where the key is.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// Returns the member of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// Returns the member of a map with its key's place.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Returns the members of a map; empty for everything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the items of a list; empty for everything else.
    pub fn items(&self) -> &[Self] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// Returns the text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns whether it is nothing.
    pub fn is_null(&self) -> bool {
        self.data == Data::Null
    }

    /// Returns the place that a path of keys and indexes names, `["spec", "containers", "0"]`: of the key where there
    /// is one, and of the deepest part that exists.
    pub fn place(&self, path: &[&str]) -> Span {
        let mut place = self.span;
        let mut here = self;
        for step in path {
            if let Some(entry) = here.entry(step) {
                place = entry.key_span;
                here = &entry.value;
            } else if let Some(item) = step.parse::<usize>().ok().and_then(|index| here.items().get(index)) {
                place = item.span;
                here = item;
            } else {
                break;
            }
        }
        place
    }

    /// Names the type for a person: `a text`, `a map`.
    pub fn type_name(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "a boolean",
            Data::Number(_) => "a number",
            Data::Text(_) => "a text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }

    /// Returns the value without places.
    pub fn into_value(self) -> Value {
        match self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(value),
            Data::Number(number) => Value::Number(number),
            Data::Text(text) => Value::String(text),
            Data::List(items) => Value::Array(items.into_iter().map(Self::into_value).collect()),
            Data::Map(entries) => {
                let members = entries.into_iter().map(|entry| (entry.key, entry.value.into_value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }

    /// Returns a copy of the value without places.
    pub fn to_value(&self) -> Value {
        self.clone().into_value()
    }
}
