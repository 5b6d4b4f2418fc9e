//! Reading HEAD: what differs is read and looked at again, and that is as good as reading everything.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use jiff::Timestamp;
use locktender::{
    adapter::{
        git::{
            memory::MemoryRepository,
            objects::{ObjectError, Objects, Who},
            over::OverObjects,
        },
        render::KustomizeRenderer,
    },
    controller::source::Source,
    core::{
        names::{AppName, Revision},
        repository::{CommitDraft, Push, RepositoryError},
        rollout::input::HeadContent,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

/// A repository that counts what it is asked.
struct Counting {
    repository: Mutex<MemoryRepository>,
    asked: AtomicUsize,
}

impl Counting {
    fn new() -> Arc<Self> {
        let repository = Mutex::new(MemoryRepository::new().unwrap());
        Arc::new(Self { repository, asked: AtomicUsize::new(0) })
    }

    /// Commits these files, and removes all others of `before`.
    fn commit(&self, before: &BTreeMap<String, String>, files: &BTreeMap<String, String>) -> Revision {
        let gone = before.keys().filter(|path| !files.contains_key(*path)).map(|path| (path.clone(), None));
        let edits = files.iter().map(|(path, text)| (path.clone(), Some(text.clone().into_bytes()))).chain(gone);
        let mut repository = self.repository.lock().unwrap();
        let parents: Vec<Revision> = repository.tip("main").into_iter().cloned().collect();
        let time = Timestamp::from_second(1_795_000_000).unwrap();
        let made = repository.commit(&edits.collect(), &parents, &Who::default(), "a commit", time).unwrap();
        repository.set_tip("main", Some(made.clone()));
        made
    }
}

#[async_trait]
impl OverObjects for Counting {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'o> Fn(Objects<'o>) -> Result<T, ObjectError> + Clone + Send + 'static,
    ) -> Result<T, RepositoryError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        question(self.repository.lock().unwrap().objects()).map_err(RepositoryError::from)
    }

    async fn fetch(&self) -> Result<Revision, RepositoryError> {
        unreachable!("nothing is fetched")
    }

    async fn tip(&self) -> Result<Option<Revision>, RepositoryError> {
        Ok(self.repository.lock().unwrap().tip("main").cloned())
    }

    async fn push(&self, _: &Revision, _: &[CommitDraft]) -> Result<Push, RepositoryError> {
        unreachable!("nothing is pushed")
    }

    async fn changed(&self) {}
}

fn source(repository: &Arc<Counting>) -> Source {
    Source::new(repository.clone(), Arc::new(KustomizeRenderer::default()))
}

fn application(name: &str, spec: &str) -> (String, String) {
    let text = format!(
        "apiVersion: locktender.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\nspec: {{namespace: shop{spec}}}\n"
    );
    (format!("apps/{name}/app.yaml"), text)
}

fn config(app: &str, name: &str, value: &str) -> (String, String) {
    let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: '{value}'}}\n");
    (format!("apps/{app}/config.yaml"), text)
}

fn deployment(app: &str, selects: &str, labels: &str) -> (String, String) {
    let text = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {app}}}\nspec:\n  replicas: 2\n  selector: {selects}\n  \
         template:\n    metadata: {{labels: {labels}}}\n    spec: {{containers: [{{name: app, image: 'x:1'}}]}}\n"
    );
    (format!("apps/{app}/deployment.yaml"), text)
}

#[tokio::test]
async fn what_a_head_costs_follows_what_it_changed() {
    let mut costs = Vec::new();
    for count in [3, 300] {
        let repository = Counting::new();
        let apps = (0..count).map(|n| format!("app-{n}"));
        let mut files: BTreeMap<String, String> =
            apps.flat_map(|app| [application(&app, ""), config(&app, &app, "0")]).collect();
        let mut source = source(&repository);
        let first = repository.commit(&BTreeMap::new(), &files);
        assert_eq!(source.advance(&first).await.unwrap().contents.len(), count);
        files.extend([config("app-1", "app-1", "1")]);
        let changed = repository.commit(&BTreeMap::new(), &files);
        let before = repository.asked.load(Ordering::Relaxed);
        let news = source.advance(&changed).await.unwrap();
        assert_eq!(news.contents.keys().collect::<Vec<_>>(), [&AppName::new("app-1")]);
        files.insert("rollouts/app-1/0001/journal.yaml".to_owned(), "a record".to_owned());
        let recorded = repository.commit(&BTreeMap::new(), &files);
        assert!(source.advance(&recorded).await.unwrap().contents.is_empty(), "records release nothing");
        costs.push(repository.asked.load(Ordering::Relaxed) - before);
    }
    assert_eq!(costs[0], costs[1], "questions to the mirror");
}

