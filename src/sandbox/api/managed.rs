//! `metadata.managedFields`: who set what. Kept for every write, and the ground of server-side apply's conflicts.
//!
//! The rules are those of k8s.io/apimachinery/pkg/util/managedfields.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    fields::{Set, compare, fields_of, item_step},
    patch::apply::{merge, prune},
    status::{Cause, Status},
};
use crate::sandbox::schema::{ListKind, Shape};

/// One manager's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manager {
    name: String,
    applies: bool,
    api_version: String,
    subresource: String,
    time: String,
    set: Set,
}

/// Who writes, and through which door.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// `apps/v1`.
    pub api_version: &'a str,
    /// `status`, `scale`; "" for the object itself.
    pub subresource: &'a str,
    /// When.
    pub now: Timestamp,
}

impl Writer<'_> {
    fn is(&self, manager: &Manager, applies: bool) -> bool {
        manager.applies == applies
            && manager.name == self.manager
            && manager.subresource == self.subresource
            && manager.api_version == self.api_version
    }
}

fn read(object: &Value) -> Vec<Manager> {
    let entries = object["metadata"]["managedFields"].as_array();
    let read = |entry: &Value| Manager { set: Set::from_value(&entry["fieldsV1"]), ..header(entry) };
    entries.into_iter().flatten().map(read).collect()
}

/// Reads an entry but for its fields.
fn header(entry: &Value) -> Manager {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    Manager {
        name: text("manager"),
        applies: entry["operation"] == "Apply",
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: text("time"),
        set: Set::default(),
    }
}

/// Writes the entries in the server's order. `untouched`: entries as they were.
fn write(object: &mut Value, managers: Vec<Manager>, untouched: Vec<(Manager, Value)>) {
    let made = managers.into_iter().filter(|manager| !manager.set.is_empty()).map(|manager| {
        let mut entry = json!({
            "manager": manager.name,
            "operation": if manager.applies { "Apply" } else { "Update" },
            "apiVersion": manager.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": manager.set.to_value(),
        });
        if !manager.subresource.is_empty() {
            entry["subresource"] = manager.subresource.as_str().into();
        }
        // What comes through a scale has no time.
        if manager.subresource != "scale" {
            entry["time"] = manager.time.as_str().into();
        }
        (manager, entry)
    });
    let mut entries: Vec<(Manager, Value)> = made.chain(untouched).collect();
    entries.sort_by(|(a, _), (b, _)| {
        let key = |of: &Manager| (!of.applies, of.time.clone(), of.name.clone(), of.subresource.clone());
        key(a).cmp(&key(b))
    });
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), entries.into_iter().map(|(_, entry)| entry).collect());
    }
}

/// Takes out what nobody owns: what identifies an object, and what the server writes.
fn strip(set: &mut Set) {
    for name in ["apiVersion", "kind"] {
        set.forget(&[name]);
    }
    set.forget_member("metadata");
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.forget(&["metadata", name]);
    }
}

/// Writes into `new` who owns what after `writer` made it of `live`.
pub fn updated(live: Option<&Value>, new: &mut Value, shape: &Shape, writer: Writer<'_>) {
    let empty = json!({});
    let before = live.unwrap_or(&empty);
    // Emptying managedFields gives up all ownership; anything else that is sent for them is not trusted.
    let gives_up = live.is_some()
        && new["metadata"]["managedFields"].as_array().is_some_and(|sent| sent.is_empty() || *sent == [json!({})]);
    let mut difference = compare(before, new, shape);
    for set in [&mut difference.added, &mut difference.modified, &mut difference.removed] {
        strip(set);
    }
    let untouched = live.and_then(|live| live["metadata"].get("managedFields")).cloned();
    if gives_up || difference.is_empty() {
        if let Some(metadata) = new["metadata"].as_object_mut() {
            match untouched.filter(|_| !gives_up) {
                Some(entries) => metadata.insert("managedFields".to_owned(), entries),
                None => metadata.remove("managedFields"),
            };
        }
        return;
    }
    let entries = before["metadata"]["managedFields"].as_array();
    let (mut managers, mut own, mut untouched) = (Vec::new(), None, Vec::new());
    // Most entries are somebody's who has nothing to do with this write: they stay as they are, unread.
    for entry in entries.into_iter().flatten() {
        let manager = header(entry);
        let fields = &entry["fieldsV1"];
        if writer.is(&manager, false) {
            own = Some(Manager { set: Set::from_value(fields), ..manager });
        } else if [&difference.added, &difference.modified, &difference.removed].iter().any(|set| set.touches(fields)) {
            managers.push(Manager { set: Set::from_value(fields), ..manager });
        } else {
            untouched.push((manager, entry.clone()));
        }
    }
    take_from_others(&mut managers, &difference.added, &difference.modified, &difference.removed, writer, false);
    let mut own = own.unwrap_or_else(|| fresh(writer, false));
    let had = own.set.clone();
    own.set.subtract(&difference.removed);
    own.set.add(difference.modified);
    own.set.add(difference.added);
    if own.set != had {
        own.time = at(writer.now);
    }
    managers.push(own);
    write(new, managers, untouched);
}

fn fresh(writer: Writer<'_>, applies: bool) -> Manager {
    Manager {
        name: writer.manager.to_owned(),
        applies,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: at(writer.now),
        set: Set::default(),
    }
}

fn at(now: Timestamp) -> String {
    super::time::seconds(now)
}

