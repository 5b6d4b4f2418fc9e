//! The runtime of simulations: containers that exist only as state, and are always well.

use std::collections::BTreeMap;

use super::runtime::{ContainerSpec, HttpGet, Manner, ProbeId, Runtime};

/// Runs nothing. What faults do is decided by the kubelet, so there is nothing left to model.
#[derive(Debug, Default)]
pub struct ModelRuntime {
    addresses: BTreeMap<String, u32>,
    last: u32,
}

impl Runtime for ModelRuntime {
    fn address(&mut self, pod_uid: &str) -> String {
        if !self.addresses.contains_key(pod_uid) {
            // Addresses are used again only when all were used once, so that a stale endpoint shows.
            self.last = (self.last + 1) % 0xffff;
            self.addresses.insert(pod_uid.to_owned(), self.last);
        }
        let [_, _, third, fourth] = self.addresses.get(pod_uid).copied().unwrap_or_default().to_be_bytes();
        format!("10.244.{third}.{fourth}")
    }

    fn release(&mut self, pod_uid: &str) {
        self.addresses.remove(pod_uid);
    }

    fn start(&mut self, _: &ContainerSpec) -> Result<(), String> {
        Ok(())
    }

    fn behave(&mut self, _: &str, _: &str, _: Manner) {}

    fn leave(&mut self, _: &str, _: &str) {}

    fn is_busy(&self, _: &str, _: &str) -> bool {
        false
    }

    fn stop(&mut self, _: &str, _: &str) {}

    fn probe(&mut self, _: &ProbeId, _: &HttpGet) -> Option<bool> {
        Some(true)
    }

    fn answers(&mut self) -> Vec<(ProbeId, bool)> {
        Vec::new()
    }

    fn idle(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn has_answers(&self) -> bool {
        false
    }

    fn is_real(&self) -> bool {
        false
    }
}
