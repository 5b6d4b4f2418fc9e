//! What is known of the cluster: watch events folded into a cache with the few indexes that deciding needs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::{
    kept::{Kept, NamedRecord},
    labels,
};
use crate::core::{
    cluster::{ClusterEvent, Kind, ObjectKey},
    manifest::Object,
    names::AppName,
};

/// The cache. Cheap to ask for an application's objects, whatever else there is.
#[derive(Clone, Debug, Default)]
pub struct View {
    objects: BTreeMap<ObjectKey, Kept>,
    by_app: HashMap<String, BTreeSet<ObjectKey>>,
    /// By pod UID: the EndpointSlices that name it.
    served: HashMap<String, BTreeSet<ObjectKey>>,
    kinds: BTreeMap<(String, String), KindState>,
    gone: Gone,
}

/// How many deleted objects are remembered: answers to requests are not that late.
const REMEMBERED: usize = 4096;

/// UIDs that are gone for good. What a late answer says of them is no news: nothing would ever tell that they are gone again.
#[derive(Clone, Debug, Default)]
struct Gone {
    uids: HashSet<String>,
    order: VecDeque<String>,
}

impl Gone {
    fn note(&mut self, uid: &str) {
        if !uid.is_empty() && self.uids.insert(uid.to_owned()) {
            self.order.push_back(uid.to_owned());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct KindState {
    listed: bool,
    highest: u64,
    lost: Option<String>,
    regressed: bool,
}

/// Which applications an event may concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Nobody's.
    Nothing,
    /// These.
    Apps(BTreeSet<AppName>),
    /// Perhaps everybody's: a list, or a kind that all look at.
    Everything,
}

fn kind_key(kind: &Kind) -> (String, String) {
    (kind.group.clone(), kind.kind.clone())
}

fn number(resource_version: &str) -> u64 {
    resource_version.parse().unwrap_or(0)
}

impl View {
    /// Folds an event.
    pub fn take(&mut self, event: ClusterEvent) -> Touched {
        match event {
            ClusterEvent::Listed { kind, objects, resource_version } => self.replace(&kind, objects, &resource_version),
            ClusterEvent::Applied(object) => self.put(object),
            ClusterEvent::Deleted(object) => {
                let key = object.key();
                self.gone.note(object.uid());
                // A deletion of an older object with this name says nothing about the one that is known.
                match self.objects.get(&key) {
                    Some(known) if *known.uid == *object.uid() => self.drop_key(&key),
                    _ => Touched::Nothing,
                }
            }
            ClusterEvent::Lost { kind, reason } => {
                self.kinds.entry(kind_key(&kind)).or_default().lost = Some(reason);
                Touched::Everything
            }
        }
    }

    fn replace(&mut self, kind: &Kind, objects: Vec<Object>, resource_version: &str) -> Touched {
        let at = number(resource_version);
        let state = self.kinds.entry(kind_key(kind)).or_default();
        // A server that lags behind what was seen before (or was restored from a backup) must not take us back.
        state.regressed = at < state.highest;
        if state.regressed {
            return Touched::Everything;
        }
        state.listed = true;
        state.lost = None;
        state.highest = at;
        let listed: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
        let known = self.keys_of_kind(&kind.group, &kind.kind).map(|(key, _)| key);
        let gone: Vec<ObjectKey> = known.filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.forget(&key);
        }
        for object in objects {
            self.put(object);
        }
        Touched::Everything
    }

    /// Takes what a write returned or a watch said, unless something newer is known.
    pub fn put(&mut self, object: Object) -> Touched {
        if self.gone.uids.contains(object.uid()) {
            return Touched::Nothing;
        }
        let key = object.key();
        let version = number(object.resource_version());
        if let Some(known) = self.objects.get(&key)
            && known.version >= version
            && *known.uid == *object.uid()
        {
            return Touched::Nothing;
        }
        let state = self.kinds.entry((key.group.clone(), key.kind.clone())).or_default();
        state.highest = state.highest.max(version);
        let mut touched = self.drop_key(&key);
        if let Some(app) = object.label(labels::APP) {
            self.by_app.entry(app.to_owned()).or_default().insert(key.clone());
            merge(&mut touched, Touched::Apps([AppName::new(app)].into()));
        }
        merge(&mut touched, self.app_of_owner(&object));
        // A person's abort while Git is away is written there: nothing else would tell of it.
        if let Some(app) = object.label(labels::ANCHOR).filter(|_| object.at(&["data", labels::ANCHOR_ABORT]).is_some())
        {
            merge(&mut touched, Touched::Apps([AppName::new(app)].into()));
        }
        if key.kind == "EndpointSlice" {
            for uid in endpoint_uids(&object) {
                self.served.entry(uid).or_default().insert(key.clone());
            }
            merge(&mut touched, self.apps_of_endpoints(&object));
        }
        if concerns_everybody(&key) {
            touched = Touched::Everything;
        }
        self.objects.insert(key, Kept::new(&object, version));
        touched
    }

    /// Forgets an object that is known to be gone.
    pub fn forget(&mut self, key: &ObjectKey) -> Touched {
        if let Some(known) = self.objects.get(key) {
            self.gone.note(&known.uid);
        }
        self.drop_key(key)
    }

    fn drop_key(&mut self, key: &ObjectKey) -> Touched {
        let Some(old) = self.objects.remove(key) else { return Touched::Nothing };
        let mut touched = Touched::Nothing;
        if let Some(app) = old.app.as_deref() {
            if let Some(keys) = self.by_app.get_mut(app) {
                keys.remove(key);
            }
            touched = Touched::Apps([AppName::new(app)].into());
        }
        if old.app.is_none() && matches!(key.kind.as_str(), "Pod" | "ReplicaSet") {
            merge(&mut touched, self.app_of_owner(old.object()));
        }
        if concerns_everybody(key) {
            touched = Touched::Everything;
        }
        if key.kind == "EndpointSlice" {
            merge(&mut touched, self.apps_of_endpoints(old.object()));
            for uid in endpoint_uids(old.object()) {
                if let Some(keys) = self.served.get_mut(&uid) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.served.remove(&uid);
                    }
                }
            }
        }
        touched
    }

    /// Whose a ReplicaSet or pod is that carries no label of ours: that of the Deployment above it.
    fn app_of_owner(&self, object: &Object) -> Touched {
        if object.label(labels::APP).is_some() {
            return Touched::Nothing;
        }
        let owner = |object: &Object, kind: &str, owner_kind: &str| {
            let (_, name, _) = object.controller().filter(|(owner, ..)| *owner == owner_kind)?;
            (object.text(&["kind"]) == kind).then(|| self.get("apps", owner_kind, object.namespace(), name)).flatten()
        };
        let deployment = match object.text(&["kind"]) {
            "Pod" => owner(object, "Pod", "ReplicaSet").and_then(|set| owner(set, "ReplicaSet", "Deployment")),
            _ => owner(object, "ReplicaSet", "Deployment"),
        };
        match deployment.and_then(|deployment| deployment.label(labels::APP)) {
            Some(app) => Touched::Apps([AppName::new(app)].into()),
            None => Touched::Nothing,
        }
    }

    fn apps_of_endpoints(&self, slice: &Object) -> Touched {
        let mut apps = BTreeSet::new();
        let endpoints = slice.at(&["endpoints"]).and_then(|list| list.as_array()).into_iter().flatten();
        for endpoint in endpoints {
            let name = endpoint["targetRef"]["name"].as_str().unwrap_or_default();
            let pod = self.objects.get(&ObjectKey {
                group: String::new(),
                kind: "Pod".to_owned(),
                namespace: slice.namespace().to_owned(),
                name: name.to_owned(),
            });
            if let Some(app) = pod.and_then(|pod| pod.app.as_deref()) {
                apps.insert(AppName::new(app));
            }
        }
        if apps.is_empty() { Touched::Nothing } else { Touched::Apps(apps) }
    }

    /// Returns one object.
    pub fn get(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        let key = ObjectKey { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() };
        self.by_key(&key)
    }

    /// Returns one object.
    pub fn by_key(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key).map(Kept::object)
    }

    /// Closes what was looked at for an application that is at rest: its own objects, and these. They are opened again
    /// when somebody asks.
    pub fn close(&mut self, app: &AppName, others: impl Iterator<Item = ObjectKey>) {
        for key in self.by_app.get(app.as_str()).into_iter().flatten() {
            if let Some(kept) = self.objects.get_mut(key) {
                kept.close();
            }
        }
        for key in others {
            if let Some(kept) = self.objects.get_mut(&key) {
                kept.close();
            }
        }
    }

    /// Returns an application's objects of one kind, by label, in order of namespace and name.
    pub fn of_app<'a>(&'a self, app: &AppName, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        let keys = self.by_app.get(app.as_str()).into_iter().flatten();
        keys.filter(move |key| key.kind == kind).filter_map(|key| self.by_key(key))
    }

    /// Returns the records that an application's objects name.
    pub fn named(&self, app: &AppName) -> impl Iterator<Item = NamedRecord> {
        let keys = self.by_app.get(app.as_str()).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key)?.named.as_deref().copied())
    }

    /// Returns which of an application's objects say that they were put back, as they were seen before: `Kind/name@state`.
    pub fn put_back(&self, app: &AppName) -> impl Iterator<Item = &str> {
        let keys = self.by_app.get(app.as_str()).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key)?.put_back.as_deref())
    }

    /// Returns all objects of one kind, in order of namespace and name.
    pub fn of_kind<'a>(&'a self, group: &str, kind: &str) -> impl Iterator<Item = &'a Object> {
        self.keys_of_kind(group, kind).map(|(_, kept)| kept.object())
    }

    fn keys_of_kind<'a>(&'a self, group: &str, kind: &str) -> impl Iterator<Item = (&'a ObjectKey, &'a Kept)> {
        let from = ObjectKey { group: group.into(), kind: kind.into(), namespace: String::new(), name: String::new() };
        let (group, kind) = (from.group.clone(), from.kind.clone());
        self.objects.range(from..).take_while(move |(key, _)| key.group == group && key.kind == kind)
    }

    /// Returns all objects of one kind in one namespace, in order of name.
    pub fn in_namespace<'a>(&'a self, group: &str, kind: &str, namespace: &str) -> impl Iterator<Item = &'a Object> {
        let from =
            ObjectKey { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: String::new() };
        let (group, kind, namespace) = (from.group.clone(), from.kind.clone(), from.namespace.clone());
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.group == group && key.kind == kind && key.namespace == namespace)
            .map(|(_, kept)| kept.object())
    }

    /// Returns the EndpointSlices that name a pod.
    pub fn serving(&self, pod_uid: &str) -> impl Iterator<Item = &Object> {
        self.served.get(pod_uid).into_iter().flatten().filter_map(|key| self.by_key(key))
    }

    /// Returns whether the objects of a kind have been listed.
    pub fn knows(&self, kind: &Kind) -> bool {
        self.kinds.get(&kind_key(kind)).is_some_and(|state| state.listed)
    }

    /// Returns why a kind cannot be watched now.
    pub fn lost(&self, kind: &Kind) -> Option<&str> {
        self.kinds.get(&kind_key(kind))?.lost.as_deref()
    }

    /// Returns the kinds whose server answered with less than was seen before.
    pub fn regressed(&self) -> Option<String> {
        let (key, _) = self.kinds.iter().find(|(_, state)| state.regressed)?;
        Some(key.1.clone())
    }

    /// Returns how many objects are known.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Returns whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// Returns whether any application may wait for an object to come, or to be gone.
