//! Holds the leader lease: takes it, renews it, gives it back, and lets the controller run meanwhile.
//!
//! Losing it is like being killed, and taking it like starting: whoever leads begins with nothing but Git and the
//! cluster, which every restart shows to be enough. What is under way when it is lost is dropped, and what is not
//! dropped in time does not get through the [`Fence`].

use std::{future::Future, sync::Arc, time::Duration};

use futures::FutureExt as _;
use jiff::SignedDuration;
use tokio::sync::watch;
use tracing::{info, warn};

use super::fence::Fence;
use crate::core::{
    clock::Clock,
    cluster::{Cluster, ClusterError, Write},
    lease::{self, Terms},
    manifest::Object,
};

/// Who leads, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether this process leads.
    pub leads: bool,
    /// Who holds the lease; "" where nobody does, `None` before it was seen.
    pub holder: Option<String>,
}

/// One process' part in the lease.
pub struct Lease {
    /// The cluster that has the lease, without a fence.
    pub cluster: Arc<dyn Cluster>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is asked for.
    pub terms: Terms,
    /// Is told who leads.
    pub standing: watch::Sender<Standing>,
}

/// A lease that this process holds.
struct Held {
    object: Object,
    fence: Fence,
}

impl Lease {
    /// Runs `term` while this process holds the lease, as often as it takes it, until `stop` is ready or a term ends
    /// by itself. A term that loses the lease is dropped where it is. Nothing of a term may write but through its fence.
    /// Before it returns the lease is given back, for two seconds at most.
    ///
    /// # Errors
    ///
    /// Those of a term.
    pub async fn while_leading<F, E>(
        &self,
        stop: impl Future<Output = ()>,
        mut term: impl FnMut(Fence) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let stop = stop.shared();
        let ended = loop {
            let mut held = tokio::select! {
                biased;
                () = stop.clone() => break Ok(()),
                held = self.take() => held,
            };
            info!(lease = %self.name(), identity = self.terms.identity, "leads");
            let term = term(held.fence.clone());
            let ended = tokio::select! {
                ended = term => Some(ended),
                () = self.keep(&mut held) => None,
            };
            held.fence.close();
            match ended {
                Some(ended) => break ended,
                None => warn!(lease = %self.name(), "the lease is lost: stands by"),
            }
        };
        tokio::select! {
            () = self.give_back() => {}
            () = self.wait(RELEASE_WITHIN) => warn!(lease = %self.name(), "the lease cannot be given back in time"),
        }
        ended
    }

    fn name(&self) -> String {
        format!("{}/{}", self.terms.namespace, self.terms.name)
    }

    fn tell(&self, leads: bool, lease: Option<&Object>) {
        let standing = Standing { leads, holder: Some(lease.map_or("", lease::holder).to_owned()) };
        self.standing.send_if_modified(|known| {
            let changed = *known != standing;
            if changed && !leads {
                info!(lease = %self.name(), holder = standing.holder, "stands by");
            }
            *known = standing;
            changed
        });
    }

    async fn read(&self) -> Result<Option<Object>, ClusterError> {
        self.cluster.read(&lease::kind(), &self.terms.namespace, &self.terms.name).await
    }

    async fn wait(&self, time: Duration) {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        self.clock.until(self.clock.now() + time).await;
    }

    /// Returns once this process holds the lease.
    async fn take(&self) -> Held {
        // What was seen last, and since when it is as it is.
        let mut seen: Option<(Option<Object>, Duration)> = None;
        let mut said: Option<String> = None;
        loop {
            let failure = match self.look(&mut seen).await {
                Ok(Some(held)) => return held,
                // Somebody else was faster: it is looked at again.
                Ok(None) | Err(ClusterError::Conflict(_) | ClusterError::AlreadyExists(_)) => None,
                Err(error) => Some(error.to_string()),
            };
            if failure != said {
                if let Some(error) = &failure {
                    warn!(lease = %self.name(), error, "the lease can neither be read nor taken");
                }
                said = failure;
            }
            self.wait(self.terms.look_every()).await;
        }
    }

