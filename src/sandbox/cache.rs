//! What is known of the cluster: objects by kind and name, and the indexes that controllers ask for.
//!
//! It is fed from the watch log only, so that a change costs what changed and nothing is ever scanned anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::value;

/// Where an object is: resource (`pods`, `deployments.apps`), namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The resource, with its group: `replicasets.apps`.
    pub resource: Arc<str>,
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// Returns the key of an object.
    pub fn of(resource: &Arc<str>, object: &Value) -> Self {
        Self {
            resource: resource.clone(),
            namespace: value::namespace(object).to_owned(),
            name: value::name(object).to_owned(),
        }
    }
}

type Named = BTreeMap<String, Arc<Value>>;

/// Objects as last seen, with indexes.
#[derive(Debug, Default)]
pub struct Cache {
    objects: BTreeMap<Arc<str>, BTreeMap<String, Named>>,
    by_uid: BTreeMap<String, Key>,
    dependents: BTreeMap<String, BTreeSet<Key>>,
    controlled_pods: BTreeMap<String, Named>,
    orphan_pods: BTreeMap<String, Named>,
    node_pods: BTreeMap<String, BTreeMap<String, Arc<Value>>>,
}

impl Cache {
    /// Takes in one change: `now` is the object as it is, `None` when it is gone.
    pub fn apply(&mut self, resource: &Arc<str>, before: Option<&Arc<Value>>, now: Option<&Arc<Value>>) {
        if let Some(object) = before {
            self.forget(resource, object);
        }
        if let Some(object) = now {
            self.learn(resource, object);
        }
    }

    fn forget(&mut self, resource: &Arc<str>, object: &Value) {
        let key = Key::of(resource, object);
        if let Some(named) = self.objects.get_mut(resource).and_then(|spaces| spaces.get_mut(&key.namespace)) {
            named.remove(&key.name);
        }
        self.by_uid.remove(value::uid(object));
        for owner in value::items(object, &["metadata", "ownerReferences"]) {
            remove_from(&mut self.dependents, value::text(owner, &["uid"]), |keys| {
                keys.remove(&key);
                keys.is_empty()
            });
        }
        if &**resource != "pods" {
            return;
        }
        let drop = |named: &mut Named| {
            named.remove(&key.name);
            named.is_empty()
        };
        match value::controller_of(object) {
            Some(owner) => remove_from(&mut self.controlled_pods, value::text(owner, &["uid"]), drop),
            None => remove_from(&mut self.orphan_pods, &key.namespace, drop),
        }
        remove_from(&mut self.node_pods, value::text(object, &["spec", "nodeName"]), |pods| {
            pods.remove(value::uid(object));
            pods.is_empty()
        });
    }

    fn learn(&mut self, resource: &Arc<str>, object: &Arc<Value>) {
        let key = Key::of(resource, object);
        self.by_uid.insert(value::uid(object).to_owned(), key.clone());
        for owner in value::items(object, &["metadata", "ownerReferences"]) {
            self.dependents.entry(value::text(owner, &["uid"]).to_owned()).or_default().insert(key.clone());
        }
        if &**resource == "pods" {
            let named = match value::controller_of(object) {
                Some(owner) => self.controlled_pods.entry(value::text(owner, &["uid"]).to_owned()).or_default(),
                None => self.orphan_pods.entry(key.namespace.clone()).or_default(),
            };
            named.insert(key.name.clone(), object.clone());
            let node = value::text(object, &["spec", "nodeName"]);
            if !node.is_empty() {
                let pods = self.node_pods.entry(node.to_owned()).or_default();
                pods.insert(value::uid(object).to_owned(), object.clone());
            }
        }
        let spaces = self.objects.entry(resource.clone()).or_default();
        spaces.entry(key.namespace).or_default().insert(key.name, object.clone());
    }

    /// Returns an object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(resource)?.get(namespace)?.get(name)
    }

    /// Returns the object at a key.
    pub fn at(&self, key: &Key) -> Option<&Arc<Value>> {
        self.get(&key.resource, &key.namespace, &key.name)
    }

    /// Returns a resource's objects in one namespace ("" for objects of the cluster), by name.
    pub fn list<'a>(&'a self, resource: &str, namespace: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.objects.get(resource).and_then(|spaces| spaces.get(namespace)).into_iter().flat_map(Named::values)
    }

    /// Returns a resource's objects everywhere, by namespace and name.
    pub fn all<'a>(&'a self, resource: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.objects.get(resource).into_iter().flat_map(BTreeMap::values).flat_map(Named::values)
    }

    /// Returns every object in a namespace with its key.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (Key, &'a Arc<Value>)> {
        self.objects.iter().flat_map(move |(resource, spaces)| {
            let named = spaces.get(namespace).into_iter().flat_map(Named::values);
            named.map(move |object| (Key::of(resource, object), object))
        })
    }

    /// Returns where the object with a UID is.
    pub fn by_uid(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid)
    }

    /// Returns the objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// Returns the pods that the owner with a UID controls, by name.
    pub fn pods_of<'a>(&'a self, owner_uid: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.controlled_pods.get(owner_uid).into_iter().flat_map(Named::values)
    }

    /// Returns the pods of a namespace that nobody controls, by name.
    pub fn orphan_pods<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.orphan_pods.get(namespace).into_iter().flat_map(Named::values)
    }

    /// Returns the pods that are bound to a node, by UID.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        self.node_pods.get(node).into_iter().flat_map(BTreeMap::values)
    }
}

fn remove_from<V>(index: &mut BTreeMap<String, V>, at: &str, remove: impl FnOnce(&mut V) -> bool) {
    if let Some(entry) = index.get_mut(at)
        && remove(entry)
    {
        index.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: Option<&str>, node: Option<&str>) -> Arc<Value> {
        let owners = owner.map(|uid| json!([{"uid": uid, "controller": true}])).unwrap_or(json!([]));
        Arc::new(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "ownerReferences": owners},
            "spec": {"nodeName": node},
        }))
    }

    #[test]
    fn a_pod_that_changes_hands_is_found_under_its_new_owner_only() {
        let pods: Arc<str> = "pods".into();
        let mut cache = Cache::default();
        let mine = pod("a", Some("rs-1"), None);
        cache.apply(&pods, None, Some(&mine));
        assert_eq!(cache.pods_of("rs-1").count(), 1);
        let orphan = pod("a", None, Some("dca-1"));
        cache.apply(&pods, Some(&mine), Some(&orphan));
        assert_eq!(cache.pods_of("rs-1").count(), 0);
        assert_eq!(cache.dependents("rs-1").count(), 0);
        assert_eq!(cache.orphan_pods("shop").count(), 1);
        assert_eq!(cache.pods_on("dca-1").count(), 1);
        cache.apply(&pods, Some(&orphan), None);
        assert_eq!(cache.all("pods").count() + cache.pods_on("dca-1").count(), 0);
        assert!(cache.by_uid("uid-a").is_none());
    }
}