/// What one application may be, by a number.
fn variant(app: &str, number: usize) -> Vec<(String, String)> {
    let own = format!("{{matchLabels: {{app: {app}}}}}");
    let labels = format!("{{app: {app}, tier: web}}");
    match number {
        0 => Vec::new(),
        1 => vec![application(app, ""), config(app, app, "1")],
        2 => vec![application(app, ""), config(app, "same", app)],
        3 => vec![application(app, ", policy: p"), deployment(app, &own, &labels)],
        4 => vec![application(app, ""), deployment(app, "{matchLabels: {tier: web}}", &labels)],
        5 => vec![application(app, ", dependsOn: [a]"), config(app, app, "1")],
        6 => vec![application(app, ", dependsOn: [b, c]"), config(app, "same", app)],
        7 => vec![application(app, ", surprise: 1"), config(app, app, "1")],
        _ => vec![application(app, ", policy: q"), (format!("apps/{app}/config.yaml"), "kind: [\n".to_owned())],
    }
}

fn policies(number: usize) -> Vec<(String, String)> {
    let policy = |name: &str, batch: &str| {
        let text = format!(
            "apiVersion: locktender.dev/v1alpha1\nkind: RolloutPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{strategy: {{batched: {{batchSize: {batch}}}}}}}\n"
        );
        (format!("policies/{name}.yaml"), text)
    };
    match number {
        0 => Vec::new(),
        1 => vec![policy("p", "1")],
        2 => vec![policy("p", "2"), policy("q", "1")],
        3 => vec![policy("p", "many")],
        _ => vec![policy("p", "1"), ("locktender.yaml".to_owned(), "kind: [\n".to_owned())],
    }
}

/// What is comparable of a content: the commit that it was read at is not.
fn told(source: &Source) -> BTreeMap<String, String> {
    let all = source.contents().keys().map(|app| {
        let text = match source.content(app) {
            HeadContent::Removed => "removed".to_owned(),
            HeadContent::Broken(mut problems) => {
                problems.sort();
                format!("{problems:#?}")
            }
            HeadContent::Rendered(render) => format!("{} {:?} {:?}", render.digest, render.digests, render.policy),
        };
        (app.to_string(), text)
    });
    all.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_what_differs_is_as_good_as_reading_everything(
        steps in vec((0..9_usize, 0..9_usize, 0..9_usize, select(vec![0_usize, 1, 1, 1, 2, 2, 3, 4])), 2..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let repository = Counting::new();
            let mut followed = source(&repository);
            let mut seen: BTreeMap<AppName, String> = BTreeMap::new();
            let mut before = BTreeMap::new();
            for (a, b, c, policy) in steps {
                let apps = [variant("a", a), variant("b", b), variant("c", c), policies(policy)];
                let files: BTreeMap<String, String> = apps.into_iter().flatten().collect();
                let at = repository.commit(&before, &files);
                before = files;
                let news = followed.advance(&at).await.unwrap();
                let mut whole = source(&repository);
                whole.advance(&at).await.unwrap();
                assert_eq!(told(&followed), told(&whole));
                // Who was told of each piece of news knows the same as who asks now.
                for (app, content) in news.contents {
                    seen.insert(app, format!("{content:?}"));
                }
                let now = |app: &AppName| format!("{:?}", followed.content(app));
                assert!(followed.contents().keys().all(|app| seen.contains_key(app)));
                assert!(seen.iter().all(|(app, content)| *content == now(app)), "{seen:#?}");
            }
        });
    }
}
