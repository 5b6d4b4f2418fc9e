//! How a router is told and asked by objects of the cluster: one small trait.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Split;
use crate::core::{
    cluster::{Kind, ObjectKey},
    diff::owned_differs,
    manifest::Object,
    policy::Percent,
};

/// Whether a router does what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It does.
    Yes,
    /// Not yet, and why.
    NotYet(String),
    /// It cannot be known now, and why. Nothing that needs a yes is done.
    CannotTell(String),
}

impl Answer {
    /// Returns this answer, or the other one where this is a yes.
    #[must_use]
    pub fn and_then(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Yes { other() } else { self }
    }
}

/// Why an object cannot carry a split: `no rule of HTTPRoute/shop names the Service checkout`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(pub String);

/// The Services that the two sides are reached by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backends {
    /// The namespace of both.
    pub namespace: String,
    /// The Service that people know, on the side that serves.
    pub stable: String,
    /// The Service of the other side; it is there only while there are two.
    pub canary: String,
}

/// One object that a router is told by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The kind, with its version.
    pub kind: Kind,
    /// Which object.
    pub key: ObjectKey,
}

impl Target {
    /// Names an object in a namespace.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let key = ObjectKey {
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Self { kind, key }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)
    }
}

/// A router that is told by objects of the cluster. Pure: objects in, objects out.
///
/// # Flow
///
/// While there are two sides, every object of [`reads`](Self::reads) is brought to what [`set`](Self::set) makes of it,
/// and those of [`makes`](Self::makes) are there; afterwards to what [`clear`](Self::clear) makes of it, and those of
/// `makes` are removed. An object that the application's own tree renders is given as it is rendered; any other as it
/// is live, and goes back as a patch ([`changes`](super::changes)).
///
/// # Guarantees
///
/// `set` may be repeated, with the same split or another one. Only the two backends' weights, and rules that are
/// recognised as Locktender's, are changed: everything else, known or not, stays as it is given. `clear(set(x))` is `x`.
pub trait Route: Send + Sync {
    /// Returns the people's objects that it reads and changes, at least one.
    fn reads(&self) -> Vec<Target>;

    /// Returns the objects of its own, that are there only while there are two sides.
    fn makes(&self) -> Vec<Target> {
        Vec::new()
    }

    /// Returns all objects, of `reads` and of `makes`, as they should be with a split; `objects` holds those of
    /// `reads`. Fails where one is missing or cannot carry the split.
    fn set(&self, objects: &[Object], split: &Split) -> Result<Vec<Object>, Misfit>;

    /// Returns the objects of `reads` without anything that is Locktender's.
    fn clear(&self, objects: &[Object]) -> Vec<Object>;

    /// Returns the new side's share as the objects have it, the largest where rules differ; nothing without a split.
    fn share(&self, live: &[Object]) -> Percent;

    /// Returns what the router says of its objects as they are; `live`: those of `reads` and `makes`, which are as they
    /// should be.
    fn said(&self, live: &[Object]) -> Answer;

    /// Returns whether the router has taken a split, or, without one, that there is none any more. `live`: the objects
    /// of `reads` and `makes` that are in the cluster.
    fn verify(&self, live: &[Object], split: Option<&Split>) -> Answer {
        let wanted = match split {
            Some(split) => match self.set(live, split) {
                Ok(wanted) => wanted,
                Err(misfit) => return Answer::NotYet(misfit.0),
            },
            None => self.clear(live),
        };
        let reads = self.reads();
        for target in &reads {
            match (find(live, target), find(&wanted, target)) {
                (Err(misfit), _) => return Answer::NotYet(misfit.0),
                (Ok(live), Ok(wanted)) if live == wanted => {}
                _ => return Answer::NotYet(format!("{target}: it does not say so yet")),
            }
        }
        for target in &self.makes() {
            match (find(live, target), find(&wanted, target)) {
                (Ok(_), Err(_)) => return Answer::NotYet(format!("{target}: it is still there")),
                (Err(misfit), Ok(_)) => return Answer::NotYet(misfit.0),
                (Ok(live), Ok(wanted)) if !owned_differs(wanted, live, "").is_empty() => {
                    return Answer::NotYet(format!("{target}: it does not say so yet"));
                }
                _ => {}
            }
        }
        self.said(live)
    }
}

/// Finds an object among some.
pub(super) fn find<'a>(objects: &'a [Object], target: &Target) -> Result<&'a Object, Misfit> {
    let found = objects.iter().find(|object| object.key() == target.key);
    found.ok_or_else(|| Misfit(format!("there is no {target}")))
}

/// Returns the items of a member; none where it is no list.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
