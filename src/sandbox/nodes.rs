//! The sandbox's nodes: names, labels, room.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::value;

/// The label that names a node's unit.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The version that nodes say they run.
pub const KUBELET_VERSION: &str = "v1.36.1+locktender";

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// `metadata.name`, also the value of `kubernetes.io/hostname`.
    pub name: String,
    /// Labels besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// How many pods it holds.
    pub capacity: u32,
    /// Its address; pods report it as `hostIP`.
    pub address: String,
}

impl NodeSpec {
    /// Returns a node of a unit.
    pub fn new(name: impl Into<String>, unit: &str, capacity: u32) -> Self {
        let labels = BTreeMap::from([(ZONE.to_owned(), unit.to_owned())]);
        Self { name: name.into(), labels, capacity, address: "127.0.0.1".to_owned() }
    }

    /// Returns `count` nodes for each unit: `dca-1`, `dca-2`, …
    pub fn of_units<'a>(units: impl IntoIterator<Item = (&'a str, usize)>, capacity: u32) -> Vec<Self> {
        let node = |unit: &str, number| Self::new(format!("{}-{number}", object_name(unit)), unit, capacity);
        units.into_iter().flat_map(|(unit, count)| (1..=count).map(move |number| node(unit, number))).collect()
    }

    /// Returns the node's unit, "" where it has none.
    pub fn unit(&self) -> &str {
        self.labels.get(ZONE).map(String::as_str).unwrap_or_default()
    }

    /// Builds the node's object, ready.
    pub(super) fn object(&self, now: Timestamp) -> Value {
        let mut labels = self.labels.clone();
        for (label, content) in [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
        ] {
            labels.entry(label.to_owned()).or_insert_with(|| content.to_owned());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "status": self.status(now),
        })
    }

    fn status(&self, now: Timestamp) -> Value {
        let room = json!({
            "pods": self.capacity.to_string(), "cpu": "64", "memory": "256Gi", "ephemeral-storage": "512Gi",
        });
        let pressure = |kind: &str| (kind.to_owned(), "False", "KubeletHasNo".to_owned() + kind);
        let conditions = [pressure("MemoryPressure"), pressure("DiskPressure"), pressure("PIDPressure")]
            .into_iter()
            .chain([("Ready".to_owned(), "True", "KubeletReady".to_owned())]);
        let condition = |(kind, status, reason): (String, &str, String)| {
            let message = if kind == "Ready" { "kubelet is posting ready status" } else { "kubelet has no pressure" };
            json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": value::stamp(now), "lastTransitionTime": value::stamp(now),
            })
        };
        json!({
            "capacity": room,
            "allocatable": room,
            "conditions": conditions.map(condition).collect::<Vec<_>>(),
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.name},
            ],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.12", "osImage": "Locktender sandbox",
                "containerRuntimeVersion": "locktender://0", "kubeletVersion": KUBELET_VERSION, "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        })
    }
}

/// A unit's name may be no valid object name (`DC_A`).
fn object_name(unit: &str) -> String {
    let name = unit.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    name.trim_matches('-').to_owned()
}

/// Reads `dca=3,dcb=3`.
///
/// # Errors
///
/// Says what is wrong with the text.
pub fn parse_units(text: &str) -> Result<Vec<(String, usize)>, String> {
    let unit = |part: &str| {
        let wrong = || format!("`{part}` is not a unit and its number of nodes, like `dca=3`");
        let (name, count) = part.trim().split_once('=').ok_or_else(wrong)?;
        let count = count.parse().map_err(|_| wrong())?;
        if name.is_empty() || count == 0 { Err(wrong()) } else { Ok((name.to_owned(), count)) }
    };
    text.split(',').map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_the_command_line() {
        assert_eq!(parse_units("dca=3,dcb=1"), Ok(vec![("dca".into(), 3), ("dcb".into(), 1)]));
        assert_eq!(parse_units("dca"), Err("`dca` is not a unit and its number of nodes, like `dca=3`".into()));
        assert!(parse_units("dca=0").is_err());
    }

    #[test]
    fn a_node_of_a_unit_with_an_odd_name_has_a_valid_name_and_the_unit_as_its_label() {
        let nodes = NodeSpec::of_units([("DC_A", 2)], 10);
        assert_eq!((nodes[1].name.as_str(), nodes[1].unit()), ("dc-a-2", "DC_A"));
    }
}