    /// Looks at the lease, and takes it where it may be taken.
    async fn look(&self, seen: &mut Option<(Option<Object>, Duration)>) -> Result<Option<Held>, ClusterError> {
        let live = self.read().await?;
        let now = self.clock.uptime();
        let spec = |lease: &Option<Object>| lease.as_ref().and_then(|lease| lease.at(&["spec"]).cloned());
        let since = match seen {
            Some((before, since)) if spec(before) == spec(&live) => *since,
            _ => now,
        };
        *seen = Some((live.clone(), since));
        let unchanged = now.saturating_sub(since);
        let Some(write) = lease::evaluate(live.as_ref(), unchanged, &self.terms, self.clock.now()) else {
            self.tell(false, live.as_ref());
            return Ok(None);
        };
        let asked = self.clock.uptime();
        let Some(object) = self.cluster.write(&write).await? else { return Ok(None) };
        self.tell(true, Some(&object));
        Ok(Some(Held { object, fence: Fence::open(self.clock.clone(), asked + self.terms.may_act_for()) }))
    }

    /// Renews the lease, and returns once it is lost.
    async fn keep(&self, held: &mut Held) {
        let mut next = self.terms.renew_every();
        loop {
            self.wait(next.min(held.fence.left())).await;
            let asked = self.clock.uptime();
            let write = lease::renewal(&held.object, self.clock.now());
            let renewed = tokio::select! {
                biased;
                () = self.closed(&held.fence) => break,
                renewed = self.renew(&write) => renewed,
                () = self.wait(self.terms.answer_within()) => {
                    Err(ClusterError::Unreachable("no answer to the renewal".to_owned()))
                }
            };
            next = match renewed {
                Ok(Some(object)) if lease::holder(&object) == self.terms.identity => {
                    // Only what this very request renewed counts from when it was asked for.
                    if object.at(&["spec", "renewTime"]) == sent(&write) {
                        held.fence.extend(asked + self.terms.may_act_for());
                    }
                    held.object = object;
                    self.terms.renew_every()
                }
                Ok(_) => break,
                Err(error) => {
                    warn!(lease = %self.name(), %error, "the lease cannot be renewed");
                    self.terms.look_every()
                }
            };
        }
        held.fence.close();
        self.tell(false, None);
    }

    /// Returns once the fence has closed.
    async fn closed(&self, fence: &Fence) {
        while fence.holds() {
            self.wait(fence.left()).await;
        }
    }

    /// Sends a renewal; where the lease is another now, or perhaps is, it is read.
    async fn renew(&self, write: &Write) -> Result<Option<Object>, ClusterError> {
        match self.cluster.write(write).await {
            Err(ClusterError::Conflict(_) | ClusterError::NotFound(_) | ClusterError::Unreachable(_)) => {
                self.read().await
            }
            answer => answer,
        }
    }

    /// Gives the lease back where it has this process' name, so that nobody has to wait until it has run out. That it is
    /// what was seen last cannot be counted on: a renewal may be on its way, and one that nobody answered in time, which
    /// cost the lease, may have been carried out.
    async fn give_back(&self) {
        loop {
            let answer = match self.read().await {
                Ok(Some(live)) if lease::holder(&live) == self.terms.identity => {
                    self.cluster.write(&lease::release(&live, self.clock.now())).await
                }
                Ok(_) => return,
                Err(error) => Err(error),
            };
            match answer {
                Ok(_) => return info!(lease = %self.name(), "the lease is given back"),
                Err(ClusterError::Conflict(_) | ClusterError::Unreachable(_)) => {
                    self.wait(self.terms.look_every()).await
                }
                Err(error) => return warn!(lease = %self.name(), %error, "the lease cannot be given back"),
            }
        }
    }
}

/// How long giving the lease back may take: what is not given back runs out.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// Returns the time that a renewal writes.
fn sent(write: &Write) -> Option<&serde_json::Value> {
    match write {
        Write::Patch { body, .. } => body.pointer("/spec/renewTime"),
        _ => None,
    }
}
