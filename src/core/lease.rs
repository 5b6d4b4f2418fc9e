//! The leader lease: which of several controllers may act, decided on a `coordination.k8s.io/v1` Lease.
//!
//! # Why no two act at once
//!
//! A holder counts its half of the duration from *before* it asks for a renewal, and acts no longer than that. Another
//! takes the lease only when it has seen it unchanged for the whole duration, counted from *after* it saw the change.
//! Nobody compares clocks of two machines: each measures with its own, and one clock may run twice as fast as the
//! other. Written times are for people.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    cluster::{Kind, PatchType, Write},
    manifest::Object,
};

/// What a holder asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who asks: another for every process.
    pub identity: String,
    /// How long the lease lasts without being renewed; whole seconds, at least one.
    pub duration: Duration,
}

impl Terms {
    /// For how long a holder may act after it asked for what was granted.
    pub fn may_act_for(&self) -> Duration {
        self.duration / 2
    }

    /// How often a holder renews.
    pub fn renew_every(&self) -> Duration {
        self.duration / 5
    }

    /// How long a holder waits for the answer to a renewal before it asks again.
    pub fn answer_within(&self) -> Duration {
        self.duration / 10
    }

    /// How often somebody else looks, and a holder whose renewal failed tries again: often enough that a lease which
    /// is free is taken within a second.
    pub fn look_every(&self) -> Duration {
        (self.duration / 20).min(Duration::from_millis(750))
    }
}

/// The kind of a lease.
pub fn kind() -> Kind {
    Kind::new("coordination.k8s.io", "v1", "Lease")
}

/// Returns who holds a lease; "" where nobody does.
pub fn holder(lease: &Object) -> &str {
    lease.text(&["spec", "holderIdentity"])
}

/// Returns when the lease was renewed last, as written: for people.
pub fn renewed(lease: &Object) -> Option<Timestamp> {
    lease.text(&["spec", "renewTime"]).parse().ok()
}

/// Says that nobody acts under a lease any more; `None` while somebody seems to. Two durations are waited for, as the
/// clocks of two machines are compared.
pub fn abandoned(lease: &Object, now: Timestamp) -> Option<String> {
    let renewed = renewed(lease)?;
    let silent = u64::try_from(now.duration_since(renewed).as_secs()).unwrap_or(0);
    let lasts = u64::try_from(lease.number(&["spec", "leaseDurationSeconds"]).unwrap_or(0)).unwrap_or(0);
    let place = format!("Lease {}/{}", lease.namespace(), lease.name());
    let ago = match silent {
        0..120 => format!("{silent} s"),
        120..7200 => format!("{} min", silent / 60),
        7200..172_800 => format!("{} h", silent / 3600),
        _ => format!("{} d", silent / 86_400),
    };
    match holder(lease) {
        "" => Some(format!("none since {ago}: the last one gave its place back ({place})")),
        who if silent > 2 * lasts => Some(format!("last seen {ago} ago: {who} ({place})")),
        _ => None,
    }
}

/// Returns the write by which the lease is to be taken: who gets an answer to it holds the lease. `None` where somebody
/// else holds it. `unchanged`: for how long its `spec` has been seen as it is.
pub fn evaluate(live: Option<&Object>, unchanged: Duration, terms: &Terms, now: Timestamp) -> Option<Write> {
    let Some(live) = live else {
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "namespace": terms.namespace, "name": terms.name },
        });
        lease["spec"] = claim(None, terms, now);
        return Some(Write::Create { object: Object(lease) });
    };
    let theirs = u64::try_from(live.number(&["spec", "leaseDurationSeconds"]).unwrap_or(0)).unwrap_or(0);
    let lasts = terms.duration.max(Duration::from_secs(theirs));
    let free = holder(live).is_empty() || holder(live) == terms.identity || unchanged >= lasts;
    free.then(|| patch(live, claim(Some(live), terms, now)))
}

