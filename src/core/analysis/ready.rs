//! Metrics that need no query of one's own.

use std::time::Duration;

use super::{Condition, Enough, Metric, NoData, Provider, Rule, Template};

/// The names of the ready metrics.
pub const READY: &[&str] = &["success-rate", "latency", "restarts"];

/// Whose numbers a ready metric is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// The pods' own, by the names that client libraries of Prometheus use: `http_requests_total` with a label `code`,
    /// `http_request_duration_seconds`, `process_start_time_seconds`. Scraped with the labels `namespace` and `pod`.
    Pods,
    /// The sidecars of a mesh: `istio_requests_total`, `istio_request_duration_milliseconds`.
    Istio,
    /// ingress-nginx: what of the Ingress that the policy's `traffic` names went to its canary's Service.
    Nginx,
    /// HAProxy's exporter, by server of the backend that the policy's `traffic` names: `pod:<name>`.
    Haproxy,
}

impl Exposed {
    /// All of them, by name.
    pub const ALL: &[(&str, Self)] =
        &[("pods", Self::Pods), ("istio", Self::Istio), ("nginx", Self::Nginx), ("haproxy", Self::Haproxy)];
}

/// Builds a ready metric with its own bound. A version that answers nothing but errors has no series of good answers:
/// that is 0 of all of them, and without any request it is no data. The bounds are: 99 % of the requests are answered without an error of the server, 99 % of
/// them within half a second, no container restarts. `None` where there is no such metric of that source.
pub fn ready(name: &str, exposed: Exposed) -> Option<Metric> {
    let (query, condition) = match (name, exposed) {
        ("success-rate", Exposed::Pods) => (
            "(sum(rate(http_requests_total{namespace=\"{{ namespace }}\", pod=~\"{{ pods }}\", code!~\"5..\"}[1m])) \
             or vector(0)) / \
             sum(rate(http_requests_total{namespace=\"{{ namespace }}\", pod=~\"{{ pods }}\"}[1m]))",
            "result[0] >= 0.99",
        ),
        ("success-rate", Exposed::Istio) => (
            "(sum(rate(istio_requests_total{reporter=\"destination\", namespace=\"{{ namespace }}\", \
             pod=~\"{{ pods }}\", response_code!~\"5..\"}[1m])) or vector(0)) / \
             sum(rate(istio_requests_total{reporter=\"destination\", namespace=\"{{ namespace }}\", \
             pod=~\"{{ pods }}\"}[1m]))",
            "result[0] >= 0.99",
        ),
        ("success-rate", Exposed::Nginx) => (
            "(sum(rate(nginx_ingress_controller_requests{namespace=\"{{ namespace }}\", ingress=~\"{{ ingress }}\", \
             canary!=\"\", status!~\"5..\"}[1m])) or vector(0)) / \
             sum(rate(nginx_ingress_controller_requests{namespace=\"{{ namespace }}\", ingress=~\"{{ ingress }}\", \
             canary!=\"\"}[1m]))",
            "result[0] >= 0.99",
        ),
        ("success-rate", Exposed::Haproxy) => (
            "(sum(rate(haproxy_server_http_responses_total{proxy=\"{{ backend }}\", server=~\"pod:{{ pods }}\", \
             code!=\"5xx\"}[1m])) or vector(0)) / \
             sum(rate(haproxy_server_http_responses_total{proxy=\"{{ backend }}\", server=~\"pod:{{ pods }}\"}[1m]))",
            "result[0] >= 0.99",
        ),
        ("latency", Exposed::Pods) => (
            "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{\
             namespace=\"{{ namespace }}\", pod=~\"{{ pods }}\"}[1m])))",
            "result[0] <= 0.5",
        ),
        ("latency", Exposed::Istio) => (
            "histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket{\
             reporter=\"destination\", namespace=\"{{ namespace }}\", pod=~\"{{ pods }}\"}[1m]))) / 1000",
            "result[0] <= 0.5",
        ),
        ("latency", Exposed::Nginx) => (
            "histogram_quantile(0.99, sum by (le) (rate(nginx_ingress_controller_request_duration_seconds_bucket{\
             namespace=\"{{ namespace }}\", ingress=~\"{{ ingress }}\", canary!=\"\"}[1m])))",
            "result[0] <= 0.5",
        ),
        // Of a server that answered nothing the average is 0, which is no measurement.
        ("latency", Exposed::Haproxy) => (
            "max(haproxy_server_response_time_average_seconds{proxy=\"{{ backend }}\", server=~\"pod:{{ pods }}\"} \
             and on (instance, proxy, server) sum by (instance, proxy, server) \
             (rate(haproxy_server_http_responses_total{proxy=\"{{ backend }}\", server=~\"pod:{{ pods }}\"}[1m])) > 0)",
            "result[0] <= 0.5",
        ),
        ("restarts", Exposed::Pods) => (
            "sum(changes(process_start_time_seconds{namespace=\"{{ namespace }}\", pod=~\"{{ pods }}\"}[5m]))",
            "result[0] == 0.0",
        ),
        _ => return None,
    };
    // Both were written here, and a test reads every one.
    let (query, success) = (Template::parse(query).ok()?, Condition::parse(condition).ok()?);
    let rule = Rule {
        success_condition: Some(success),
        failure_condition: None,
        // Before there is a minute of requests, a rate over a minute tells nothing.
        initial_delay: Duration::from_secs(60),
        interval: Duration::from_secs(20),
        enough: Enough::Count(3),
        failure_limit: 0,
        inconclusive_limit: 0,
        error_limit: 4,
        no_data: NoData::Inconclusive,
    };
    Some(Metric { name: name.to_owned(), provider: Provider::Prometheus { address: None, query, range: None }, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ready_metric_reads() {
        for name in READY {
            assert!(ready(name, Exposed::Pods).is_some(), "{name}");
        }
        for (_, exposed) in Exposed::ALL {
            assert!(ready("success-rate", *exposed).is_some() && ready("latency", *exposed).is_some(), "{exposed:?}");
        }
        assert_eq!(ready("restarts", Exposed::Istio), None);
        assert_eq!(ready("succes-rate", Exposed::Pods), None);
    }
}
