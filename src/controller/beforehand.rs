//! Asks the API server before a HEAD is put in place, and keeps what it had against it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{FutureExt as _, StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::{Controller, app::App, lanes::Acted};
use crate::core::{
    cluster::{Access, Account, Cluster, ClusterError, Kind},
    names::{AppName, Revision},
    rollout::{
        beforehand::{Questions, Trial, lacking, questions},
        input::{Decision, HeadContent},
    },
};

/// How many questions are under way at once.
const PARALLEL: usize = 8;
/// After so long it is asked again: rights are given, and objects removed by hand, without a commit.
const AGAIN: SignedDuration = SignedDuration::from_secs(15);
/// The same where it could not be asked.
const SOON: SignedDuration = SignedDuration::from_secs(2);

/// What the API server said of a HEAD.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The revision that was asked about.
    pub revision: Revision,
    /// What it has against it; empty: nothing.
    pub objections: Vec<String>,
    /// When to ask again; `None` where there is no need.
    pub again: Option<Timestamp>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The controller: what is forbidden will be refused.
    Controller,
    /// A person who looks: what is forbidden to them says nothing about the controller.
    Person,
}

impl Controller {
    /// Returns what must be asked before a decision is followed; `None` where it may be. With nothing to ask there is
    /// nothing against it.
    pub(super) fn to_ask(&self, name: &AppName, decision: &Decision) -> Option<(Revision, Questions)> {
        if !decision.adopts_head() {
            return None;
        }
        let app = self.apps.get(name)?;
        let Some(HeadContent::Rendered(target)) = &app.content else { return None };
        if app.answer.as_ref().is_some_and(|answer| answer.revision == target.revision) {
            return None;
        }
        let kept: BTreeSet<_> = target.keys().collect();
        let gone = app.renders.values().flat_map(|render| render.keys()).filter(|key| !kept.contains(key)).collect();
        let questions = questions(name, target, &gone, &self.view);
        (!questions.is_empty()).then(|| (target.revision.clone(), questions))
    }

    /// Asks what must be asked before the application's HEAD is put in place; it is decided again when that is answered.
    pub(super) fn ask_first(&mut self, name: &AppName, revision: Revision, questions: Questions) {
        let now = self.now();
        self.agenda.decided(name, None);
        let Some(app) = self.apps.get_mut(name) else { return };
        app.acting = true;
        let (name, account, cluster) = (name.clone(), app.account(), self.ports.cluster.clone());
        let asking = async move {
            let asker = Asker::Controller;
            let answer = ask(&cluster, account.as_ref(), asker, revision, questions, now).await;
            Acted { app: name, done: Vec::new(), told: Vec::new(), answer: Some(answer) }
        };
        self.acts.push(asking.boxed());
    }

    /// Forgets an answer whose time has come.
    pub(super) fn forget_answer(&mut self, name: &AppName) {
        let now = self.now();
        if let Some(app) = self.apps.get_mut(name) {
            app.answer = app.answer.take().filter(|answer| answer.again.is_none_or(|again| again > now));
        }
    }
}

impl App {
    /// Returns the account in whose name the application's objects are read and written: HEAD's, or where that cannot
    /// be told the latest that is known. `None` is the controller's own.
    pub(super) fn account(&self) -> Option<Account> {
        if let Some(HeadContent::Rendered(render)) = &self.content {
            return render.application.account();
        }
        let latest = self.ledger.states.last().and_then(|state| self.renders.get(&state.plan.to.revision));
        match latest {
            Some(render) => render.application.account(),
            None => self.renders.values().find_map(|render| render.application.account()),
        }
    }

    /// Returns what the API server has against what HEAD renders.
    pub(super) fn objections(&self) -> &[String] {
        let head = match &self.content {
            Some(HeadContent::Rendered(render)) => Some(&render.revision),
            _ => None,
        };
        self.answer.as_ref().filter(|answer| Some(&answer.revision) == head).map_or(&[], |answer| &answer.objections)
    }
}

/// Returns the cluster as an application's account uses it.
pub(super) fn acting(cluster: &Arc<dyn Cluster>, account: Option<&Account>) -> Arc<dyn Cluster> {
    account.map_or_else(|| cluster.clone(), |account| cluster.acting_as(account))
}