/// Builds the write by which a holder stays it. Refused when anything about the lease has changed.
pub fn renewal(held: &Object, now: Timestamp) -> Write {
    patch(held, json!({ "renewTime": micros(now) }))
}

/// Builds the write by which a holder gives the lease back, so that nobody has to wait.
pub fn release(held: &Object, now: Timestamp) -> Write {
    patch(held, json!({ "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micros(now) }))
}

fn claim(live: Option<&Object>, terms: &Terms, now: Timestamp) -> Value {
    let transitions = live.map_or(0, |live| live.number(&["spec", "leaseTransitions"]).unwrap_or(0) + 1);
    json!({
        "holderIdentity": terms.identity,
        "leaseDurationSeconds": terms.duration.as_secs().max(1),
        "acquireTime": micros(now),
        "renewTime": micros(now),
        "leaseTransitions": transitions,
    })
}

fn patch(live: &Object, spec: Value) -> Write {
    Write::Patch {
        kind: kind(),
        key: live.key(),
        uid: live.uid().to_owned(),
        resource_version: Some(live.resource_version().to_owned()),
        patch: PatchType::Merge,
        body: json!({ "spec": spec }),
        subresource: None,
    }
}

/// Writes a `metav1.MicroTime`: exactly six digits.
fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            namespace: "locktender".into(),
            name: "locktender".into(),
            identity: "me".into(),
            duration: Duration::from_secs(15),
        }
    }

    fn lease(holder: &str, seconds: u64) -> Object {
        Object(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"namespace": "locktender", "name": "locktender", "uid": "u", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 3},
        }))
    }

    fn takes(live: Option<&Object>, unchanged: u64) -> bool {
        let now = Timestamp::UNIX_EPOCH;
        evaluate(live, Duration::from_secs(unchanged), &terms(), now).is_some()
    }

    #[test]
    fn a_lease_is_taken_when_nobody_has_it_or_it_has_not_moved_for_its_duration() {
        assert!(takes(None, 0));
        assert!(takes(Some(&lease("", 15)), 0));
        assert!(takes(Some(&lease("me", 15)), 0));
        assert!(!takes(Some(&lease("other", 15)), 14));
        assert!(takes(Some(&lease("other", 15)), 15));
    }

    #[test]
    fn people_are_told_when_nobody_acts() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let told = |holder: &str, now: i64| {
            let mut lease = lease(holder, 15);
            lease.set(&["spec", "renewTime"], json!("1970-01-01T00:00:00.000000Z"));
            abandoned(&lease, at(now))
        };
        assert_eq!(told("one", 30), None);
        assert_eq!(told("one", 200), Some("last seen 3 min ago: one (Lease locktender/locktender)".to_owned()));
        let given_back = "none since 40 s: the last one gave its place back (Lease locktender/locktender)";
        assert_eq!(told("", 40), Some(given_back.to_owned()));
        assert_eq!(abandoned(&lease("one", 15), at(200)), None, "a lease that tells no time tells nothing");
    }

    #[test]
    fn the_longer_of_both_durations_counts() {
        assert!(!takes(Some(&lease("other", 60)), 59));
        assert!(takes(Some(&lease("other", 60)), 60));
        assert!(!takes(Some(&lease("other", 1)), 14));
    }

    #[test]
    fn taking_it_counts_the_change_and_is_refused_when_the_lease_has_moved() {
        let Some(Write::Patch { uid, resource_version, body, .. }) =
            evaluate(Some(&lease("", 15)), Duration::ZERO, &terms(), Timestamp::UNIX_EPOCH)
        else {
            panic!("it is free");
        };
        assert_eq!((uid.as_str(), resource_version.as_deref()), ("u", Some("7")));
        assert_eq!(body["spec"]["leaseTransitions"], 4);
        assert_eq!(body["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_holder_acts_for_so_short_that_a_clock_of_half_the_rate_is_no_danger() {
        let terms = terms();
        assert!(terms.may_act_for() * 2 <= terms.duration);
        assert!(terms.renew_every() + terms.answer_within() + terms.look_every() < terms.may_act_for());
    }
}
