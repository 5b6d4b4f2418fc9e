//! Which router an application's traffic goes through.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Split,
    gateway_api::{self, HttpRoute},
    haproxy::{Asked, Runtime},
    istio::{self, VirtualService},
    nginx::{self, CanaryIngress},
    route::{Backends, Misfit, Route},
};
use crate::core::cluster::Kind;

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
    /// HAProxy, over its Runtime API.
    #[serde(rename_all = "camelCase")]
    Haproxy {
        /// The backend whose servers are the pods.
        backend: String,
        /// Where it is told and asked.
        runtime: Runtime,
    },
}

/// How a router is told and asked.
pub enum Means {
    /// By objects of the cluster.
    Objects(Box<dyn Route>),
    /// Itself.
    Proxy(Asked),
}

impl Router {
    /// Returns how the router is told and asked.
    pub fn means(&self, backends: Backends) -> Means {
        let namespace = backends.namespace.clone();
        match self.clone() {
            Self::GatewayApi { http_route: name } => Means::Objects(Box::new(HttpRoute { namespace, name, backends })),
            Self::Istio { virtual_service: name, destination_rule } => {
                Means::Objects(Box::new(VirtualService { namespace, name, destination_rule, backends }))
            }
            Self::Nginx { ingress: name } => Means::Objects(Box::new(CanaryIngress { namespace, name, backends })),
            Self::Haproxy { backend, runtime } => Means::Proxy(Asked { runtime, backend }),
        }
    }

    /// Returns the kinds of the objects by which the router is told.
    pub fn kinds(&self) -> Vec<Kind> {
        let nowhere = Backends { namespace: String::new(), stable: String::new(), canary: String::new() };
        match self.means(nowhere) {
            Means::Objects(route) => route.reads().into_iter().chain(route.makes()).map(|target| target.kind).collect(),
            Means::Proxy(_) => Vec::new(),
        }
    }

    /// Checks that such a router can share requests out in a way, whatever its objects are like.
    ///
    /// # Errors
    ///
    /// What it cannot do.
    pub fn carries(&self, split: &Split) -> Result<(), Misfit> {
        match self {
            Self::GatewayApi { .. } => gateway_api::carries(split),
            Self::Istio { .. } => istio::carries(split),
            Self::Nginx { .. } => nginx::carries(split),
            Self::Haproxy { .. } if *split == Split::of(split.weight) => Ok(()),
            Self::Haproxy { .. } => {
                Err(Misfit("HAProxy is told of weights only: other steps need another router".to_owned()))
            }
        }
    }
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GatewayApi { http_route } => write!(f, "HTTPRoute/{http_route}"),
            Self::Istio { virtual_service, .. } => write!(f, "VirtualService/{virtual_service}"),
            Self::Nginx { ingress } => write!(f, "Ingress/{ingress}"),
            Self::Haproxy { backend, .. } => write!(f, "HAProxy's backend {backend}"),
        }
    }
}
