//! Which router an application's traffic goes through.

use serde::{Deserialize, Serialize};

use super::{
    gateway_api::HttpRoute,
    istio::VirtualService,
    nginx::CanaryIngress,
    route::{Backends, Route},
};

/// What moves an application's traffic. Objects are in the namespace of the Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Router {
    /// A Gateway API route.
    #[serde(rename_all = "camelCase")]
    GatewayApi {
        /// The `HTTPRoute`'s name.
        http_route: String,
    },
    /// Istio.
    #[serde(rename_all = "camelCase")]
    Istio {
        /// The `VirtualService`'s name.
        virtual_service: String,
        /// The `DestinationRule` of the Service, where there is one: the other side's gets the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination_rule: Option<String>,
    },
    /// ingress-nginx.
    #[serde(rename_all = "camelCase")]
    Nginx {
        /// The `Ingress`'s name.
        ingress: String,
    },
}

impl Router {
    /// Returns how the router is told and asked.
    pub fn route(&self, backends: Backends) -> Box<dyn Route> {
        let namespace = backends.namespace.clone();
        match self.clone() {
            Self::GatewayApi { http_route: name } => Box::new(HttpRoute { namespace, name, backends }),
            Self::Istio { virtual_service: name, destination_rule } => {
                Box::new(VirtualService { namespace, name, destination_rule, backends })
            }
            Self::Nginx { ingress: name } => Box::new(CanaryIngress { namespace, name, backends }),
        }
    }
}
