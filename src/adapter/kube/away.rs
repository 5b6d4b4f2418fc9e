//! No cluster at all, for looks at Git alone.

use std::sync::Arc;

use async_trait::async_trait;

use crate::core::{
    cluster::{Access, Account, Cluster, ClusterError, ClusterEvent, Kind, Scope, Write},
    manifest::Object,
};

/// A cluster that nobody named: it never answers and has no events.
pub struct NoCluster;

const NOT_ASKED: &str = "no cluster was named";

#[async_trait]
impl Cluster for NoCluster {
    async fn write(&self, _: &Write) -> Result<Option<Object>, ClusterError> {
        Err(ClusterError::Unreachable(NOT_ASKED.to_owned()))
    }

    async fn dry_run(&self, _: &Write) -> Result<Option<Object>, ClusterError> {
        Err(ClusterError::Unreachable(NOT_ASKED.to_owned()))
    }

    async fn read(&self, _: &Kind, _: &str, _: &str) -> Result<Option<Object>, ClusterError> {
        Err(ClusterError::Unreachable(NOT_ASKED.to_owned()))
    }

    fn acting_as(&self, _: &Account) -> Arc<dyn Cluster> {
        Arc::new(Self)
    }

    async fn may(&self, _: &Access) -> Result<bool, ClusterError> {
        Err(ClusterError::Unreachable(NOT_ASKED.to_owned()))
    }

    async fn scope(&self, _: &Kind) -> Result<Scope, ClusterError> {
        Err(ClusterError::Unreachable(NOT_ASKED.to_owned()))
    }

    async fn watch(&self, _: &Kind) {}

    async fn next_event(&self) -> ClusterEvent {
        std::future::pending().await
    }

    fn try_event(&self) -> Option<ClusterEvent> {
        None
    }
}
