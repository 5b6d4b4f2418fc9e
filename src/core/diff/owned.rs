//! Whether server-side apply of an object would change the live one.
//!
//! Two questions: does every field that is sent have that value already, allowing for what a server fills in or prints
//! otherwise; and is there a field that we own and no longer send, which apply would take away.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use super::quantity::same_amount;
use crate::core::manifest::{Object, hashed, is_secret};

/// One field that applying would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldChange {
    /// `spec.template.spec.containers[name=web].image`.
    pub path: String,
    /// The live value; `None` where there is none. Of Secrets only a hash.
    pub from: Option<Value>,
    /// The value that is sent; `None` where the field goes.
    pub to: Option<Value>,
}

/// Returns what applying `desired` as `manager` would change of `live`; empty when it would change nothing.
///
/// What `desired` does not say and `manager` does not own is not looked at. Inside of atomic lists a field that is
/// added by the server cannot be told from one that is no longer sent; but where `manager` applied the object and does
/// not own such a list (any more), the list must be the same throughout.
pub fn owned_differs(desired: &Object, live: &Object, manager: &str) -> Vec<FieldChange> {
    let owned = owned_fields(live, manager);
    let mut comparison = Comparison {
        changes: Vec::new(),
        secret: is_secret(desired),
        builtin: is_builtin(desired),
        applied: owned.is_some(),
        whole: false,
    };
    comparison.map(&Path::Root, desired.0.as_object(), live.0.as_object(), owned);
    comparison.changes
}

/// Returns whether `manager` has applied `live` before: where it has not, applying also takes ownership.
pub fn is_applied_by(live: &Object, manager: &str) -> bool {
    owned_fields(live, manager).is_some()
}

/// Returns the `fieldsV1` of what `manager` applied.
fn owned_fields<'v>(live: &'v Object, manager: &str) -> Option<&'v Value> {
    let managers = live.at(&["metadata", "managedFields"])?.as_array()?;
    let applied = managers.iter().find(|entry| {
        entry["manager"] == manager && entry["operation"] == "Apply" && entry.get("subresource").is_none()
    });
    applied?.get("fieldsV1")
}

/// The way to a value; made into text only for a change.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, String),
}

impl Path<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Root => "",
            Self::Field(_, name) => name,
            Self::Item(parent, _) => parent.name(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::Field(parent, _) | Self::Item(parent, _) => parent.depth() + 1,
        }
    }

    fn starts_with(&self, first: &str) -> bool {
        match self {
            Self::Root => false,
            Self::Field(Path::Root, name) => *name == first,
            Self::Field(parent, _) | Self::Item(parent, _) => parent.starts_with(first),
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, name) => {
                parent.write(text);
                // Writing to a string cannot fail.
                let _ = match (name.contains(['.', '/']), text.is_empty()) {
                    (true, _) => write!(text, "[{name}]"),
                    (false, true) => write!(text, "{name}"),
                    (false, false) => write!(text, ".{name}"),
                };
            }
            Self::Item(parent, item) => {
                parent.write(text);
                let _ = write!(text, "[{item}]");
            }
        }
    }
}

/// How the items of a list are told apart. A server's own answer is in what we own; these tables are for lists that we do
/// not own yet, and for Kubernetes' own kinds: lists of custom resources go as a whole unless we know better.
enum ListKind<'a> {
    /// By some of their fields.
    Keyed(Vec<&'a str>),
    /// Each is itself.
    Set,
    /// The list only goes as a whole.
    Atomic,
}

const LIST_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("schedulingGates", &["name"]),
    ("conditions", &["type"]),
    ("ownerReferences", &["uid"]),
    ("listeners", &["name"]),
    ("webhooks", &["name"]),
];

/// Lists whose items are texts and merge as a set.
const SETS: &[&str] = &["finalizers"];

/// Lists with keys in which the order means something: `$(VAR)` reads variables before it, init containers run in turn.
const ORDERED: &[&str] = &["env", "initContainers"];

/// Fields below which texts are quantities.
const QUANTITIES: &[&str] = &[
    "limits",
    "requests",
    "capacity",
    "hard",
    "default",
    "defaultRequest",
    "min",
    "max",
    "podFixed",
    "sizeLimit",
    "averageValue",
    "value",
    "divisor",
];

