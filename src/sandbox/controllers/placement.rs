//! Whether a pod fits a node: labels, taints, room.

use serde_json::Value;

use crate::sandbox::{selector, value};

/// The reasons that the scheduler gives, in its own words.
pub const UNSCHEDULABLE: &str = "node(s) were unschedulable";
/// The pod does not tolerate a taint.
pub const TAINTED: &str = "node(s) had untolerated taint(s)";
/// Node selector or affinity do not match.
pub const NO_AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";
/// A `DoNotSchedule` spread constraint would be broken.
pub const NO_SPREAD: &str = "node(s) didn't match pod topology spread constraints";
/// The spread constraint's label is missing on the node.
pub const NO_SPREAD_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// What a pod asks for, or a node has: pods, millicores of CPU, bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Pods.
    pub pods: i64,
    /// Thousandths of a CPU.
    pub cpu: i128,
    /// Bytes of memory.
    pub memory: i128,
}

impl Room {
    /// Returns what a pod requests: the sum over its containers, or what an init container needs alone.
    pub fn requested(pod: &Value) -> Self {
        let of = |list: &str| value::items(pod, &["spec", list]).iter().map(Self::of_container);
        let mut sum = of("containers").fold(Self::default(), Self::plus);
        for one in of("initContainers") {
            sum.cpu = sum.cpu.max(one.cpu);
            sum.memory = sum.memory.max(one.memory);
        }
        Self { pods: 1, ..sum }
    }

    fn of_container(container: &Value) -> Self {
        let requested = |name| value::at(container, &["resources", "requests", name]).map_or(0, milli);
        Self { pods: 0, cpu: requested("cpu"), memory: requested("memory") / 1000 }
    }

    /// Returns what a node can hold.
    pub fn of_node(node: &Value) -> Self {
        let has = |name| value::at(node, &["status", "allocatable", name]).map_or(0, milli);
        Self {
            pods: i64::try_from(has("pods") / 1000).unwrap_or(i64::MAX),
            cpu: has("cpu"),
            memory: has("memory") / 1000,
        }
    }

    /// Adds.
    pub fn plus(self, other: Self) -> Self {
        Self { pods: self.pods + other.pods, cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }

    /// Subtracts.
    pub fn minus(self, other: Self) -> Self {
        Self { pods: self.pods - other.pods, cpu: self.cpu - other.cpu, memory: self.memory - other.memory }
    }
}

/// Returns a quantity (`250m`, `64Mi`, 2) in thousandths; 0 for what is none.
pub fn milli(quantity: &Value) -> i128 {
    let text = match quantity {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return 0,
    };
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return 0,
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = part.bytes().rev().fold(0, |sum, digit| (sum + factor * i128::from(digit - b'0')) / 10);
    whole.parse::<i128>().unwrap_or_default().saturating_mul(factor).saturating_add(fraction)
}

/// Returns why a pod may not be on a node because of labels, cordons and taints; `None` where it may.
pub fn refusal(pod: &Value, node: &Value) -> Option<&'static str> {
    if value::flag(node, &["spec", "unschedulable"]) && !tolerates_cordon(pod) {
        return Some(UNSCHEDULABLE);
    }
    let taints = value::items(node, &["spec", "taints"]).iter();
    let mut hard = taints.filter(|taint| matches!(value::text(taint, &["effect"]), "NoSchedule" | "NoExecute"));
    if hard.any(|taint| !tolerates(pod, taint)) {
        return Some(TAINTED);
    }
    (!wants(pod, node)).then_some(NO_AFFINITY)
}

fn tolerates_cordon(pod: &Value) -> bool {
    tolerates(pod, &serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}))
}

/// Returns whether a pod tolerates a taint.
pub fn tolerates(pod: &Value, taint: &Value) -> bool {
    value::items(pod, &["spec", "tolerations"]).iter().any(|it| tolerates_taint(it, taint))
}

/// Returns whether one toleration covers a taint.
pub fn tolerates_taint(toleration: &Value, taint: &Value) -> bool {
    let of = |member| value::text(toleration, &[member]);
    let same = |member| of(member).is_empty() || of(member) == value::text(taint, &[member]);
    let value_fits = of("operator") == "Exists" || of("value") == value::text(taint, &["value"]);
    same("effect") && same("key") && value_fits
}

/// Returns whether node selector and required node affinity match.
pub fn wants(pod: &Value, node: &Value) -> bool {
    let labels = selector::labels_of(node);
    if !selector::includes(value::at(pod, &["spec", "nodeSelector"]), labels) {
        return false;
    }
    let path = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let Some(required) = value::at(pod, &path) else { return true };
    value::items(required, &["nodeSelectorTerms"]).iter().any(|term| {
        let expressions = value::items(term, &["matchExpressions"]);
        let fields = value::items(term, &["matchFields"]);
        let name = serde_json::json!({"metadata.name": value::name(node)});
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|it| selector::holds(it, labels))
            && fields.iter().all(|it| selector::holds(it, Some(&name)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_in_thousandths() {
        let read = |text: &str| milli(&json!(text));
        assert_eq!([read("250m"), read("2"), read("1.5"), read("64Mi")], [250, 2000, 1500, 1000 * (64 << 20)]);
        assert_eq!(milli(&json!(4)), 4000);
    }

    #[test]
    fn affinity_terms_are_alternatives() {
        let node = json!({"metadata": {"name": "n", "labels": {"zone": "dca"}}});
        let pod = |zones: &[&str]| {
            let term = |zone: &&str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
            let terms: Vec<_> = zones.iter().map(term).collect();
            json!({"spec": {"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}})
        };
        assert!(wants(&pod(&["dcb", "dca"]), &node));
        assert!(!wants(&pod(&["dcb"]), &node));
        assert!(!wants(&pod(&[]), &node));
    }

    #[test]
    fn a_cordoned_node_refuses_pods_without_the_toleration() {
        let node = json!({"spec": {"unschedulable": true}});
        assert_eq!(refusal(&json!({}), &node), Some(UNSCHEDULABLE));
        assert_eq!(refusal(&json!({"spec": {"tolerations": [{"operator": "Exists"}]}}), &node), None);
    }
}
