//! Reads HEAD: which applications there are, what each renders, which decisions and freezes are there.
//!
//! Everything is read by object id and remembered by it, so that an unchanged application is not even parsed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use crate::core::{
    cluster::{Kind, Scope},
    kustomize,
    ledger::DecisionFile,
    manifest::{Manifest, builtin_scope, check_across, is_manifest, parse},
    names::{AppName, BlobId, Revision},
    policy::{
        Application, Decision as Verb, DecisionBody, Freeze, Policies, RolloutPolicy, Settings, Source as Where,
        Sourced, check_applications, read_application, read_decision, read_freeze, read_policy, read_settings,
    },
    problem::Problem,
    render::{Files, RenderError, Renderer},
    repository::{Entry, EntryKind, Repository, RepositoryError},
    rollout::{
        build::build,
        input::{DecisionAtHead, HeadContent},
        plan::Inputs,
        render::Render,
    },
    validate::check_workloads,
};

/// The largest file that is read.
const LARGEST_FILE: u64 = 8 << 20;
/// Names the reader of plain YAML in plans: it changes when the same files would read as other objects.
const PLAIN: &str = "plain/1";

/// The watched branch at one commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The commit.
    pub revision: Revision,
    /// `locktender.yaml`, or its defaults.
    pub settings: Settings,
    /// What each application renders. One whose directory is gone is not here.
    pub apps: BTreeMap<AppName, HeadContent>,
    /// The freezes, and what is wrong with those that cannot be read.
    pub freezes: Vec<Result<Freeze, Problem>>,
    /// The tree of each application's ledger.
    pub ledgers: BTreeMap<AppName, BlobId>,
    /// What is wrong with `locktender.yaml`: with it nobody can tell which applications there are.
    pub broken: Option<Vec<Problem>>,
}

impl Snapshot {
    /// Returns what an application renders.
    pub fn content(&self, app: &AppName) -> HeadContent {
        match (&self.broken, self.apps.get(app)) {
            (Some(problems), _) => HeadContent::Broken(problems.clone()),
            (None, Some(content)) => content.clone(),
            (None, None) => HeadContent::Removed,
        }
    }

    /// Returns the freeze that applies to an application now. One that cannot be read holds all.
    pub fn frozen(&self, app: &AppName, now: Timestamp) -> Option<String> {
        self.freezes.iter().find_map(|freeze| match freeze {
            Ok(freeze) if freeze.applies(app, now) => Some(match &freeze.reason {
                Some(reason) => format!("{} ({reason})", freeze.name),
                None => freeze.name.clone(),
            }),
            Ok(_) => None,
            Err(problem) => Some(format!("{problem}")),
        })
    }

    /// Returns when a freeze begins or ends next.
    pub fn next_thaw(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.freezes.iter().flatten().flat_map(|freeze| [freeze.from, freeze.until]).flatten();
        times.filter(|at| *at > now).min()
    }