fn concerns_everybody(key: &ObjectKey) -> bool {
    matches!(key.kind.as_str(), "Namespace" | "CustomResourceDefinition")
}

fn endpoint_uids(slice: &Object) -> Vec<String> {
    let endpoints = slice.at(&["endpoints"]).and_then(|list| list.as_array()).into_iter().flatten();
    endpoints.filter_map(|endpoint| endpoint["targetRef"]["uid"].as_str()).map(str::to_owned).collect()
}

fn merge(touched: &mut Touched, more: Touched) {
    *touched = match (std::mem::replace(touched, Touched::Nothing), more) {
        (Touched::Everything, _) | (_, Touched::Everything) => Touched::Everything,
        (Touched::Nothing, other) | (other, Touched::Nothing) => other,
        (Touched::Apps(mut one), Touched::Apps(other)) => {
            one.extend(other);
            Touched::Apps(one)
        }
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, version: &str) -> Object {
        Object(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "one", "namespace": "shop", "uid": uid, "resourceVersion": version },
        }))
    }

    #[test]
    fn an_answer_that_is_later_than_the_deletion_brings_nothing_back() {
        let mut view = View::default();
        view.take(ClusterEvent::Applied(pod("a", "5")));
        view.take(ClusterEvent::Deleted(pod("a", "7")));
        view.put(pod("a", "6"));
        assert!(view.is_empty());
        view.put(pod("b", "8"));
        assert_eq!(view.len(), 1, "another object of that name is another object");
    }

    #[test]
    fn a_namespace_that_is_gone_is_news_for_whoever_waits_to_make_it_anew() {
        let mut view = View::default();
        let space = Object(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "shop", "uid": "a", "resourceVersion": "5" },
        }));
        assert_eq!(view.take(ClusterEvent::Applied(space.clone())), Touched::Everything);
        assert_eq!(view.take(ClusterEvent::Deleted(space)), Touched::Everything);
    }

    #[test]
    fn only_so_many_deletions_are_remembered() {
        let mut gone = Gone::default();
        (0..REMEMBERED + 10).for_each(|number| gone.note(&number.to_string()));
        assert_eq!((gone.uids.len(), gone.order.len()), (REMEMBERED, REMEMBERED));
    }
}
