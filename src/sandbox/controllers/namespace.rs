//! Namespaces that are deleted: everything in them goes first.

use super::{Change, Controller, Outcome, View};
use crate::sandbox::{
    cache::{Cache, Key},
    value,
    write::Write,
};

/// Empties namespaces.
#[derive(Debug, Default)]
pub struct NamespaceController;

impl Controller for NamespaceController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        if change.is("namespaces") {
            return change.key().into_iter().collect();
        }
        let Some(key) = change.key() else { return Vec::new() };
        let Some(namespace) = cache.get("namespaces", "", &key.namespace) else { return Vec::new() };
        if !value::is_terminating(namespace) {
            return Vec::new();
        }
        vec![Key { resource: "namespaces".into(), namespace: String::new(), name: key.namespace }]
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(namespace) = view.cache.at(key).filter(|it| value::is_terminating(it)) else {
            return Outcome::default();
        };
        let mut content = view.cache.in_namespace(&key.name).peekable();
        if content.peek().is_none() {
            return vec![Write::Finalize(namespace.as_ref().clone())].into();
        }
        content.filter(|(_, it)| !value::is_terminating(it)).map(|(key, it)| Write::delete(key, it)).collect()
    }
}