    /// Returns every problem, of all applications.
    pub fn problems(&self) -> Vec<Problem> {
        let contents = self.apps.values().filter_map(|content| match content {
            HeadContent::Broken(problems) => Some(problems),
            _ => None,
        });
        let freezes = self.freezes.iter().filter_map(|freeze| freeze.as_ref().err());
        let broken = self.broken.iter().flatten();
        contents.flatten().chain(freezes).chain(broken).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// One application as read, before it is looked at beside the others.
struct Read {
    /// Its directory's tree.
    tree: BlobId,
    /// The files outside of its directory that it read.
    outside: BTreeMap<String, BlobId>,
    application: Result<Sourced<Application>, Vec<Problem>>,
    manifests: Result<(Inputs, Vec<Manifest>), Vec<Problem>>,
    revision: Revision,
}

/// Policies by name, as read.
type ReadPolicies = BTreeMap<String, Result<RolloutPolicy, Vec<Problem>>>;

/// Reads applications, and remembers what it has read.
pub struct Source {
    repository: Arc<dyn Repository>,
    renderer: Arc<dyn Renderer>,
    scopes: HashMap<Kind, Scope>,
    read: BTreeMap<AppName, Arc<Read>>,
    rendered: BTreeMap<AppName, (Arc<Read>, Option<BlobId>, HeadContent)>,
    policies: Option<(Option<BlobId>, ReadPolicies)>,
    previous: BTreeMap<(AppName, Revision), Arc<Render>>,
    /// The policies' tree with which all applications were looked at beside each other last.
    looked_at: Option<BlobId>,
}

impl Source {
    /// Starts with nothing read.
    pub fn new(repository: Arc<dyn Repository>, renderer: Arc<dyn Renderer>) -> Self {
        Self {
            repository,
            renderer,
            scopes: HashMap::new(),
            read: BTreeMap::new(),
            rendered: BTreeMap::new(),
            policies: None,
            previous: BTreeMap::new(),
            looked_at: None,
        }
    }

    /// Learns where objects of a kind live, from the cluster.
    pub fn learn(&mut self, kind: Kind, scope: Scope) {
        self.scopes.insert(kind, scope);
    }

    /// Reads the watched branch at a commit.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read. What people wrote wrong is in the snapshot.
    pub async fn snapshot(&mut self, at: &Revision) -> Result<Snapshot, RepositoryError> {
        let root = self.repository.directory(at, "").await?.unwrap_or_default();
        let (settings, broken) = match self.settings(&root).await? {
            Ok(settings) => (settings, None),
            Err(problems) => (Settings::default(), Some(problems)),
        };
        let policies_tree =
            root.iter().find(|entry| entry.path == settings.paths.policies).map(|entry| entry.id.clone());
        self.read_policies(at, &settings, policies_tree.clone()).await?;
        let mut found = BTreeSet::new();
        // Commits that touch only records change nothing here, and most commits are such.
        let mut changed = false;
        for entry in self.repository.directory(at, &settings.paths.apps).await?.unwrap_or_default() {
            let Some(name) = entry.path.rsplit('/').next().filter(|_| entry.kind == EntryKind::Directory) else {
                continue;
            };
            let app = AppName::new(name);
            if !self.is_current(&app, &entry.id, at).await? {
                let Some(read) = self.read_app(at, &app, &entry.path, entry.id.clone()).await? else { continue };
                self.read.insert(app.clone(), Arc::new(read));
                changed = true;
            }
            found.insert(app);
        }
        let known = self.read.len();
        self.read.retain(|app, _| found.contains(app));
        self.rendered.retain(|app, _| found.contains(app));
        changed |= known != self.read.len() || self.looked_at != policies_tree;
        if changed {
            self.render_all(&settings, policies_tree.as_ref());
            self.looked_at.clone_from(&policies_tree);
        }
        let apps = self.rendered.iter().map(|(app, (_, _, content))| (app.clone(), content.clone())).collect();
        let freezes = self.freezes(at, &settings).await?;
        let mut ledgers = BTreeMap::new();
        for entry in self.repository.directory(at, "rollouts").await?.unwrap_or_default() {
            if let Some(name) = entry.path.rsplit('/').next().filter(|_| entry.kind == EntryKind::Directory) {
                ledgers.insert(AppName::new(name), entry.id);
            }
        }
        Ok(Snapshot { revision: at.clone(), settings, apps, freezes, ledgers, broken })
    }

    /// Reads `locktender.yaml`; its defaults where there is none.
    async fn settings(&self, root: &[Entry]) -> Result<Result<Settings, Vec<Problem>>, RepositoryError> {
        let Some(entry) = root.iter().find(|entry| entry.path == "locktender.yaml") else {
            return Ok(Ok(Settings::default()));
        };
        let bytes = self.repository.read(&entry.id, LARGEST_FILE).await?;
        Ok(read_settings(&entry.path, &bytes))
    }

    /// Returns an application as it was rendered at an earlier commit; `None` where it does not render there.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn render_at(&mut self, app: &AppName, at: &Revision) -> Result<Option<Arc<Render>>, RepositoryError> {
        if let Some(render) = self.previous.get(&(app.clone(), at.clone())) {
            return Ok(Some(render.clone()));
        }
        let mut aside = Self::new(self.repository.clone(), self.renderer.clone());
        aside.scopes.clone_from(&self.scopes);
        let Some(content) = aside.one(app, at).await? else { return Ok(None) };
        let HeadContent::Rendered(render) = content else { return Ok(None) };
        // A commit never renders differently, so this may be kept; few are needed at a time.
        if self.previous.len() > 4096 {
            self.previous.clear();
        }
        self.previous.insert((app.clone(), at.clone()), render.clone());
        Ok(Some(render))
    }

    /// Reads one application alone at a commit; `None` where it is not there.
    async fn one(&mut self, app: &AppName, at: &Revision) -> Result<Option<HeadContent>, RepositoryError> {
        let root = self.repository.directory(at, "").await?.unwrap_or_default();
        let Ok(settings) = self.settings(&root).await? else { return Ok(None) };
        let policies = root.iter().find(|entry| entry.path == settings.paths.policies).map(|entry| entry.id.clone());
        self.read_policies(at, &settings, policies.clone()).await?;
        let directory = format!("{}/{app}", settings.paths.apps);
        let apps = self.repository.directory(at, &settings.paths.apps).await?.unwrap_or_default();
        let Some(entry) = apps.into_iter().find(|entry| entry.path == directory) else { return Ok(None) };
        let Some(read) = self.read_app(at, app, &directory, entry.id).await? else { return Ok(None) };
        self.read.insert(app.clone(), Arc::new(read));
        self.render_all(&settings, policies.as_ref());
        Ok(self.rendered.get(app).map(|(_, _, content)| content.clone()))
    }

    /// Reads the decisions in a rollout's directory.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn decisions(&self, at: &Revision, directory: &str) -> Result<Vec<DecisionAtHead>, RepositoryError> {
        let mut decisions = Vec::new();
        for entry in self.repository.files(at, directory).await? {
            let Some(path) = entry.path.strip_prefix(directory).map(|path| path.trim_start_matches('/')) else {
                continue;
            };
            if matches!(path, "plan.yaml" | "journal.yaml") {
                continue;
            }
            let verb = Verb::from_path(path);
            let body = match (&verb, entry.kind) {
                (Some(_), EntryKind::File) => {
                    let bytes = self.repository.read(&entry.id, 1 << 20).await;
                    match bytes {
                        Ok(bytes) => read_decision(&entry.path, &bytes).map_err(first),
                        Err(RepositoryError::Damaged(why)) => Err(Problem::in_file(&entry.path, why)),
                        Err(error) => return Err(error),
                    }
                }
                (Some(_), _) => Err(Problem::in_file(&entry.path, "it is no plain file")),
                (None, _) => Ok(DecisionBody::default()),
            };
            let file = DecisionFile { path: path.to_owned(), blob: Some(entry.id) };
            decisions.push(DecisionAtHead { verb, file, body });
        }
        Ok(decisions)
    }

