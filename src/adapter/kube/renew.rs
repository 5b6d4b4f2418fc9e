//! Credentials that change while the program runs: tokens, client certificates and authorities are rotated in files, and
//! the files are read again. Whoever has them in memory alone is not helped.

use std::{
    path::PathBuf,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::connect::{ConnectError, Origin};
use crate::core::names::Digest;

/// How often files are looked at where nothing is wrong.
const EVERY: Duration = Duration::from_secs(10);

/// How often they are looked at where the server refused who we are, or could not be spoken to.
const IN_DOUBT: Duration = Duration::from_secs(1);

/// The client of now. Connections that are open live on.
pub(super) struct Clients {
    current: RwLock<kube::Client>,
    /// `None` where a client was given, and nobody knows from where.
    files: Option<Files>,
    doubted: AtomicBool,
}

struct Files {
    origin: Origin,
    looked: tokio::sync::Mutex<Looked>,
}

struct Looked {
    at: Instant,
    content: Digest,
}

impl Clients {
    /// Keeps one client for ever.
    pub(super) fn fixed(client: kube::Client) -> Self {
        Self { current: RwLock::new(client), files: None, doubted: AtomicBool::new(false) }
    }

    /// Makes a client of the files of `origin`, and another when they change.
    ///
    /// # Errors
    ///
    /// What is there now cannot be used.
    pub(super) async fn of(origin: Origin) -> Result<Self, ConnectError> {
        let content = content(&origin.files()).await;
        let client = origin.client().await?;
        let looked = tokio::sync::Mutex::new(Looked { at: Instant::now(), content });
        Ok(Self { files: Some(Files { origin, looked }), ..Self::fixed(client) })
    }

    /// Returns the client to use now.
    pub(super) async fn current(&self) -> kube::Client {
        // One looks; the others go on with what there is.
        if let Some(files) = &self.files
            && let Ok(mut looked) = files.looked.try_lock()
            && looked.at.elapsed() >= if self.doubted.load(Ordering::Relaxed) { IN_DOUBT } else { EVERY }
        {
            looked.at = Instant::now();
            self.doubted.store(false, Ordering::Relaxed);
            match files.look(&mut looked).await {
                Ok(Some(client)) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = client,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = super::transport::chain(&error), "changed credentials cannot be used yet");
                }
            }
        }
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files soon: the server refused who we are, or could not be spoken to.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }
}

impl Files {
    /// Makes another client where the files have changed.
    async fn look(&self, looked: &mut Looked) -> Result<Option<kube::Client>, ConnectError> {
        let content = content(&self.origin.files()).await;
        if content == looked.content {
            return Ok(None);
        }
        // What is half written is looked at again: it changes once more.
        let client = self.origin.client().await?;
        looked.content = content;
        tracing::info!("credentials have changed: the next requests go with the new ones");
        Ok(Some(client))
    }
}

/// Returns a digest of what is in files; of one that cannot be read, that it cannot.
async fn content(files: &[PathBuf]) -> Digest {
    let mut all = Vec::new();
    for file in files {
        let content = tokio::fs::read(file).await.unwrap_or_default();
        all.extend_from_slice(file.as_os_str().as_encoded_bytes());
        all.extend_from_slice(&content.len().to_be_bytes());
        all.extend_from_slice(&content);
    }
    Digest::of(&all)
}