fn take_from_others(
    managers: &mut [Manager],
    added: &Set,
    modified: &Set,
    removed: &Set,
    writer: Writer<'_>,
    applies: bool,
) {
    for manager in managers.iter_mut().filter(|manager| !writer.is(manager, applies)) {
        manager.set.subtract(added);
        manager.set.subtract(modified);
        manager.set.subtract(removed);
    }
}

/// Returns what an apply of `config` makes of `live`, with who owns what.
///
/// # Errors
///
/// 409 where fields of other managers would change and `force` is not set; 400 where a list item lacks its key.
pub fn applied(live: &Value, config: &Value, shape: &Shape, writer: Writer<'_>, force: bool) -> Result<Value, Status> {
    let mut managers = read(live);
    let mut sent = fields_of(config, shape);
    strip(&mut sent);
    let mut made = merge(live, config, shape);
    let position = managers.iter().position(|manager| writer.is(manager, true));
    let position = position.unwrap_or_else(|| {
        managers.push(fresh(writer, true));
        managers.len() - 1
    });
    let last = std::mem::replace(&mut managers[position].set, sent);
    // What is sent counts whole, the name too, which nobody owns: `metadata` stays when the last label in it goes.
    let mut owned = fields_of(config, shape);
    for manager in &managers {
        owned.add(manager.set.clone());
    }
    prune(&mut made, &last, &owned, shape);
    let mut difference = compare(live, &made, shape);
    for set in [&mut difference.added, &mut difference.modified, &mut difference.removed] {
        strip(set);
    }
    if !force {
        let mut touched = difference.modified.clone();
        touched.add(difference.added.clone());
        let conflicts: Vec<(&Manager, Set)> = managers
            .iter()
            .filter(|manager| !writer.is(manager, true))
            .map(|manager| (manager, manager.set.intersection(&touched)))
            .filter(|(_, set)| !set.is_empty())
            .collect();
        if !conflicts.is_empty() {
            return Err(refused(&conflicts));
        }
    }
    take_from_others(&mut managers, &difference.added, &difference.modified, &difference.removed, writer, true);
    if made == *live && managers[position].set == last {
        return Ok(made);
    }
    managers[position].time = at(writer.now);
    write(&mut made, managers, Vec::new());
    Ok(made)
}

fn refused(conflicts: &[(&Manager, Set)]) -> Status {
    let name = |manager: &Manager| {
        let mut text = format!("{:?}", manager.name);
        if !manager.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", manager.subresource);
        }
        if manager.applies { text } else { format!("{text} using {}", manager.api_version) }
    };
    let mut all: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|(manager, set)| (name(manager), set.paths())).collect();
    all.sort();
    let count: usize = all.iter().map(|(_, paths)| paths.len()).sum();
    let message = match all.as_slice() {
        [(manager, paths)] if count == 1 => {
            format!("Apply failed with 1 conflict: conflict with {manager}: {}", paths.join(""))
        }
        _ => {
            let parts = all.iter().map(|(manager, paths)| {
                let list: String = paths.iter().map(|path| format!("\n- {path}")).collect();
                format!("conflicts with {manager}:{list}")
            });
            format!("Apply failed with {count} conflicts: {}", parts.collect::<Vec<_>>().join("\n"))
        }
    };
    let mut status = Status::new(409, "Conflict", message);
    for (manager, paths) in all {
        for field in paths {
            let message = format!("conflict with {manager}");
            status.details.causes.push(Cause { reason: "FieldManagerConflict", message, field });
        }
    }
    status
}

/// Checks that every item of a list with keys has them.
///
/// # Errors
///
/// Says which item lacks which key, in the API server's words.
pub fn check_keys(value: &Value, shape: &Shape, problems: &mut Vec<String>) {
    check_keys_at(value, shape, "", problems);
}

fn check_keys_at(value: &Value, shape: &Shape, path: &str, problems: &mut Vec<String>) {
    match (value, shape) {
        (Value::Object(members), _) => {
            for (name, member) in members {
                if let Some(of) = shape.member(name) {
                    check_keys_at(member, of, &format!("{path}.{name}"), problems);
                }
            }
        }
        (Value::Array(items), Shape::List { of, kind }) => {
            let mut steps: Vec<String> = Vec::new();
            for (index, item) in items.iter().enumerate() {
                match (kind, item_step(item, of, kind)) {
                    (ListKind::Map(keys), None) => {
                        let key = keys.iter().find(|key| item.get(*key).is_none()).map_or("", String::as_str);
                        problems.push(format!(
                            "{path}: element {index}: associative list with keys has an element that omits key field \
                             {key:?} (and doesn't have default value)"
                        ));
                    }
                    (_, Some(step)) if steps.contains(&step) => {
                        problems.push(format!("{path}: duplicate entries for key {}", written(&step)));
                    }
                    (_, step) => steps.extend(step),
                }
                check_keys_at(item, of, &format!("{path}[{index}]"), problems);
            }
        }
        _ => {}
    }
}

/// Returns a step into a list as errors write it, `[name="web"]`.
fn written(step: &str) -> String {
    let keys: Value = step.strip_prefix("k:").and_then(|keys| serde_json::from_str(keys).ok()).unwrap_or_default();
    match keys.as_object() {
        Some(keys) => {
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        None => format!("[={}]", step.trim_start_matches("v:")),
    }
}
