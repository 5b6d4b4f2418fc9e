//! PodDisruptionBudgets: how many pods may be taken away now. The API server's eviction reads it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Change, Controller, Outcome, View,
    pods::{self, set_condition},
};
use crate::sandbox::{
    cache::{Cache, Key},
    selector, value,
    write::Write,
};

/// Keeps the status of budgets.
#[derive(Debug)]
pub struct DisruptionController {
    resource: Arc<str>,
}

impl Default for DisruptionController {
    fn default() -> Self {
        Self { resource: "poddisruptionbudgets.policy".into() }
    }
}

impl Controller for DisruptionController {
    fn concerns(&mut self, change: &Change<'_>, cache: &Cache) -> Vec<Key> {
        let Some(key) = change.key() else { return Vec::new() };
        if change.is("poddisruptionbudgets.policy") {
            return vec![key];
        }
        if !change.is("pods") {
            return Vec::new();
        }
        // Only the newest labels are looked at: a budget does not notice that a pod no longer matches.
        let selects = |budget: &&Arc<Value>| change.now.or(change.before).is_some_and(|pod| covers(budget, pod));
        let budgets = cache.list(&self.resource, &key.namespace).filter(selects);
        budgets.map(|budget| Key::of(&self.resource, budget)).collect()
    }

    fn reconcile(&mut self, key: &Key, view: &View<'_>) -> Outcome {
        let Some(budget) = view.cache.at(key) else { return Outcome::default() };
        let pods = view.cache.list("pods", &key.namespace).filter(|pod| covers(budget, pod));
        let pods: Vec<&Arc<Value>> = pods.filter(|pod| !pods::is_finished(pod)).collect();
        let expected = expected(&pods, view.cache);
        let wanted = match value::at(budget, &["spec", "maxUnavailable"]) {
            Some(most) => (expected - value::int_or_percent(Some(most), expected, true, "0%")).max(0),
            None => value::int_or_percent(value::at(budget, &["spec", "minAvailable"]), expected, true, "0%"),
        };
        let healthy = pods.iter().filter(|pod| !value::is_terminating(pod) && pods::is_ready(pod)).count();
        let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
        let allowed = if expected == 0 { 0 } else { (healthy - wanted).max(0) };
        let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        let mut conditions = value::items(budget, &["status", "conditions"]).to_vec();
        let generation = value::number(budget, &["metadata", "generation"]);
        let condition = json!({
            "type": "DisruptionAllowed", "status": state, "reason": reason, "message": "",
            "observedGeneration": generation,
        });
        set_condition(&mut conditions, condition, view.now);
        let status = json!({
            "currentHealthy": healthy, "desiredHealthy": wanted, "disruptionsAllowed": allowed,
            "expectedPods": expected, "observedGeneration": generation, "conditions": conditions,
        });
        Write::status(budget, status).into_iter().collect()
    }
}

fn covers(budget: &Value, pod: &Value) -> bool {
    selector::selects(value::at(budget, &["spec", "selector"]), selector::labels_of(pod))
}

/// Counts the pods that there should be: what their controllers ask for, and one for each pod that has none.
fn expected(pods: &[&Arc<Value>], cache: &Cache) -> i64 {
    let mut controllers: Vec<&str> = Vec::new();
    let mut expected = 0;
    for pod in pods {
        match value::controller_of(pod).map(|owner| value::text(owner, &["uid"])) {
            Some(uid) if controllers.contains(&uid) => {}
            Some(uid) => {
                controllers.push(uid);
                let owner = cache.by_uid(uid).and_then(|key| cache.at(key));
                expected += owner.map_or(1, |owner| value::number_or(owner, &["spec", "replicas"], 1));
            }
            None => expected += 1,
        }
    }
    expected
}
