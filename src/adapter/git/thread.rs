//! The mirror's own thread: libgit2 blocks, and its handle is for one thread at a time.

use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::mirror::Mirror;
use crate::core::repository::RepositoryError;

type Request = Box<dyn FnOnce(&mut Mirror) + Send>;

/// Sends questions to the thread that has the mirror. Dropping this ends the thread, after the question in hand, and
/// waits for it: the mirror can be opened again then.
pub(super) struct MirrorThread {
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for MirrorThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told to whoever asked.
            let _ = thread.join();
        }
    }
}

impl MirrorThread {
    /// Starts the thread, and there opens the mirror with `open`.
    pub async fn start(
        open: impl FnOnce() -> Result<Mirror, RepositoryError> + Send + 'static,
    ) -> Result<Self, RepositoryError> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (opened, outcome) = oneshot::channel();
        let body = move || {
            let mut mirror = match open() {
                Ok(mirror) => mirror,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if opened.send(Ok(())).is_err() {
                return;
            }
            for request in inbox {
                request(&mut mirror);
            }
        };
        let thread = std::thread::Builder::new()
            .name("git-mirror".to_owned())
            .spawn(body)
            .map_err(|error| RepositoryError::Mirror(format!("cannot start its thread: {error}")))?;
        outcome.await.map_err(|_| gone())??;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Asks `question` on the thread, after all that were asked before.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Mirror) -> T + Send + 'static,
    ) -> Result<T, RepositoryError> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone away meanwhile.
        let request: Request = Box::new(move |mirror| drop(answer.send(question(mirror))));
        self.requests.as_ref().ok_or_else(gone)?.send(request).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

fn gone() -> RepositoryError {
    RepositoryError::Mirror("its thread has ended".to_owned())
}
