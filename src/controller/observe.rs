//! What comes in: watch events, what writes and pushes answered, anchors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::{
    Controller, STALE_COMPLAINT, anchor,
    lanes::{Acted, GitDone},
    load::Ours,
    news::{News, Recorded},
    publish::Publication,
};
use crate::core::{
    ask::{Answer, Question, Said},
    cluster::{ClusterError, ClusterEvent, Write},
    ledger::Record,
    manifest::Object,
    names::{AppName, Digest, Revision},
    repository::{Push, RepositoryError},
    rollout::{
        input::{Admitted, HeadContent},
        rights::Missing,
        view::Touched,
    },
    traffic::haproxy::TellError,
};

impl Controller {
    /// Folds what is there already, so that a burst is decided on once.
    pub(super) async fn fold_events(&mut self) {
        for _ in 0..10_000 {
            let Some(event) = self.ports.cluster.try_event() else { return };
            self.fold(event).await;
        }
    }

    pub(super) async fn fold(&mut self, event: ClusterEvent) {
        match &event {
            ClusterEvent::Lost { kind, reason } => warn!(?kind, reason, "a watch is lost"),
            ClusterEvent::Listed { kind, objects, .. } => {
                info!(kind = ?kind, objects = objects.len(), "listed");
                if self.view.lost(kind).is_some() {
                    // Nobody looked meanwhile: deadlines start over.
                    self.watching_since = self.now();
                }
                if let Ok(scope) = self.ports.cluster.scope(kind).await {
                    self.source.learn(kind.clone(), scope);
                }
            }
            _ => {}
        }
        let kind = event.kind();
        let touched = self.view.take(event);
        self.touch(touched);
        if let Some(apps) = self.routed.get(&kind) {
            self.touch(Touched::Apps(apps.clone()));
        }
    }

    /// Takes what an application's writes answered.
    pub(super) fn acted(&mut self, acted: Acted) {
        let now = self.now();
        let mut touched = Vec::new();
        let (mut trouble, mut refused) = (Vec::new(), BTreeMap::new());
        let mut failed = false;
        let mut asked = None;
        for done in acted.done {
            let (_, key) = done.action.write.subject();
            let is_done = done.is_done_after_all();
            match done.result {
                Ok(Some(object)) => {
                    if let (Write::Apply { object: sent, .. }, Some(app)) =
                        (&done.action.write, self.apps.get_mut(&acted.app))
                    {
                        app.note_admitted(key, Admitted::of(sent, &object));
                    }
                    touched.push(self.view.put(object));
                }
                Ok(None) => touched.push(self.view.forget(&key)),
                Err(error) if is_done => {
                    info!(app = %acted.app, %error, "{}: done, though nobody answered", done.action.why);
                    match done.read_back {
                        Some((_, Some(object))) => touched.push(self.view.put(object)),
                        Some((key, None)) => touched.push(self.view.forget(&key)),
                        None => {}
                    }
                    continue;
                }
                Err(error) => {
                    failed = true;
                    match &error {
                        ClusterError::Conflict(_) | ClusterError::AlreadyExists(_) | ClusterError::NotFound(_) => {
                            info!(app = %acted.app, %error, "{}: decided again", done.action.why);
                        }
                        ClusterError::Busy { retry_after, .. } => asked = asked.max(*retry_after),
                        _ => {
                            warn!(app = %acted.app, %error, "{}", done.action.why);
                            trouble.push(Missing::explained(format!("{}: {error}", done.action.why)));
                            if matches!(error, ClusterError::Invalid(_)) {
                                refused.insert(key, error.to_string());
                            }
                        }
                    }
                    match done.read_back {
                        Some((_, Some(object))) => touched.push(self.view.put(object)),
                        Some((key, None)) => touched.push(self.view.forget(&key)),
                        None => {}
                    }
                    continue;
                }
            }
            info!(app = %acted.app, "{}", done.action.why);
        }
        for touched in touched {
            self.touch(touched);
        }
        for (telling, result) in acted.told {
            let result = match result {
                Ok(state) => {
                    info!(app = %acted.app, "{}", telling.why);
                    Ok(state)
                }
                Err(TellError::Stale(state)) => {
                    info!(app = %acted.app, "{}: its servers have changed: decided again", telling.why);
                    Ok(state)
                }
                Err(TellError::Unanswered(error)) => {
                    failed = true;
                    warn!(app = %acted.app, %error, "{}", telling.why);
                    trouble.push(format!("{}: {error}", telling.why));
                    Err(error)
                }
            };
            if let Some(app) = self.apps.get_mut(&acted.app) {
                let heard = Answer { at: now, result: result.map(Said::Servers) };
                let is_it = |question: &Question| matches!(question, Question::Proxy(it) if it.asked == telling.asked);
                app.answers.hear(&heard, is_it);
            }
        }
        if let Some(app) = self.apps.get_mut(&acted.app) {
            app.acting = false;
            self.agenda.touch(&acted.app);
            if let Some(answer) = acted.answer {
                for objection in &answer.objections {
                    warn!(app = %acted.app, revision = answer.revision.short(), objection, "refused beforehand");
                }
                app.answer = Some(answer);
            } else if failed {
                app.trouble = trouble;
                app.refused = refused;
                app.back_off(now, asked);
            } else {
                app.went_through();
            }
        }
    }