    async fn read_policies(
        &mut self,
        at: &Revision,
        settings: &Settings,
        tree: Option<BlobId>,
    ) -> Result<(), RepositoryError> {
        if self.policies.as_ref().is_some_and(|(known, _)| *known == tree) {
            return Ok(());
        }
        let mut policies = BTreeMap::new();
        for entry in self.repository.directory(at, &settings.paths.policies).await?.unwrap_or_default() {
            let file = entry.path.rsplit('/').next().unwrap_or_default();
            let Some(name) = file.strip_suffix(".yaml").filter(|_| entry.kind == EntryKind::File) else { continue };
            let bytes = self.repository.read(&entry.id, LARGEST_FILE).await?;
            policies.insert(name.to_owned(), read_policy(&entry.path, &bytes).map(|policy| policy.value));
        }
        self.policies = Some((tree, policies));
        Ok(())
    }

    /// Returns whether what was read of an application is what it is at this commit.
    async fn is_current(&self, app: &AppName, tree: &BlobId, at: &Revision) -> Result<bool, RepositoryError> {
        let Some(read) = self.read.get(app).filter(|read| read.tree == *tree) else { return Ok(false) };
        for (path, blob) in &read.outside {
            if self.file(at, path).await?.is_none_or(|entry| entry.id != *blob) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Finds one entry by its path.
    async fn file(&self, at: &Revision, path: &str) -> Result<Option<Entry>, RepositoryError> {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let entries = self.repository.directory(at, directory).await?.unwrap_or_default();
        Ok(entries.into_iter().find(|entry| entry.path == path))
    }

    async fn read_app(
        &self,
        at: &Revision,
        app: &AppName,
        directory: &str,
        tree: BlobId,
    ) -> Result<Option<Read>, RepositoryError> {
        let entries = self.repository.files(at, directory).await?;
        let file = format!("{directory}/app.yaml");
        let Some(entry) = entries.iter().find(|entry| entry.path == file) else { return Ok(None) };
        let application = match entry.kind {
            EntryKind::File => read_application(&file, &self.repository.read(&entry.id, LARGEST_FILE).await?),
            _ => Err(vec![Problem::in_file(&file, "it is no plain file")]),
        };
        let mut read =
            Read { tree, outside: BTreeMap::new(), application, manifests: Err(Vec::new()), revision: at.clone() };
        let Ok(application) = &read.application else { return Ok(Some(read)) };
        debug_assert_eq!(application.value.name, *app);
        let source = application.value.source.clone();
        let namespace = application.value.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let mut inputs = Inputs { renderer: PLAIN.to_owned(), files: BTreeMap::new() };
        inputs.files.insert(file.clone(), entry.id.clone());
        let files = match &source {
            Where::Plain { path } => {
                let below = path.trim_end_matches('/');
                let mut files = Files::new();
                let mut problems = Vec::new();
                for entry in &entries {
                    let inside = entry.path.starts_with(&format!("{below}/"));
                    if !inside || !is_manifest(directory, &entry.path) {
                        continue;
                    }
                    if entry.kind != EntryKind::File {
                        problems.push(Problem::in_file(
                            &entry.path,
                            "it is a link or a submodule, which is never followed",
                        ));
                        continue;
                    }
                    match self.repository.read(&entry.id, LARGEST_FILE).await {
                        Ok(bytes) => drop(files.insert(entry.path.clone(), bytes)),
                        Err(RepositoryError::Damaged(why)) => problems.push(Problem::in_file(&entry.path, why)),
                        Err(error) => return Err(error),
                    }
                    inputs.files.insert(entry.path.clone(), entry.id.clone());
                }
                if problems.is_empty() { Ok(files) } else { Err(problems) }
            }
            Where::Kustomize { path } => self.kustomize(at, path, directory, &mut inputs, &mut read.outside).await?,
        };
        let scope = |kind: &Kind| Some(self.scopes.get(kind).copied().unwrap_or_else(|| builtin_scope(kind)));
        read.manifests = files.and_then(|files| parse(&files, &namespace, scope)).map(|manifests| (inputs, manifests));
        Ok(Some(read))
    }

    /// Renders a Kustomize directory: reads exactly the files that it names, then lets the program do it.
    async fn kustomize(
        &self,
        at: &Revision,
        below: &str,
        directory: &str,
        inputs: &mut Inputs,
        outside: &mut BTreeMap<String, BlobId>,
    ) -> Result<Result<Files, Vec<Problem>>, RepositoryError> {
        let mut files = Files::new();
        let mut absent = BTreeSet::new();
        let mut ids = BTreeMap::new();
        let read = loop {
            match kustomize::references(below, &files, &absent) {
                Ok(read) => break read,
                Err(RenderError::Missing(path)) => {
                    // What is missing is a file, or a directory of which every file is wanted.
                    let found = match self.file(at, &path).await? {
                        Some(entry) if entry.kind == EntryKind::Directory => {
                            self.repository.directory(at, &path).await?.unwrap_or_default()
                        }
                        Some(entry) => vec![entry],
                        None => Vec::new(),
                    };
                    let before = files.len();
                    for entry in found.into_iter().filter(|entry| entry.kind != EntryKind::Directory) {
                        if entry.kind != EntryKind::File {
                            let why = "it is a link or a submodule, which is never followed";
                            return Ok(Err(vec![Problem::in_file(&entry.path, why)]));
                        }
                        let bytes = self.repository.read(&entry.id, LARGEST_FILE).await?;
                        files.insert(entry.path.clone(), bytes);
                        ids.insert(entry.path, entry.id);
                    }
                    if files.len() == before && !absent.insert(path.clone()) {
                        let why = format!("`{path}` is read but is not in the repository");
                        return Ok(Err(vec![Problem::in_file(below, why)]));
                    }
                }
                Err(error) => return Ok(Err(vec![problem_of(below, error)])),
            }
        };
        files.retain(|path, _| read.contains(path));
        for (path, id) in ids.into_iter().filter(|(path, _)| read.contains(path)) {
            if !path.starts_with(&format!("{directory}/")) {
                outside.insert(path.clone(), id.clone());
            }
            inputs.files.insert(path, id);
        }
        match self.renderer.version().await {
            Ok(version) => inputs.renderer = version,
            Err(error) => return Ok(Err(vec![problem_of(below, error)])),
        }
        Ok(match self.renderer.kustomize(below, &files).await {
            Ok(yaml) => Ok(Files::from([(format!("{below}/kustomization.yaml"), yaml.into())])),
            Err(error) => Err(vec![problem_of(below, error)]),
        })
    }

    /// Looks at all applications beside each other, and builds the renders of those that changed.
    fn render_all(&mut self, settings: &Settings, tree: Option<&BlobId>) {
        let none = BTreeMap::new();
        let policies = self.policies.as_ref().map_or(&none, |(_, policies)| policies);
        let known: Policies<'_> = policies.iter().map(|(name, policy)| (name.as_str(), policy.as_ref().ok())).collect();
        let applications: BTreeMap<AppName, &Sourced<Application>> =
            self.read.iter().filter_map(|(app, read)| Some((app.clone(), read.application.as_ref().ok()?))).collect();
        let mut wrong = check_applications(&applications, &known, &settings.paths.policies);
        let manifests = self.read.iter().filter_map(|(app, read)| Some((app, &read.manifests.as_ref().ok()?.1)));
        for (app, problems) in check_across(manifests.flat_map(|(app, all)| all.iter().map(move |one| (app, one)))) {
            wrong.entry(app).or_default().extend(problems);
        }
        for (app, read) in &self.read {
            let broken = wrong.remove(app);
            let was_broken = matches!(self.rendered.get(app), Some((_, _, HeadContent::Broken(_))));
            let same = self.rendered.get(app).is_some_and(|(before, policies, _)| {
                Arc::ptr_eq(before, read) && policies.as_ref() == tree && broken.is_none() && !was_broken
            });
            if same {
                continue;
            }
            let content = content(app, read, policies, broken);
            self.rendered.insert(app.clone(), (read.clone(), tree.cloned(), content));
        }
    }

    async fn freezes(
        &self,
        at: &Revision,
        settings: &Settings,
    ) -> Result<Vec<Result<Freeze, Problem>>, RepositoryError> {
        let mut freezes = Vec::new();
        for entry in self.repository.directory(at, &settings.paths.freezes).await?.unwrap_or_default() {
            if entry.kind != EntryKind::File || !entry.path.ends_with(".yaml") {
                continue;
            }
            let bytes = self.repository.read(&entry.id, LARGEST_FILE).await?;
            freezes.push(read_freeze(&entry.path, &bytes).map_err(first));
        }
        Ok(freezes)
    }
}

fn content(app: &AppName, read: &Read, policies: &ReadPolicies, broken: Option<Vec<Problem>>) -> HeadContent {
    let mut problems = broken.unwrap_or_default();
    let application = match &read.application {
        Ok(application) => application,
        Err(wrong) => {
            problems.extend(wrong.iter().cloned());
            return HeadContent::Broken(problems);
        }
    };
    let policy = match application.value.policy.as_ref().and_then(|name| policies.get(name)) {
        Some(Ok(policy)) => Some(policy.clone()),
        Some(Err(wrong)) => {
            problems.extend(wrong.iter().cloned());
            None
        }
        None => None,
    };
    if let (Ok((_, manifests)), true) = (&read.manifests, problems.is_empty()) {
        problems.extend(check_workloads(application, policy.as_ref(), manifests));
    }
    match &read.manifests {
        Ok((inputs, manifests)) if problems.is_empty() => {
            debug_assert_eq!(application.value.name, *app);
            let objects = manifests.iter().map(|manifest| manifest.object.clone()).collect();
            let revision = read.revision.clone();
            HeadContent::Rendered(Arc::new(build(revision, inputs.clone(), application.value.clone(), policy, objects)))
        }
        Ok(_) => HeadContent::Broken(problems),
        Err(wrong) => {
            problems.extend(wrong.iter().cloned());
            HeadContent::Broken(problems)
        }
    }
}

fn first(problems: Vec<Problem>) -> Problem {
    problems.into_iter().next().unwrap_or_else(|| Problem::in_file("", "it cannot be read"))
}

fn problem_of(path: &str, error: RenderError) -> Problem {
    match error {
        RenderError::Wrong(problem) => problem,
        other => Problem::in_file(path, other.to_string()),
    }
}