fn list_kind<'a>(
    path: &Path<'_>,
    items: &[Value],
    owned: Option<&'a Value>,
    parts: &'a mut Option<Value>,
) -> ListKind<'a> {
    if let Some(owned) = owned.and_then(Value::as_object) {
        let part = |prefix: &str| owned.keys().find_map(|part| part.strip_prefix(prefix));
        if let Some(keys) = part("k:") {
            *parts = serde_json::from_str(keys).ok();
            let keys = parts.as_ref().and_then(Value::as_object).map(|keys| keys.keys().map(String::as_str).collect());
            return keys.map_or(ListKind::Atomic, ListKind::Keyed);
        }
        return if part("v:").is_some() { ListKind::Set } else { ListKind::Atomic };
    }
    let name = path.name();
    if SETS.contains(&name) {
        return ListKind::Set;
    }
    let keys: &[&str] = match (name, path) {
        ("ports", Path::Field(parent, _)) if matches!(parent.name(), "containers" | "initContainers") => {
            &["containerPort", "protocol"]
        }
        ("ports", Path::Field(Path::Field(Path::Root, "spec"), _)) => &["port", "protocol"],
        _ => LIST_KEYS.iter().find(|(list, _)| *list == name).map_or(&[], |(_, keys)| *keys),
    };
    let has = |key: &&str| *key == "protocol" || items.iter().all(|item| item.get(key).is_some());
    if keys.is_empty() || !keys.iter().all(has) { ListKind::Atomic } else { ListKind::Keyed(keys.to_vec()) }
}

/// Whether the kind is Kubernetes' own, so that the tables hold for it.
fn is_builtin(object: &Object) -> bool {
    let group = object.kind().group;
    !group.contains('.') || group.ends_with(".k8s.io")
}

/// Returns a key's value, with the default that a server gives it.
fn key_value<'v>(item: &'v Value, key: &str) -> &'v Value {
    static TCP: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::String("TCP".to_owned()));
    match item.get(key) {
        Some(value) => value,
        None if key == "protocol" => &TCP,
        None => &Value::Null,
    }
}

fn same_item(a: &Value, b: &Value, keys: &[&str]) -> bool {
    keys.iter().all(|key| key_value(a, key) == key_value(b, key))
}