    /// Takes what the Git lane brought.
    pub(super) async fn git_done(&mut self, done: GitDone) {
        // Those that waited for the lane are decided again, on what it brought.
        let waited = std::mem::take(&mut self.publishing);
        self.touch(Touched::Apps(waited));
        match done {
            GitDone::Fetched(Ok(tip)) => self.fetched(tip).await,
            GitDone::Fetched(Err(error)) => self.git_failed(&error),
            GitDone::Pushed { onto, publications, result } => self.pushed(&onto, publications, result).await,
        }
    }

    async fn fetched(&mut self, tip: Revision) {
        self.git_failures = 0;
        self.git_not_before = None;
        let seen = self.branch.as_ref().map(|branch| branch.revision.clone());
        if seen.as_ref() == Some(&tip) {
            self.stale_since = None;
            if self.git.away.take().is_some() {
                info!("Git is back");
                self.touch(Touched::Everything);
            }
            return;
        }
        if let Some(seen) = &seen
            && self.ports.repository.is_ancestor(&tip, seen).await.unwrap_or(false)
        {
            self.stale(&tip);
            return;
        }
        self.stale_since = None;
        self.git.away = None;
        // Perhaps our push is in it, or is not wanted any more.
        self.git.unpushed = None;
        self.refused_push = None;
        if let Err(error) = self.load_beside(&tip, None).await {
            self.git_failed(&error);
        }
    }

    /// The remote serves an ancestor of what was seen: a stale replica. Waits, and complains after a while.
    fn stale(&mut self, tip: &Revision) {
        let now = self.now();
        let since = *self.stale_since.get_or_insert(now);
        let mut away = format!("the remote serves {}, which is older than what was seen", tip.short());
        if now.duration_since(since) >= STALE_COMPLAINT {
            away.push_str(", for more than five minutes: somebody should look at it");
            if self.git.away.as_ref() != Some(&away) {
                warn!(tip = tip.short(), "the remote has served an older commit for five minutes");
            }
        }
        self.git.away = Some(away);
        self.fetch_due = true;
        self.git_not_before = Some(now + SignedDuration::from_secs(5));
        self.touch(Touched::Everything);
    }

    fn git_failed(&mut self, error: &RepositoryError) {
        self.git_failures = self.git_failures.saturating_add(1);
        self.git_not_before = Some(self.after_failures(self.git_failures));
        self.fetch_due = true;
        let why = Some(error.to_string());
        if self.git.away != why {
            warn!(%error, "Git is away");
            self.git.away = why;
            self.touch(Touched::Everything);
        }
    }

