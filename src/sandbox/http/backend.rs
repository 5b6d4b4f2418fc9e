//! What is served: anything that can lend out an [`Api`] and say when it changed.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::sandbox::api::{Api, ApiOptions};

/// Something with an [`Api`] inside.
pub trait Backend: Send + Sync + 'static {
    /// Lends out the API server. Its time is set before.
    fn with_api<R>(&self, what: impl FnOnce(&mut Api) -> R) -> R;

    /// Returns when the newest revision is above `revision`. Cancel safe.
    fn changed(&self, revision: u64) -> impl Future<Output = ()> + Send;
}

/// An API server alone, without controllers, on the machine's clock.
#[derive(Debug)]
pub struct Shared {
    api: Mutex<Api>,
    revision: watch::Sender<u64>,
}

impl Shared {
    /// Builds an API server.
    pub fn new(seed: u64) -> Self {
        let api = Api::new(ApiOptions { seed, now: Timestamp::now() });
        let (revision, _) = watch::channel(api.revision());
        Self { api: Mutex::new(api), revision }
    }
}

impl Backend for Shared {
    fn with_api<R>(&self, what: impl FnOnce(&mut Api) -> R) -> R {
        // A panic in between leaves whole objects behind: every write is one insertion.
        let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        api.set_time(Timestamp::now());
        let result = what(&mut api);
        let newest = api.revision();
        self.revision.send_if_modified(|revision| std::mem::replace(revision, newest) != newest);
        result
    }

    async fn changed(&self, revision: u64) {
        // The sender lives as long as self.
        let _ = self.revision.subscribe().wait_for(|newest| *newest > revision).await;
    }
}