fn item_name(item: &Value, keys: &[&str]) -> String {
    let shown = keys.iter().filter_map(|key| {
        let value = item.get(*key)?;
        Some(format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    });
    shown.collect::<Vec<_>>().join(",")
}

/// Values that a server drops, so that sending them is the same as not sending them.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

struct Comparison {
    changes: Vec<FieldChange>,
    /// Whether values of `data` must not be shown.
    secret: bool,
    /// Whether the tables of lists hold.
    builtin: bool,
    /// Whether we applied the live object before: then a list that we do not own was taken over by somebody.
    applied: bool,
    /// Whether this is inside of an atomic list, where every list is one.
    whole: bool,
}

impl Comparison {
    fn changed(&mut self, path: &Path<'_>, from: Option<&Value>, to: Option<&Value>) {
        let hidden = self.secret && (path.starts_with("data") || path.starts_with("stringData"));
        let shown = |value: &Value| match value {
            Value::Object(members) if hidden => members
                .iter()
                .map(|(name, value)| (name.clone(), Value::String(hashed("data", value))))
                .collect::<Map<_, _>>()
                .into(),
            value if hidden => Value::String(hashed("data", value)),
            value => value.clone(),
        };
        let mut text = String::new();
        path.write(&mut text);
        self.changes.push(FieldChange { path: text, from: from.map(shown), to: to.map(shown) });
    }

    /// Compares one field that is sent. `owned` is what we own below it.
    fn value(&mut self, path: &Path<'_>, desired: &Value, live: Option<&Value>, owned: Option<&Value>) {
        match (desired, live) {
            (desired, None) if is_empty(desired) => {}
            (_, None) => self.changed(path, None, Some(desired)),
            (Value::Object(desired), Some(Value::Object(live))) => self.map(path, Some(desired), Some(live), owned),
            (Value::Array(desired), Some(Value::Array(live))) => self.list(path, desired, live, owned),
            (desired, Some(live)) => {
                if !same_scalar(path, desired, live) {
                    self.changed(path, Some(live), Some(desired));
                }
            }
        }
    }

    fn map(
        &mut self,
        path: &Path<'_>,
        desired: Option<&Map<String, Value>>,
        live: Option<&Map<String, Value>>,
        owned: Option<&Value>,
    ) {
        let (Some(desired), Some(live)) = (desired, live) else { return };
        // Sent as a whole, it goes as a whole. In other maps of that kind the API server fills in what it defaults.
        let is_whole = self.builtin && owned.and_then(Value::as_object).is_some_and(Map::is_empty);
        let is_selector = matches!(path.name(), "selector" | "nodeSelector");
        if is_whole && is_selector && !desired.is_empty() && has_more(live, desired) {
            return self.changed(path, Some(&live.clone().into()), Some(&desired.clone().into()));
        }
        for (name, value) in desired {
            // Sending null is the same as not sending it.
            if value.is_null() || is_identity(path, name) {
                continue;
            }
            let below = owned.and_then(|owned| field(owned, name));
            self.value(&Path::Field(path, name), value, live.get(name), below);
        }
        for (name, below) in owned.and_then(Value::as_object).into_iter().flatten() {
            let Some(name) = name.strip_prefix("f:") else { continue };
            let gone = desired.get(name).is_none_or(Value::is_null) && !is_identity(path, name);
            if let Some(value) = live.get(name).filter(|_| gone) {
                self.removed(&Path::Field(path, name), value, below);
            }
        }
    }

    /// Notes what goes of a field that is no longer sent: all of it where we own it whole, else the parts that we own.
    fn removed(&mut self, path: &Path<'_>, live: &Value, owned: &Value) {
        let parts = owned.as_object().filter(|parts| parts.keys().any(|part| part != "."));
        let Some(parts) = parts else {
            return self.changed(path, Some(live), None);
        };
        for (part, below) in parts {
            if let Some(name) = part.strip_prefix("f:") {
                if let Some(value) = live.get(name) {
                    self.removed(&Path::Field(path, name), value, below);
                }
            } else if let Some(item) = owned_item(part, live) {
                self.changed(&Path::Item(path, part[2..].to_owned()), Some(item), None);
            }
        }
    }

    fn list(&mut self, path: &Path<'_>, desired: &[Value], live: &[Value], owned: Option<&Value>) {
        let mut parts = None;
        let kind = match owned {
            _ if self.whole => ListKind::Atomic,
            None if !self.builtin && path.name() != "finalizers" => ListKind::Atomic,
            owned => list_kind(path, desired, owned, &mut parts),
        };
        match kind {
            ListKind::Atomic => return self.atomic(path, desired, live, owned),
            ListKind::Keyed(keys) => self.keyed(path, desired, live, &keys, owned),
            ListKind::Set => {
                for item in desired.iter().filter(|item| !live.contains(item)) {
                    self.changed(path, None, Some(item));
                }
            }
        }
        for part in owned.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            let Some(item) = owned_item_of(part, live) else { continue };
            if owned_item_of(part, desired).is_none() {
                self.changed(&Path::Item(path, part[2..].to_owned()), Some(item), None);
            }
        }
    }

    fn keyed(&mut self, path: &Path<'_>, desired: &[Value], live: &[Value], keys: &[&str], owned: Option<&Value>) {
        let mut last = None;
        for item in desired {
            let at = live.iter().position(|live| same_item(item, live, keys));
            let Some(at) = at else {
                self.changed(&Path::Item(path, item_name(item, keys)), None, Some(item));
                continue;
            };
            if ORDERED.contains(&path.name()) && last.is_some_and(|last| at < last) {
                return self.changed(path, Some(&order(live, keys)), Some(&order(desired, keys)));
            }
            last = Some(at);
            let below = owned.and_then(|owned| keyed_field(owned, item));
            // Comparing first without a name: unchanged items need none.
            let before = self.changes.len();
            self.value(&Path::Item(path, String::new()), item, live.get(at), below);
            if self.changes.len() > before {
                self.changes.truncate(before);
                self.value(&Path::Item(path, item_name(item, keys)), item, live.get(at), below);
            }
        }
    }

    /// Compares a list that only goes as a whole.
    fn atomic(&mut self, path: &Path<'_>, desired: &[Value], live: &[Value], owned: Option<&Value>) {
        let same_one = |desired: &Value, live: &Value| {
            if owned.is_none() && self.applied && !self.whole {
                return desired == live || same_scalar(path, desired, live);
            }
            let mut inner = Self { changes: Vec::new(), secret: false, whole: true, ..*self };
            inner.value(&Path::Item(path, String::new()), desired, Some(live), None);
            inner.changes.is_empty()
        };
        let same =
            desired.len() == live.len() && desired.iter().zip(live).all(|(desired, live)| same_one(desired, live));
        if !same {
            let (from, to) = (Value::Array(live.to_vec()), Value::Array(desired.to_vec()));
            self.changed(path, Some(&from), Some(&to));
        }
    }
}