    /// The remote may still be read: then only pushing waits, and says why.
    fn push_failed(&mut self, error: &RepositoryError) {
        self.push_failures = self.push_failures.saturating_add(1);
        self.push_not_before = Some(self.after_failures(self.push_failures));
        self.git.unpushed = Some(error.to_string());
        self.git_failed(error);
    }

    /// Returns when to try again after so many failures in a row.
    fn after_failures(&self, failures: u32) -> Timestamp {
        let wait = self.options.git_retry.saturating_mul(1 << failures.saturating_sub(1).min(6));
        let wait = wait.min(std::time::Duration::from_secs(60));
        self.now() + SignedDuration::try_from(wait).unwrap_or(SignedDuration::from_secs(60))
    }

    async fn pushed(
        &mut self,
        onto: &Revision,
        publications: Vec<(Publication, bool)>,
        result: Result<Push, RepositoryError>,
    ) {
        let now = self.now();
        match result {
            Ok(Push::Accepted(commits)) => {
                self.last_push = Some(now);
                self.git_failures = 0;
                self.rejected = 0;
                self.push_failures = 0;
                self.push_not_before = None;
                self.git.unpushed = None;
                for (publication, _) in &publications {
                    info!(app = %publication.app, records = publication.records.len(), "pushed");
                    self.tell_records(publication);
                    if let Some(app) = self.apps.get_mut(&publication.app) {
                        publication.pushed_to(&mut app.ledger);
                        self.line.follow(&publication.app, app);
                        app.repair = None;
                        self.agenda.touch(&publication.app);
                    }
                }
                self.touch_dependents(&publications.iter().map(|(publication, _)| &publication.app).collect());
                if let Some(tip) = commits.last().cloned()
                    && let Err(error) = self.load_beside(&tip, Some(Ours { onto, publications: &publications })).await
                {
                    self.git_failed(&error);
                }
            }
            Ok(Push::Rejected { moved: true, reason }) => {
                // Somebody else was first: fetch, decide again, commit again. Never force, never rebase blindly.
                info!(reason, "the branch moved: decided again");
                self.fetch_due = true;
                self.git.unpushed = None;
                self.rejected = self.rejected.saturating_add(1);
                let mut seed =
                    publications.iter().flat_map(|(publication, _)| &publication.records).map(|(_, record)| record.id);
                self.push_not_before =
                    (self.rejected > 3).then(|| now + after_rejections(self.rejected, seed.next_back()));
            }
            Ok(Push::Rejected { moved: false, reason }) => {
                warn!(reason, "the remote refuses our push");
                let repairs = publications.iter().any(|(publication, _)| publication.repair.is_some());
                if repairs {
                    // Perhaps only the repair is refused: then the application is held, and that is recorded.
                    self.refused_push = Some(reason.clone());
                    publications.iter().for_each(|(publication, _)| self.forget_repair(&publication.app));
                    return;
                }
                self.keep_urgent(publications).await;
                self.push_failed(&RepositoryError::Denied(reason));
            }
            Err(error) => {
                self.keep_urgent(publications).await;
                self.push_failed(&error);
            }
        }
    }

    /// Tells who listens which records a publication adds to what is known.
    fn tell_records(&self, publication: &Publication) {
        if self.options.listeners.0.is_empty() {
            return;
        }
        let Some(app) = self.apps.get(&publication.app) else { return };
        let workloads = self.workloads_of(&publication.app);
        let mut before: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        for (number, record) in &publication.records {
            let known = app.ledger.rollouts.get(number);
            let Some(plan) = known.map(|known| &known.plan).or(publication.opened.as_ref()) else { continue };
            let before =
                before.entry(*number).or_insert_with(|| known.map(|known| known.records.to_vec()).unwrap_or_default());
            self.options.listeners.tell(&News::Recorded(Recorded {
                app: &publication.app,
                rollout: &plan.rollout,
                record,
                before,
                workloads: workloads.clone(),
            }));
            before.push(record.clone());
        }
    }