/// Asks everything, in the account's name.
pub(super) async fn ask(
    cluster: &Arc<dyn Cluster>,
    account: Option<&Account>,
    asker: Asker,
    revision: Revision,
    questions: Questions,
    now: Timestamp,
) -> Answer {
    let cluster = acting(cluster, account);
    let user = account.map(ToString::to_string).unwrap_or_default();
    let mut untold = Vec::new();
    let mut objections = match refused(cluster.as_ref(), questions.rights).await {
        Ok(refused) => lacking(&user, &refused),
        Err(ClusterError::Forbidden(_)) if asker == Asker::Person => Vec::new(),
        Err(ClusterError::Forbidden(why)) => vec![format!("the controller may not act as {user}: {why}")],
        Err(error) => {
            untold.push(error.to_string());
            Vec::new()
        }
    };
    let trials: Vec<_> = questions.trials.into_iter().map(|trial| attempt(cluster.clone(), trial)).collect();
    for result in stream::iter(trials).buffered(PARALLEL).collect::<Vec<_>>().await {
        match result {
            Ok(()) => {}
            Err(ClusterError::Forbidden(_)) if asker == Asker::Person => {}
            Err(ClusterError::Invalid(why) | ClusterError::Forbidden(why)) => objections.push(why),
            Err(error) => untold.push(error.to_string()),
        }
    }
    let again = if untold.is_empty() { (!objections.is_empty()).then_some(AGAIN) } else { Some(SOON) };
    objections.extend(untold.into_iter().map(|why| format!("the API server could not be asked: {why}")));
    Answer { revision, objections, again: again.map(|after| now + after) }
}

/// Returns those rights that whoever asks does not have. Asked for all objects of a kind in a namespace at once, and one by
/// one only where that is refused: a role may name objects.
async fn refused(cluster: &dyn Cluster, rights: BTreeSet<Access>) -> Result<Vec<Access>, ClusterError> {
    let mut groups: BTreeMap<(&'static str, Kind, String), Vec<Access>> = BTreeMap::new();
    for access in rights {
        groups.entry((access.verb, access.kind.clone(), access.namespace.clone())).or_default().push(access);
    }
    let asked: Vec<_> = groups.into_values().map(|group| refused_of(cluster, group)).collect();
    let mut all = Vec::new();
    for refused in stream::iter(asked).buffered(PARALLEL).collect::<Vec<_>>().await {
        all.extend(refused?);
    }
    all.sort();
    Ok(all)
}

/// The same of rights that differ in the object's name alone.
async fn refused_of(cluster: &dyn Cluster, group: Vec<Access>) -> Result<Vec<Access>, ClusterError> {
    let Some(first) = group.first() else { return Ok(group) };
    if may(cluster, &Access { name: None, ..first.clone() }).await? {
        return Ok(Vec::new());
    }
    let mut refused = Vec::new();
    for access in group {
        // Nobody is asked by name whether something may be created.
        let by_name = access.name.is_some() && access.verb != "create";
        if !by_name || !may(cluster, &access).await? {
            refused.push(access);
        }
    }
    Ok(refused)
}

/// A kind that is not served yet cannot be asked about: what makes it is asked about itself.
async fn may(cluster: &dyn Cluster, access: &Access) -> Result<bool, ClusterError> {
    match cluster.may(access).await {
        Err(ClusterError::NoKind(_)) => Ok(true),
        said => said,
    }
}

/// Tries a write without doing it. One that was decided on something that has changed is no objection: it is decided
/// again before it is really written. What is refused names the object.
async fn attempt(cluster: Arc<dyn Cluster>, trial: Trial) -> Result<(), ClusterError> {
    let refusal = match cluster.dry_run(&trial.apply).await {
        Err(error @ ClusterError::Invalid(_)) => error,
        Ok(_) | Err(ClusterError::Conflict(_) | ClusterError::NotFound(_) | ClusterError::NoKind(_)) => return Ok(()),
        Err(error) => return Err(naming(&trial, error)),
    };
    let Some(anew) = &trial.anew else { return Err(naming(&trial, refusal)) };
    match cluster.dry_run(anew).await {
        // It would be as it should, if it were not there.
        Ok(_) | Err(ClusterError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(naming(&trial, error)),
    }
}

fn naming(trial: &Trial, error: ClusterError) -> ClusterError {
    let named = |why: String| {
        let key = trial.key.to_string();
        if why.starts_with(&key) { why } else { format!("{key}: {why}") }
    };
    match error {
        ClusterError::Invalid(why) => ClusterError::Invalid(named(why)),
        ClusterError::Forbidden(why) => ClusterError::Forbidden(named(why)),
        error => error,
    }
}
