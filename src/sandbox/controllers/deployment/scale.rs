//! How many pods each ReplicaSet of a Deployment gets.

use serde_json::Value;

use super::{
    is_rolling, max_surge, max_unavailable,
    replica_sets::{Family, Member},
    replicas,
};
use crate::sandbox::{value, write::Write};

/// Returns the size of the new ReplicaSet: what it has, and what may be added without passing replicas + maxSurge.
pub(super) fn size_of_new(deployment: &Value, family: &Family, has: i64) -> i64 {
    let wanted = replicas(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let total: i64 = family.all().map(|set| set.replicas).sum();
    let room = wanted + max_surge(deployment) - total;
    if room <= 0 { has } else { has + room.min(wanted - has) }
}

/// Brings the new ReplicaSet nearer to the wanted size.
pub(super) fn grow_new(deployment: &Value, family: &Family) -> Vec<Write> {
    let Some(new) = &family.new else { return Vec::new() };
    let wanted = replicas(deployment);
    let size = if new.replicas > wanted { wanted } else { size_of_new(deployment, family, new.replicas) };
    if size == new.replicas { Vec::new() } else { vec![new.scaled(size, deployment)] }
}

/// Takes pods of the old ReplicaSets away: first those that are not available, then as many as may be missing.
pub(super) fn shrink_old(deployment: &Value, family: &Family) -> Vec<Write> {
    let Some(new) = &family.new else { return Vec::new() };
    let min_available = replicas(deployment) - max_unavailable(deployment);
    let total: i64 = family.all().map(|set| set.replicas).sum();
    let new_unavailable = new.replicas - new.status("availableReplicas");
    let most = total - min_available - new_unavailable;
    if most <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i64> = family.old.iter().map(|set| set.replicas).collect();
    let mut left = most;
    for (set, size) in family.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - set.status("availableReplicas")).clamp(0, left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let available: i64 = family.all().map(|set| set.status("availableReplicas")).sum();
    let mut left = (available - min_available).max(0);
    for size in &mut sizes {
        let taken = (*size).min(left);
        *size -= taken;
        left -= taken;
    }
    let changed = family.old.iter().zip(sizes).filter(|(set, size)| set.replicas != *size);
    changed.map(|(set, size)| set.scaled(size, deployment)).collect()
}

/// Follows a change of `replicas`, or of anything while paused, without going on with the rollout.
pub(super) fn scale(deployment: &Value, family: &Family) -> Vec<Write> {
    let wanted = replicas(deployment);
    if let Some(only) = only_active_or_latest(family) {
        return if only.replicas == wanted { Vec::new() } else { vec![only.scaled(wanted, deployment)] };
    }
    if is_saturated(family, wanted) {
        return family.old.iter().filter(|set| set.replicas > 0).map(|set| set.scaled(0, deployment)).collect();
    }
    if is_rolling(deployment) { in_proportion(deployment, family) } else { Vec::new() }
}

/// Returns the one active set, or the newest where none is active; `None` where there are several, or none at all.
fn only_active_or_latest(family: &Family) -> Option<&Member> {
    let mut active = family.active();
    match (active.next(), active.next()) {
        (Some(only), None) => Some(only),
        (None, _) => family.new.as_ref().or(family.old.last()),
        _ => None,
    }
}

fn is_saturated(family: &Family, wanted: i64) -> bool {
    family.new.as_ref().is_some_and(|new| {
        new.replicas == wanted && new.desired_annotation() == Some(wanted) && new.status("availableReplicas") == wanted
    })
}

/// Shares what is to be added or removed out over the active sets, in proportion to their sizes.
fn in_proportion(deployment: &Value, family: &Family) -> Vec<Write> {
    let wanted = replicas(deployment);
    let mut sets: Vec<&Member> = family.active().collect();
    let total: i64 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if wanted > 0 { wanted + max_surge(deployment) } else { 0 };
    let to_add = allowed - total;
    let created = |set: &Member| value::created(&set.object);
    sets.sort_by(|a, b| {
        let by_age = if to_add > 0 { created(b).cmp(&created(a)) } else { created(a).cmp(&created(b)) };
        b.replicas.cmp(&a.replicas).then(by_age)
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = proportion(deployment, set, to_add, added);
        added += share;
        sizes.push(set.replicas + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    sets.iter().zip(sizes).filter_map(|(set, size)| set.scaled_or_annotated(size, deployment)).collect()
}

fn proportion(deployment: &Value, set: &Member, to_add: i64, added: i64) -> i64 {
    if set.replicas == 0 || to_add == added {
        return 0;
    }
    let allowed = to_add - added;
    let share = fraction(deployment, set);
    if to_add > 0 { share.min(allowed) } else { share.max(allowed) }
}

fn fraction(deployment: &Value, set: &Member) -> i64 {
    let wanted = replicas(deployment);
    if wanted == 0 {
        return -set.replicas;
    }
    let known = set.max_annotation().filter(|max| *max != 0);
    let before = known.unwrap_or_else(|| value::number(deployment, &["status", "replicas"]));
    if before == 0 {
        return 0;
    }
    let after = wanted + max_surge(deployment);
    // Half away from zero, as `integer.RoundToInt32` does.
    (2 * set.replicas * after + before).div_euclid(2 * before) - set.replicas
}