    /// Returns an application's workloads as they are in the cluster.
    pub(super) fn workloads_of(&self, name: &AppName) -> Vec<&Object> {
        let Some(app) = self.apps.get(name) else { return Vec::new() };
        let head = match &app.content {
            Some(HeadContent::Rendered(render)) => Some(render),
            _ => None,
        };
        let renders = app.renders.values().chain(head);
        let keys: BTreeSet<_> = renders.flat_map(|render| render.workloads.values().map(|one| &one.key)).collect();
        keys.into_iter().filter_map(|key| self.view.by_key(key)).collect()
    }

    /// Those that wait for an application decide again when it has moved.
    fn touch_dependents(&mut self, moved: &BTreeSet<&AppName>) {
        let waiting = moved.iter().filter_map(|name| self.dependents.get(*name)).flatten();
        waiting.for_each(|name| self.agenda.touch(name));
    }

    fn forget_repair(&mut self, name: &AppName) {
        if let Some(app) = self.apps.get_mut(name) {
            app.repair = None;
            self.agenda.touch(name);
        }
    }

    async fn keep_urgent(&mut self, publications: Vec<(Publication, bool)>) {
        let urgent = publications.into_iter().filter(|(publication, urgent)| *urgent && publication.repair.is_none());
        self.keep_in_anchors(urgent.map(|(publication, _)| publication).collect()).await;
    }

    /// Going back does not wait for Git: the record goes to the anchor, is acted on, and is pushed later.
    pub(super) async fn keep_in_anchors(&mut self, publications: Vec<Publication>) {
        let now = self.now();
        for publication in publications {
            let Some(app) = self.apps.get(&publication.app) else { continue };
            let mut ledger = app.ledger.clone();
            publication.append_to(&mut ledger);
            let namespace = app.namespace();
            let live = self.view.get("", "ConfigMap", &namespace, &anchor::name(&publication.app));
            let renders = app.renders.values().map(Arc::as_ref);
            let action = anchor::write(&publication.app, &namespace, &ledger, renders, app.lacks.as_deref(), live);
            let result = self.ports.cluster.write(&action.write).await;
            if result.is_ok() {
                self.tell_records(&publication);
            }
            let Some(app) = self.apps.get_mut(&publication.app) else { continue };
            match result {
                Ok(object) => {
                    info!(app = %publication.app, "Git is away: going back is recorded in the anchor");
                    app.anchored = Some((ledger.pushed_tip(), ledger.tip()));
                    app.ledger = ledger;
                    self.line.follow(&publication.app, app);
                    self.agenda.touch(&publication.app);
                    if let Some(object) = object {
                        self.view.put(object);
                    }
                }
                Err(error) => {
                    warn!(app = %publication.app, %error, "the anchor cannot be written");
                    app.back_off(now, None);
                    self.agenda.wake_at(&publication.app, app.not_before);
                }
            }
        }
    }
}

/// How long to wait after so many pushes in a row that came too late: up to half a second, of which between a half and all,
/// by what was to be pushed, so that two who push to one branch do not meet again and again.
fn after_rejections(count: u32, pushed: Option<Digest>) -> SignedDuration {
    let longest = 20 * i64::from(count.min(25));
    let share = pushed.and_then(|id| i64::from_str_radix(&id.hex()[..4], 16).ok()).unwrap_or(0);
    SignedDuration::from_millis(longest / 2 + longest / 2 * share / 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_late_waits_longer_each_time_up_to_half_a_second_and_not_as_long_as_others() {
        let waits = |count: u32| (0..64_u8).map(move |id| after_rejections(count, Some(Digest::of(&[id]))).as_millis());
        for (count, longest) in [(4, 80), (10, 200), (25, 500), (1000, 500)] {
            assert!(waits(count).all(|wait| (longest / 2..=longest).contains(&wait)), "{count}");
            assert!(waits(count).collect::<std::collections::BTreeSet<_>>().len() > 16, "{count}: they differ");
        }
        assert_eq!(after_rejections(9, Some(Digest::of(b"1"))), after_rejections(9, Some(Digest::of(b"1"))));
    }
}