/// Returns whether one map has members that the other lacks.
fn has_more(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    one.keys().any(|name| !other.contains_key(name))
}

fn same_scalar(path: &Path<'_>, desired: &Value, live: &Value) -> bool {
    if desired == live {
        return true;
    }
    match (desired, live) {
        (Value::Number(a), Value::Number(b)) if !is_quantity(path) => a.as_f64() == b.as_f64(),
        (Value::Number(_) | Value::String(_), Value::Number(_) | Value::String(_)) if is_quantity(path) => {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            same_amount(&text(desired), &text(live))
        }
        _ => false,
    }
}

/// Whether texts at this path are quantities: below `limits`, `requests` and the like, or named so themselves.
fn is_quantity(path: &Path<'_>) -> bool {
    match path {
        Path::Root => false,
        Path::Field(parent, name) => {
            !path.starts_with("data")
                && (QUANTITIES.contains(&parent.name()) || (QUANTITIES.contains(name) && name != &"value"))
                || (*name == "value" && matches!(parent.name(), "target"))
        }
        Path::Item(..) => false,
    }
}

/// Fields that say which object it is: they are never changed by applying.
fn is_identity(path: &Path<'_>, name: &str) -> bool {
    match path.depth() {
        0 => matches!(name, "apiVersion" | "kind" | "status"),
        1 => {
            path.starts_with("metadata")
                && matches!(
                    name,
                    "name"
                        | "namespace"
                        | "uid"
                        | "resourceVersion"
                        | "managedFields"
                        | "creationTimestamp"
                        | "generation"
                )
        }
        _ => false,
    }
}

/// Returns what we own of a field, without making its `f:` name.
fn field<'v>(owned: &'v Value, name: &str) -> Option<&'v Value> {
    let members = owned.as_object()?.iter();
    members.into_iter().find(|(key, _)| key.strip_prefix("f:") == Some(name)).map(|(_, below)| below)
}

/// Returns what we own of an item of a list with keys.
fn keyed_field<'v>(owned: &'v Value, item: &Value) -> Option<&'v Value> {
    owned.as_object()?.iter().find(|(part, _)| is_part(part, item)).map(|(_, below)| below)
}

/// Whether `k:{"name":"web"}` or `v:"text"` names an item.
fn is_part(part: &str, item: &Value) -> bool {
    let Some((kind @ ("k" | "v"), text)) = part.split_once(':') else { return false };
    let Ok(named) = serde_json::from_str::<Value>(text) else { return false };
    match (kind, named) {
        ("k", Value::Object(keys)) => keys.iter().all(|(key, value)| key_value(item, key) == value),
        (_, named) => &named == item,
    }
}

fn owned_item<'v>(part: &str, live: &'v Value) -> Option<&'v Value> {
    live.as_array().and_then(|items| owned_item_of(part, items))
}

fn owned_item_of<'v>(part: &str, items: &'v [Value]) -> Option<&'v Value> {
    items.iter().find(|item| is_part(part, item))
}

fn order(items: &[Value], keys: &[&str]) -> Value {
    items.iter().map(|item| item_name(item, keys)).collect::<Vec<_>>().into()
}
