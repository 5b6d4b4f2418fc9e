//! The kinds that the gateway reads, for clusters that nobody brought the Gateway API to.

use serde_json::Value;

/// Returns the definitions of Gateway and HTTPRoute.
pub fn definitions() -> Vec<Value> {
    // The text is a part of this program: a test reads it.
    serde_yaml::from_str(include_str!("definitions.yaml")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_kinds_are_there() {
        assert_eq!(super::definitions().len(), 2);
    }
}
