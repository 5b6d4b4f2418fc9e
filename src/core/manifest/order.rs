//! The order in which objects are applied: what others need comes first.

use super::Object;

/// A step of applying. Objects of one phase do not need each other; the next begins when those before are healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Definitions of custom resources.
    Definitions,
    /// Namespaces.
    Namespaces,
    /// What is asked about other objects: quotas, classes, accounts and their roles.
    Rules,
    /// What pods read: ConfigMaps, Secrets, volumes.
    Configuration,
    /// Services and network policies: there before the pods, so that these find them.
    Services,
    /// What runs, with the claims that only bind once a pod wants them, and custom resources.
    Workloads,
    /// What looks after workloads: autoscalers, disruption budgets.
    Scaling,
    /// What sends traffic.
    Routes,
    /// Webhooks and API services: they answer only when their pods do, and while they do not, nothing can be applied.
    Extensions,
}

const TABLE: &[(Phase, &[&str])] = &[
    (Phase::Definitions, &["CustomResourceDefinition"]),
    (Phase::Namespaces, &["Namespace"]),
    (
        Phase::Rules,
        &[
            "ResourceQuota",
            "LimitRange",
            "PriorityClass",
            "RuntimeClass",
            "StorageClass",
            "IngressClass",
            "GatewayClass",
            "CSIDriver",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
        ],
    ),
    (Phase::Configuration, &["ConfigMap", "Secret", "PersistentVolume"]),
    (Phase::Services, &["Service", "Endpoints", "EndpointSlice", "NetworkPolicy"]),
    (Phase::Scaling, &["HorizontalPodAutoscaler", "PodDisruptionBudget", "VerticalPodAutoscaler"]),
    (
        Phase::Routes,
        &[
            "Ingress",
            "Gateway",
            "HTTPRoute",
            "GRPCRoute",
            "TCPRoute",
            "TLSRoute",
            "UDPRoute",
            "ReferenceGrant",
            "VirtualService",
            "DestinationRule",
        ],
    ),
    (
        Phase::Extensions,
        &[
            "APIService",
            "ValidatingWebhookConfiguration",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
        ],
    ),
];

/// Returns the phase of a kind; what is not in the table runs with the workloads.
pub fn phase(kind: &str) -> Phase {
    TABLE.iter().find(|(_, kinds)| kinds.contains(&kind)).map_or(Phase::Workloads, |(phase, _)| *phase)
}

/// Sorts objects in the order in which they are applied; in reverse, it is the order in which they are deleted.
/// The same set always comes out the same.
pub fn sort(objects: &mut [Object]) {
    objects.sort_by_cached_key(|object| (phase(object.text(&["kind"])), object.key()));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let kinds = [
            "ValidatingWebhookConfiguration",
            "HTTPRoute",
            "PodDisruptionBudget",
            "Deployment",
            "PersistentVolumeClaim",
            "Certificate",
            "Service",
            "Secret",
            "ConfigMap",
            "RoleBinding",
            "ServiceAccount",
            "Namespace",
            "CustomResourceDefinition",
        ];
        let object = |kind: &&str| Object(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}}));
        let mut objects: Vec<Object> = kinds.iter().map(object).collect();
        sort(&mut objects);
        let sorted: Vec<&str> = objects.iter().map(|object| object.text(&["kind"])).collect();
        let expected = [
            "CustomResourceDefinition",
            "Namespace",
            "RoleBinding",
            "ServiceAccount",
            "ConfigMap",
            "Secret",
            "Service",
            "Certificate",
            "Deployment",
            "PersistentVolumeClaim",
            "PodDisruptionBudget",
            "HTTPRoute",
            "ValidatingWebhookConfiguration",
        ];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn no_kind_is_in_two_phases() {
        let mut kinds: Vec<&str> = TABLE.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
        let number = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), number);
    }
}
