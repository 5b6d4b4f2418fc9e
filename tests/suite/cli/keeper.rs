//! Writes ledgers as the controller does, without a cluster: plans come from the same deciding, records are composed
//! and pushed by the same code; only what the cluster would have answered is made up.

use std::sync::Arc;

use locktender::{
    adapter::{
        ask::Outside,
        clock::SystemClock,
        git::{
            GitOptions, GitRepository,
            url::{Branch, RemoteUrl},
        },
        kube::NoCluster,
        render::KustomizeRenderer,
        traffic::haproxy::Proxies,
    },
    controller::{Ports, look::Look, publish},
    core::{
        ledger::{Draft, Event},
        names::{AppName, StageName},
        repository::{Push, Repository as _},
        rollout::input::Decision,
    },
};
use tempfile::TempDir;

use crate::support::git::Remote;

pub struct Keeper {
    repository: Arc<GitRepository>,
    look: Look,
    app: AppName,
    _mirror: TempDir,
}

impl Keeper {
    pub async fn new(remote: &Remote) -> Self {
        let mirror = tempfile::tempdir().unwrap();
        let (url, branch) = (RemoteUrl::parse(&remote.url()).unwrap(), Branch::parse("main").unwrap());
        let options = GitOptions::new(url, branch, mirror.path().to_owned());
        let repository = Arc::new(GitRepository::open(options).await.unwrap());
        let ports = Ports {
            repository: repository.clone(),
            cluster: Arc::new(NoCluster),
            renderer: Arc::new(KustomizeRenderer::default()),
            ask: Arc::new(Outside::default()),
            tell: Arc::new(Proxies::default()),
            clock: Arc::new(SystemClock::new()),
        };
        Self { repository, look: Look::new(ports), app: AppName::new("checkout"), _mirror: mirror }
    }

    /// Opens a rollout to what HEAD renders.
    pub async fn open(&mut self) -> &mut Self {
        self.look.fetch().await.unwrap();
        let head = self.look.snapshot().unwrap();
        let preview = self.look.preview(&self.app, &head).await.unwrap();
        assert!(preview.decision.open.is_some(), "{:?}", preview.decision.report);
        self.publish(preview.decision).await
    }

    /// Records what the controller would.
    pub async fn record(&mut self, drafts: Vec<Draft>) -> &mut Self {
        self.look.fetch().await.unwrap();
        let state = self.look.rollouts(&self.app).last().unwrap().clone();
        let mut decision = self.look.decide(&self.app).await.unwrap();
        decision.open = None;
        decision.edits = None;
        decision.records = drafts.into_iter().map(|draft| (state.plan.rollout.number, draft)).collect();
        self.publish(decision).await
    }

    /// A stage is there and waits; what is in the directory already is listed.
    pub async fn waits(&mut self, stage: &str) -> &mut Self {
        self.look.fetch().await.unwrap();
        let listed = locktender::core::rollout::input::files(self.look.decisions(&self.app));
        let name = StageName::new(stage);
        let why = "every pod of the stage is ready; its confirm is missing";
        self.record(vec![Draft::new(Event::StageWaiting, Some(&name), why).listing(listed)]).await
    }

    /// A confirm is accepted and the next stage started.
    pub async fn accepts(&mut self, stage: &str, next: &str) -> &mut Self {
        self.look.fetch().await.unwrap();
        let path = format!("confirm/{stage}.yaml");
        let file = self.look.decisions(&self.app).iter().find(|decision| decision.file.path == path);
        let file = file.unwrap().file.clone();
        let (name, next) = (StageName::new(stage), StageName::new(next));
        let accepted = Draft::new(Event::ConfirmAccepted, Some(&name), path).with(|it| it.decision = Some(file));
        let started = Draft::new(Event::StageStarted, Some(&next), format!("{stage} is confirmed"));
        self.record(vec![accepted, started]).await
    }

    /// The last stage is there.
    pub async fn completes(&mut self) -> &mut Self {
        self.look.fetch().await.unwrap();
        let to = self.look.rollouts(&self.app).last().unwrap().plan.to.clone();
        let completed = Draft::new(Event::Completed, None, "10 pods").with(|it| {
            it.revision = Some(to.revision);
            it.digest = Some(to.digest);
            it.workloads = to.workloads;
        });
        self.record(vec![completed]).await
    }

    async fn publish(&mut self, decision: Decision) -> &mut Self {
        let head = self.look.head().unwrap().clone();
        let ledger = self.look.ledger(&self.app).unwrap();
        let publication = publish::compose(&self.app, ledger, &decision, &head, self.look.now());
        let pushed = self.repository.push(&head, &publish::commits(&[&publication], self.look.now())).await.unwrap();
        assert!(matches!(pushed, Push::Accepted(_)), "{pushed:?}");
        self.look.fetch().await.unwrap();
        self
    }
}
