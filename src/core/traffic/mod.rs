//! What a split of traffic between two sides is, and how routers are told and asked.
//!
//! A [`Split`] says what share of the requests the new side gets. A router is whatever carries that out: a Kubernetes
//! Service alone, or one of those that [`Route`] is written for. Every answer about a router is an [`Answer`]: what
//! cannot be known is never taken for a yes.

pub mod capacity;
pub mod gateway_api;
pub mod haproxy;
pub mod istio;
pub mod nginx;
mod patch;
mod route;
mod router;
mod split;
mod weights;

pub use patch::changes;
pub use route::{Answer, Backends, Misfit, Route, Target};
pub use router::{Means, Router};
pub use split::{Affinity, HeaderRoute, Match, Matcher, Split, Subject};
