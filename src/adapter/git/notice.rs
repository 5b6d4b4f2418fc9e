//! Notices that the remote may have moved: by file system events for a local repository, by asking for others. And that
//! there are other credentials, with which it is asked at once.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::names::Revision;

/// A shorter poll would do nothing but ask.
const SHORTEST_POLL: Duration = Duration::from_millis(10);

/// When to look at the remote again, and whether what was seen there is news.
pub(super) struct Notice {
    /// Stays set until somebody waits, so that no event is lost; a hundred events are one.
    events: Arc<Notify>,
    /// Held for its events; `None` where the remote is not on this machine or cannot be watched.
    watcher: Option<notify::RecommendedWatcher>,
    /// Held for its events; `None` where there are no credentials or they cannot be watched.
    _credentials: Option<notify::RecommendedWatcher>,
    poll: Duration,
    state: Arc<Mutex<State>>,
}

struct State {
    /// When the remote is looked at even without an event.
    due: Instant,
    /// What was told last, so that a tip that cannot be fetched is not told again and again.
    told: Option<Seen>,
}

/// Where the remote's branch was seen; `None` when it could not be asked.
type Seen = Option<Revision>;

impl Notice {
    /// Watches the repository at `local`, if it is one on this machine, and the directory of credentials, and asks every
    /// `poll` in any case.
    pub fn new(local: Option<&Path>, credentials: Option<&Path>, poll: Duration) -> Self {
        let poll = poll.max(SHORTEST_POLL);
        let events = Arc::new(Notify::new());
        let watcher = local.and_then(|path| {
            watch(path, Arc::clone(&events))
                .inspect_err(
                    |error| tracing::warn!(path = %path.display(), %error, "cannot watch the repository: polling"),
                )
                .ok()
        });
        let state = Arc::new(Mutex::new(State { due: Instant::now() + jittered(poll), told: None }));
        let credentials = credentials.and_then(|path| {
            watch_credentials(path, Arc::clone(&events), Arc::clone(&state))
                .inspect_err(|error| {
                    tracing::warn!(path = %path.display(), %error, "cannot watch the credentials: read at every contact");
                })
                .ok()
        });
        Self { events, watcher, _credentials: credentials, poll, state }
    }

    /// Whether looking now is worth it: always when it is cheap, because an event may have been missed.
    pub fn look_now(&self) -> bool {
        self.watcher.is_some() || Instant::now() >= self.state().due
    }

    /// Notes what was seen, and returns whether it is news to somebody whose mirror is at `here`.
    pub fn is_news(&self, seen: Seen, here: Option<&Revision>) -> bool {
        let mut state = self.state();
        let due = Instant::now() >= state.due;
        if due {
            state.due = Instant::now() + jittered(self.poll);
        }
        if seen.is_some() && seen.as_ref() == here {
            // One that could not be asked is back: whoever heard that it was away waits for that.
            return state.told.take() == Some(None);
        }
        let news = due || state.told.as_ref() != Some(&seen);
        state.told = Some(seen);
        news
    }

    /// Returns when there was an event or the time to ask has come. Cancel safe.
    pub async fn wait(&self) {
        let due = self.state().due;
        tokio::select! {
            () = self.events.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(path: &Path, events: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let open = |path| git2::Repository::open(path).map(|repository| repository.commondir().to_owned());
    let directory: PathBuf = open(path).map_err(|error| notify::Error::generic(error.message()))?;
    let mut watcher = notify::recommended_watcher(on_change(move || events.notify_one()))?;
    // `packed-refs` and `HEAD` are in the directory itself; they are replaced, so the files cannot be watched.
    watcher.watch(&directory, RecursiveMode::NonRecursive)?;
    watcher.watch(&directory.join("refs"), RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Lets the remote be asked as soon as another file is put into the directory, as a Secret's volume does.
fn watch_credentials(
    path: &Path,
    events: Arc<Notify>,
    state: Arc<Mutex<State>>,
) -> notify::Result<notify::RecommendedWatcher> {
    let ask_now = move || {
        state.lock().unwrap_or_else(PoisonError::into_inner).due = Instant::now();
        events.notify_one();
    };
    let mut watcher = notify::recommended_watcher(on_change(ask_now))?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Calls `act` when something was written, and not when it was only read.
fn on_change(act: impl Fn() + Send + 'static) -> impl Fn(notify::Result<notify::Event>) + Send + 'static {
    move |event| {
        let only_read = matches!(&event, Ok(event) if event.kind.is_access());
        if !only_read {
            act();
        }
    }
}

/// Spreads many controllers' questions: up to a tenth earlier or later.
fn jittered(poll: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 2_001;
    #[allow(clippy::cast_precision_loss)] // Below 2,001.
    let factor = 0.9 + random as f64 / 10_000.0;
    poll.mul_f64(factor)
}
