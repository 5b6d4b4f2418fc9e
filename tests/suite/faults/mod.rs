//! Rows of the list of faults that need an API server: a proxy before it does what networks and servers do, and the
//! server itself is given what clusters have (quotas, webhooks, policies, finalizers, others who write).
//!
//! `cargo test` plays them on the sandbox, and under `tests/controlplane/run` they go to a real control plane. A row that
//! only a real server can show is ignored by `cargo test`, says why, and is run there with `--include-ignored`. `docs/faults.md` lists what is covered.
#![allow(clippy::unwrap_used, clippy::panic)]

mod admission;
mod clock;
mod kinds;
mod memory;
mod nodes;
mod others;
mod process;
mod program;
mod rollout;
mod table;
mod watches;
mod writes;

use std::{collections::BTreeMap, ops::Deref};

use locktender::core::rollout::report::Activity;

use crate::{
    histories::{
        checkout::{APP, APP_FILE, DEPLOYMENT, POLICY, POLICY_FILE, SERVICE, SERVICE_FILE, deployment},
        release::{Place, Release, Seen},
    },
    support::proxy::{Asked, Proxy},
};

const NOTES_FILE: &str = "apps/checkout/notes.yaml";
const NOTES: &str = "api/v1/namespaces/shop/configmaps/notes";

/// A release whose controller reaches the cluster through a proxy.
struct Faulty {
    release: Release,
    proxy: Proxy,
}

impl Deref for Faulty {
    type Target = Release;

    fn deref(&self) -> &Release {
        &self.release
    }
}

impl Faulty {
    /// Puts a proxy between a release's controller and its cluster.
    async fn behind(mut release: Release) -> Self {
        release.kill().await;
        let proxy = Proxy::before(&release.kubeconfig()).await;
        release.through = Some(proxy.kubeconfig());
        release.start().await;
        Self { release, proxy }
    }

    /// 1.9 runs.
    async fn installed() -> Self {
        Self::behind(Release::checkout(Place::live()).await).await
    }

    /// Waits until the controller has written all that it has to, and forgets what was asked until then.
    async fn quiet(&self) {
        loop {
            self.proxy.forget();
            self.rest().await;
            if self.proxy.writes().is_empty() {
                return;
            }
        }
    }

    /// 1.9 runs, and rollout 2 to 2.0 waits after its beta group.
    async fn at_beta() -> Self {
        let faulty = Self::installed().await;
        faulty.set_tag("2.0");
        faulty.waits(2, "beta", "1.9: 8, 2.0: 2").await;
        faulty
    }

    /// The same, with an object beside that no pod reads.
    async fn with_notes() -> Self {
        let faulty = Self::installed().await;
        faulty.commit("notes", |clone| {
            clone.write(NOTES_FILE, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {a: b}\n");
        });
        faulty.set_tag("2.0");
        faulty.waits(2, "beta", "1.9: 8, 2.0: 2").await;
        faulty
    }

    /// Nothing runs yet, and nothing is to.
    async fn empty() -> Self {
        Self::behind(Release::new(Place::live(), &[(POLICY_FILE, POLICY)]).await).await
    }

    /// Somebody merges the application, with some of its files different.
    fn merge_with(&self, changes: &[(&str, &str)]) {
        let first = deployment("checkout", "1.9");
        let mut files = BTreeMap::from([(APP_FILE, APP), (DEPLOYMENT, first.as_str()), (SERVICE_FILE, SERVICE)]);
        files.extend(changes.iter().copied());
        self.commit("checkout 1.9", |clone| {
            for (path, text) in &files {
                clone.write(path, text);
            }
        });
    }

    /// Waits until a reason says this.
    async fn says(&self, app: &str, what: &str) -> Seen {
        self.until(app, &format!("it says `{what}`"), |seen| seen.reasons().contains(what)).await
    }

    /// Every pod was given another image once by the server, however often it was asked.
    fn each_pod_changed_once(&self) {
        let mut changed: BTreeMap<String, usize> = BTreeMap::new();
        for one in self.proxy.writes().iter().filter(|one| one.sets_images() && one.is_done()) {
            *changed.entry(one.name.clone()).or_default() += 1;
        }
        assert_eq!(changed.len(), 10, "every pod was changed: {changed:?}");
        assert!(changed.values().all(|count| *count == 1), "none was changed twice: {changed:?}");
    }

    /// Confirms what is left of rollout 2, and sees that it went as it should: nothing was recorded twice.
    async fn completes(&self) -> Seen {
        self.complete(2).await;
        let seen = self.stable(2, "2.0: 10").await;
        // What others merged meanwhile is put in place besides.
        let told: Vec<String> = seen.told(2).into_iter().filter(|event| event != "Applied").collect();
        let expected = [
            "RolloutOpened",
            "StageStarted beta",
            "StageWaiting beta",
            "ConfirmAccepted beta",
            "StageStarted batch-1",
            "StageWaiting batch-1",
            "ConfirmAccepted batch-1",
            "StageStarted batch-2",
            "Completed batch-2",
        ];
        assert_eq!(told, expected);
        seen
    }
}

/// Requests in words: `apply services checkout`.
fn in_words<'a>(asked: impl IntoIterator<Item = &'a Asked>) -> Vec<String> {
    asked.into_iter().map(|one| format!("{} {} {}", one.verb, one.resource, one.name)).collect()
}
