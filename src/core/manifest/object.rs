//! One Kubernetes object, as JSON, with the few fields that everything asks for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::cluster::{Kind, ObjectKey};

/// One Kubernetes object. Always a JSON object with `apiVersion`, `kind` and `metadata.name`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(pub Value);

impl Object {
    /// Returns the value at a path of field names, `["spec", "replicas"]`.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.0, |value, name| value.get(name))
    }

    /// Returns the text at a path of field names; "" where there is none.
    pub fn text(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the number at a path of field names.
    pub fn number(&self, path: &[&str]) -> Option<i64> {
        self.at(path).and_then(Value::as_i64)
    }

    /// Returns the time at a path of field names.
    pub fn time(&self, path: &[&str]) -> Option<Timestamp> {
        self.at(path)?.as_str()?.parse().ok()
    }

    /// Sets the value at a path of field names, making objects on the way.
    pub fn set(&mut self, path: &[&str], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut here = &mut self.0;
        for name in parents {
            if !here.is_object() {
                *here = Value::Object(Map::new());
            }
            here = &mut here[*name];
        }
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        here[*last] = value;
    }

    /// Removes the value at a path of field names and returns it.
    pub fn remove(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let parent = parents.iter().try_fold(&mut self.0, |value, name| value.get_mut(name))?;
        parent.as_object_mut()?.remove(*last)
    }

    /// Returns the kind with its version.
    pub fn kind(&self) -> Kind {
        Kind::from_api_version(self.text(&["apiVersion"]), self.text(&["kind"]))
    }

    /// Returns what identifies the object.
    pub fn key(&self) -> ObjectKey {
        let kind = self.kind();
        ObjectKey {
            group: kind.group,
            kind: kind.kind,
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    /// Returns `metadata.name`.
    pub fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    /// Returns `metadata.namespace`, "" where there is none.
    pub fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    /// Returns `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }

    /// Returns `metadata.resourceVersion`.
    pub fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }

    /// Returns the value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.at(&["metadata", "labels", name]).and_then(Value::as_str)
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.at(&["metadata", "annotations", name]).and_then(Value::as_str)
    }

    /// Returns all labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        strings(self.at(&["metadata", "labels"]))
    }

    /// Returns whether the object is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.at(&["metadata", "deletionTimestamp"]).is_some()
    }

    /// Returns the owner that controls the object, as (kind, name, uid).
    pub fn controller(&self) -> Option<(&str, &str, &str)> {
        let owners = self.at(&["metadata", "ownerReferences"])?.as_array()?;
        let owner = owners.iter().find(|owner| owner["controller"] == Value::Bool(true))?;
        Some((owner["kind"].as_str()?, owner["name"].as_str()?, owner["uid"].as_str()?))
    }
}

/// Returns a JSON object's text members.
pub fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
