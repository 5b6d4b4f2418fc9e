//! Reads HEAD: which applications there are, what each renders, which decisions and freezes are there.
//!
//! What differs from the commit that was read before is read, and what that may concern is looked at again. Everything
//! else stays as it is: the same object ids are the same content.

mod astray;
mod branch;
mod read;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

pub use self::astray::homeless;
pub(super) use self::astray::{astray, ledger_of};
pub use self::branch::{Branch, News, Snapshot};
pub(super) use self::read::AT_A_TIME;
use self::read::{Read, Reader};
use crate::core::{
    cluster::{Kind, Scope},
    ledger::DecisionFile,
    manifest::{Claims, check_across, is_manifest},
    names::{AppName, Revision},
    policy::{
        Decision as Verb, DecisionBody, Freeze, Others, Paths, Policies, RolloutPolicy, Settings, check_applications,
        check_policy, read_decision,
    },
    problem::Problem,
    render::Renderer,
    repository::{Change, EntryKind, Repository, RepositoryError},
    rollout::{
        build::build,
        input::{DecisionAtHead, HeadContent},
        render::Render,
    },
    validate::check_workloads,
};

/// Returns a policy, or the first problem of its file.
fn readable(policy: &Result<RolloutPolicy, Vec<Problem>>) -> Result<&RolloutPolicy, Option<&Problem>> {
    policy.as_ref().map_err(|problems| problems.first())
}

/// Policies by name, as read.
type ReadPolicies = BTreeMap<String, Result<RolloutPolicy, Vec<Problem>>>;

/// What was read of a commit, before anything of it counts: reading may fail half-way.
struct Fresh {
    settings: Settings,
    broken: Option<Vec<Problem>>,
    /// By path; `None` is gone.
    policies: BTreeMap<String, Option<Result<RolloutPolicy, Vec<Problem>>>>,
    freezes: BTreeMap<String, Option<Result<Freeze, Problem>>>,
    apps: BTreeMap<AppName, Option<Read>>,
}

/// Reads applications, and remembers what it has read.
pub struct Source {
    reader: Reader,
    branch: Option<Branch>,
    read: BTreeMap<AppName, Read>,
    contents: BTreeMap<AppName, HeadContent>,
    policies: ReadPolicies,
    freezes: BTreeMap<String, Result<Freeze, Problem>>,
    /// What the others make wrong with an application.
    wrong: BTreeMap<AppName, Vec<Problem>>,
    claims: Claims,
    /// Which applications name a policy.
    using: BTreeMap<String, BTreeSet<AppName>>,
    /// Which applications depend on others.
    dependents: BTreeSet<AppName>,
    /// Which applications read a path outside of their directory.
    outside: BTreeMap<String, BTreeSet<AppName>>,
    /// Those that were there, and are not.
    gone: BTreeSet<AppName>,
    /// Those that are read again though nothing of theirs changes.
    again: BTreeSet<AppName>,
    previous: BTreeMap<(AppName, Revision), Arc<Render>>,
}

impl Source {
    /// Starts with nothing read.
    pub fn new(repository: Arc<dyn Repository>, renderer: Arc<dyn Renderer>) -> Self {
        Self {
            reader: Reader { repository, renderer, scopes: HashMap::new() },
            branch: None,
            read: BTreeMap::new(),
            contents: BTreeMap::new(),
            policies: BTreeMap::new(),
            freezes: BTreeMap::new(),
            wrong: BTreeMap::new(),
            claims: Claims::default(),
            using: BTreeMap::new(),
            dependents: BTreeSet::new(),
            outside: BTreeMap::new(),
            gone: BTreeSet::new(),
            again: BTreeSet::new(),
            previous: BTreeMap::new(),
        }
    }

    /// Learns where objects of a kind live, from the cluster.
    pub fn learn(&mut self, kind: Kind, scope: Scope) {
        self.reader.scopes.insert(kind, scope);
    }

    /// Reads the watched branch at a commit: all of it the first time, then what differs.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read; what was read before stays. What people wrote wrong is in the contents.
    pub async fn advance(&mut self, at: &Revision) -> Result<News, RepositoryError> {
        let changes = match &self.branch {
            Some(before) => self.reader.repository.changes(&before.revision, at).await?,
            None => None,
        };
        let before = self.branch.as_ref().filter(|before| before.broken.is_none()).map(|before| &before.settings);
        let fresh = match (before, &changes) {
            (Some(settings), Some(changes)) if !changes.iter().any(|change| change.path == "locktender.yaml") => {
                self.read_changes(at, settings, changes).await?
            }
            _ => self.read_everything(at).await?,
        };
        let contents = self.take(at, fresh);
        // `take` has just set it.
        let branch = self.branch.clone().ok_or_else(|| RepositoryError::UnknownRevision(at.clone()))?;
        Ok(News { branch, contents, changes })
    }

    /// Reads the watched branch at a commit, and returns all of it.
    ///
    /// # Errors
    ///
    /// As [`Source::advance`].
    pub async fn snapshot(&mut self, at: &Revision) -> Result<Snapshot, RepositoryError> {
        let branch = self.advance(at).await?.branch;
        Ok(Snapshot { branch, apps: self.contents.clone() })
    }

    /// Returns what every application renders. One whose directory is gone is not here.
    pub fn contents(&self) -> &BTreeMap<AppName, HeadContent> {
        &self.contents
    }

    /// Returns what an application renders.
    pub fn content(&self, app: &AppName) -> HeadContent {
        match (self.branch.as_ref().and_then(|branch| branch.broken.clone()), self.contents.get(app)) {
            (Some(problems), _) => HeadContent::Broken(problems),
            (None, Some(content)) => content.clone(),
            (None, None) => HeadContent::Removed,
        }
    }

    async fn read_everything(&self, at: &Revision) -> Result<Fresh, RepositoryError> {
        let repository = &self.reader.repository;
        let root = repository.directory(at, "").await?.unwrap_or_default();
        let (settings, broken) = match self.reader.settings(&root).await? {
            Ok(settings) => (settings, None),
            Err(problems) => (Settings::default(), Some(problems)),
        };
        let mut policies: BTreeMap<_, _> = self.policies.keys().map(|name| (name.clone(), None)).collect();
        for entry in repository.directory(at, &settings.paths.policies).await?.unwrap_or_default() {
            if let Some(name) = policy_name(&settings, &entry.path).filter(|_| entry.kind == EntryKind::File) {
                policies.insert(name.to_owned(), Some(self.reader.policy(&entry.path, &entry.id).await?));
            }
        }
        let mut freezes: BTreeMap<_, _> = self.freezes.keys().map(|path| (path.clone(), None)).collect();
        for entry in repository.directory(at, &settings.paths.freezes).await?.unwrap_or_default() {
            if is_freeze(&settings, &entry.path) && entry.kind == EntryKind::File {
                freezes.insert(entry.path.clone(), Some(self.reader.freeze(&entry.path, &entry.id).await?));
            }
        }
        let mut apps: BTreeMap<_, _> = self.read.keys().map(|app| (app.clone(), None)).collect();
        let entries = repository.directory(at, &settings.paths.apps).await?.unwrap_or_default();
        let directories = entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
        let named = directories.filter_map(|entry| app_of(&settings, &entry.path)).collect();
        apps.extend(self.reader.applications(at, &settings, named).await?);
        Ok(Fresh { settings, broken, policies, freezes, apps })
    }

    async fn read_changes(
        &self,
        at: &Revision,
        settings: &Settings,
        changes: &[Change],
    ) -> Result<Fresh, RepositoryError> {
        let mut fresh = Fresh {
            settings: settings.clone(),
            broken: None,
            policies: BTreeMap::new(),
            freezes: BTreeMap::new(),
            apps: BTreeMap::new(),
        };
        let mut concerned = self.again.clone();
        for change in changes {
            let path = change.path.as_str();
            concerned.extend(app_of(settings, path));
            concerned.extend(self.readers_of(path).cloned());
            let file = change.now.as_ref().filter(|(_, kind)| *kind == EntryKind::File).map(|(blob, _)| blob);
            if let Some(name) = policy_name(settings, path) {
                let read = match file {
                    Some(blob) => Some(self.reader.policy(path, blob).await?),
                    None => None,
                };
                fresh.policies.insert(name.to_owned(), read);
            }
            if is_freeze(settings, path) {
                let read = match file {
                    Some(blob) => Some(self.reader.freeze(path, blob).await?),
                    None => None,
                };
                fresh.freezes.insert(path.to_owned(), read);
            }
        }
        let read = self.reader.applications(at, settings, concerned).await?;
        fresh.apps = read.into_iter().filter(|(app, read)| read.is_some() || self.read.contains_key(app)).collect();
        Ok(fresh)
    }

    /// Returns the applications that read this path, or a directory above it, from outside of their own directory.
    fn readers_of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a AppName> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let ends = ends.filter(|_| !self.outside.is_empty());
        ends.filter_map(|end| self.outside.get(&path[..end])).flatten()
    }

    /// Takes what was read, and looks again at whatever that may concern. Returns the contents that may be others now.
    fn take(&mut self, at: &Revision, fresh: Fresh) -> BTreeMap<AppName, HeadContent> {
        let was_broken = self.branch.as_ref().is_some_and(|before| before.broken.is_some());
        let Fresh { settings, broken, policies, freezes, apps } = fresh;
        let policies = self.take_policies(policies);
        for (path, freeze) in freezes {
            match freeze {
                Some(freeze) => drop(self.freezes.insert(path, freeze)),
                None => drop(self.freezes.remove(&path)),
            }
        }
        let changed = self.take_apps(apps, &policies, &settings);
        // What is rendered at a commit is rendered under the policy of that commit: an older one had another.
        for app in policies.iter().filter_map(|name| self.using.get(name)).flatten() {
            if let Some(read) = self.read.get_mut(app) {
                read.revision = at.clone();
            }
        }
        let mut contents = BTreeMap::new();
        for app in changed {
            let content = self.read.get(&app).map(|read| {
                content(&app, read, self.policy_of(read), self.wrong.get(&app).cloned().unwrap_or_default())
            });
            match content {
                Some(content) => {
                    self.gone.remove(&app);
                    self.contents.insert(app.clone(), content.clone());
                    contents.insert(app, content);
                }
                None => {
                    self.contents.remove(&app);
                    self.gone.insert(app.clone());
                    contents.insert(app, HeadContent::Removed);
                }
            }
        }
        let freezes = self.freezes.values().cloned().collect();
        if let Some(problems) = &broken {
            // Nobody can tell whether what is not found is gone, or only lies elsewhere.
            let names = self.read.keys().chain(&self.gone);
            contents = names.map(|app| (app.clone(), HeadContent::Broken(problems.clone()))).collect();
        } else if was_broken {
            contents.extend(self.gone.iter().map(|app| (app.clone(), HeadContent::Removed)));
            contents.extend(self.contents.iter().map(|(app, content)| (app.clone(), content.clone())));
        }
        self.branch = Some(Branch { revision: at.clone(), settings, freezes, broken });
        contents
    }

    /// Takes policies; returns the names of those that are others now.
    fn take_policies(
        &mut self,
        fresh: BTreeMap<String, Option<Result<RolloutPolicy, Vec<Problem>>>>,
    ) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for (name, policy) in fresh {
            if self.policies.get(&name) == policy.as_ref() {
                continue;
            }
            match policy {
                Some(policy) => drop(self.policies.insert(name.clone(), policy)),
                None => drop(self.policies.remove(&name)),
            }
            changed.insert(name);
        }
        changed
    }

    /// Takes applications, and looks at them beside the others; returns those that may render something else now.
    fn take_apps(
        &mut self,
        fresh: BTreeMap<AppName, Option<Read>>,
        policies: &BTreeSet<String>,
        settings: &Settings,
    ) -> BTreeSet<AppName> {
        let mut changed: BTreeSet<AppName> = fresh.keys().cloned().collect();
        let mut in_the_way = changed.clone();
        for app in fresh.keys() {
            in_the_way.extend(self.claims.beside(app));
        }
        let mut depends_differently = false;
        for (app, read) in fresh {
            depends_differently |= self.replace(app, read);
        }
        for app in &changed {
            in_the_way.extend(self.claims.beside(app));
        }
        changed.extend(policies.iter().filter_map(|name| self.using.get(name)).flatten().cloned());
        // Whoever has a problem with a name that is not there may have it no more.
        let mut again = if policies.is_empty() { BTreeSet::new() } else { self.wrong.keys().cloned().collect() };
        again.extend(changed.iter().chain(&in_the_way).cloned());
        if depends_differently {
            again.extend(self.dependents.iter().cloned());
        }
        for (app, problems) in self.look_beside(&again, settings) {
            let before =
                if problems.is_empty() { self.wrong.remove(&app) } else { self.wrong.insert(app.clone(), problems) };
            if before.as_ref() != self.wrong.get(&app) {
                changed.insert(app);
            }
        }
        changed
    }

    /// Puts what was read in place of what was; returns whether others that depend on it may see that.
    fn replace(&mut self, app: AppName, read: Option<Read>) -> bool {
        let depends = |read: Option<&Read>| {
            let application = read.and_then(|read| read.application.as_ref().ok());
            application.map(|application| application.value.depends_on.clone())
        };
        let before = self.read.remove(&app);
        let differs = depends(before.as_ref()) != depends(read.as_ref());
        if let Some(before) = before {
            take_out(&mut self.outside, before.outside.iter(), &app);
            let policy = before.application.iter().filter_map(|application| application.value.policy.as_ref());
            take_out(&mut self.using, policy, &app);
        }
        self.dependents.remove(&app);
        self.again.remove(&app);
        let Some(read) = read else {
            self.claims.remove(&app);
            return differs;
        };
        let manifests = read.manifests.as_ref().map(|(_, manifests)| manifests.open()).unwrap_or_default();
        self.claims.set(&app, manifests.iter());
        for path in &read.outside {
            self.outside.entry(path.clone()).or_default().insert(app.clone());
        }
        if let Ok(application) = &read.application {
            if let Some(policy) = &application.value.policy {
                self.using.entry(policy.clone()).or_default().insert(app.clone());
            }
            if !application.value.depends_on.is_empty() {
                self.dependents.insert(app.clone());
            }
        }
        if read.again {
            self.again.insert(app.clone());
        }
        self.read.insert(app, read);
        differs
    }

    /// Returns what the others make wrong with each of some applications.
    fn look_beside(&self, some: &BTreeSet<AppName>, settings: &Settings) -> BTreeMap<AppName, Vec<Problem>> {
        let others = Others {
            get: &|app| self.read.get(app)?.application.as_ref().ok(),
            names: &|| self.read.iter().filter(|(_, read)| read.application.is_ok()).map(|(app, _)| app).collect(),
        };
        let policies: Policies<'_> =
            self.policies.iter().map(|(name, policy)| (name.as_str(), readable(policy))).collect();
        let mut wrong = check_applications(some, &others, &policies, settings);
        let near: BTreeSet<AppName> = some.iter().flat_map(|app| self.claims.beside(app)).collect();
        let read = near.iter().filter_map(|app| self.read.get_key_value(app));
        let manifests = read.filter_map(|(app, read)| Some((app, read.manifests.as_ref().ok()?.1.open())));
        let manifests: Vec<_> = manifests.collect();
        let manifests = manifests.iter().map(|(app, manifests)| (*app, manifests));
        for (app, problems) in check_across(manifests.flat_map(|(app, all)| all.iter().map(move |one| (app, one)))) {
            wrong.entry(app).or_default().extend(problems);
        }
        some.iter().map(|app| (app.clone(), wrong.remove(app).unwrap_or_default())).collect()
    }

    fn policy_of(&self, read: &Read) -> Option<&Result<RolloutPolicy, Vec<Problem>>> {
        self.policies.get(read.application.as_ref().ok()?.value.policy.as_ref()?)
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
        let Some(HeadContent::Rendered(render)) = self.alone(app, at).await? else { return Ok(None) };
        // A commit never renders differently, so this may be kept; few are needed at a time.
        if self.previous.len() > 4096 {
            self.previous.clear();
        }
        self.previous.insert((app.clone(), at.clone()), render.clone());
        Ok(Some(render))
    }

    /// Reads one application at a commit, without the others; `None` where it is not there.
    async fn alone(&self, app: &AppName, at: &Revision) -> Result<Option<HeadContent>, RepositoryError> {
        let root = self.reader.repository.directory(at, "").await?.unwrap_or_default();
        let Ok(settings) = self.reader.settings(&root).await? else { return Ok(None) };
        let directory = format!("{}/{app}", settings.paths.apps);
        let Some(read) = self.reader.application(at, app, &directory).await? else { return Ok(None) };
        let Ok(application) = &read.application else { return Ok(None) };
        let mut policy = None;
        if let Some(name) = &application.value.policy {
            let path = format!("{}/{name}.yaml", settings.paths.policies);
            let entry = self.reader.file(at, &path).await?.filter(|entry| entry.kind == EntryKind::File);
            if let Some(entry) = entry {
                policy = Some(self.reader.policy(&path, &entry.id).await?);
            }
        }
        let name = application.value.policy.as_deref().zip(policy.as_ref());
        let policies: Policies<'_> = name.map(|(name, policy)| (name, readable(policy))).into_iter().collect();
        let wrong = check_policy(application, &policies, &settings);
        Ok(Some(content(app, &read, policy.as_ref(), wrong.into_iter().collect())))
    }

    /// Lists the decisions in a rollout's directory.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn decision_files(&self, at: &Revision, directory: &str) -> Result<Vec<DecisionFile>, RepositoryError> {
        let entries = self.reader.repository.files(at, directory).await?.into_iter();
        let files = entries.filter_map(|entry| {
            let path = entry.path.strip_prefix(directory)?.strip_prefix('/')?;
            let is_record = matches!(path, "plan.yaml" | "journal.yaml");
            (!is_record).then(|| DecisionFile { path: path.to_owned(), blob: Some(entry.id.clone()) })
        });
        Ok(files.collect())
    }

    /// Reads the decisions in a rollout's directory.
    ///
    /// # Errors
    ///
    /// The mirror cannot be read.
    pub async fn decisions(&self, at: &Revision, directory: &str) -> Result<Vec<DecisionAtHead>, RepositoryError> {
        let mut decisions = Vec::new();
        for entry in self.reader.repository.files(at, directory).await? {
            let Some(path) = entry.path.strip_prefix(directory).map(|path| path.trim_start_matches('/')) else {
                continue;
            };
            if matches!(path, "plan.yaml" | "journal.yaml") {
                continue;
            }
            let verb = Verb::from_path(path);
            let body = match (&verb, entry.kind) {
                (Some(_), EntryKind::File) => {
                    let bytes = self.reader.repository.read(&entry.id, 1 << 20).await;
                    match bytes {
                        Ok(bytes) => {
                            read_decision(&entry.path, &bytes).map_err(|problems| first(problems, &entry.path))
                        }
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
}

/// Lists the directories where applications lie that have manifests and no `app.yaml`: nobody releases those.
///
/// # Errors
///
/// The mirror cannot be read.
pub async fn strays(
    repository: &dyn Repository,
    at: &Revision,
    paths: &Paths,
) -> Result<BTreeSet<String>, RepositoryError> {
    let mut strays = BTreeSet::new();
    for directory in repository.directory(at, &paths.apps).await?.unwrap_or_default() {
        if directory.kind != EntryKind::Directory {
            continue;
        }
        let files = repository.files(at, &directory.path).await?;
        let app = format!("{}/app.yaml", directory.path);
        let has_manifests = files.iter().any(|file| is_manifest(&directory.path, &file.path));
        if has_manifests && !files.iter().any(|file| file.path == app) {
            strays.insert(directory.path);
        }
    }
    Ok(strays)
}

fn take_out<'a>(
    index: &mut BTreeMap<String, BTreeSet<AppName>>,
    keys: impl Iterator<Item = &'a String>,
    app: &AppName,
) {
    for key in keys {
        if let Some(apps) = index.get_mut(key) {
            apps.remove(app);
            if apps.is_empty() {
                index.remove(key);
            }
        }
    }
}

/// Returns what lies directly in a directory: `checkout` for `apps` and `apps/checkout/app.yaml`.
fn below<'p>(directory: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(directory)?.strip_prefix('/')
}

/// Returns the application in whose directory a path lies, or whose directory it is.
fn app_of(settings: &Settings, path: &str) -> Option<AppName> {
    below(&settings.paths.apps, path)?.split('/').next().map(AppName::new)
}

/// Returns the name of the policy whose file this is.
fn policy_name<'p>(settings: &Settings, path: &'p str) -> Option<&'p str> {
    below(&settings.paths.policies, path)?.strip_suffix(".yaml").filter(|name| !name.contains('/'))
}

fn is_freeze(settings: &Settings, path: &str) -> bool {
    below(&settings.paths.freezes, path).is_some_and(|name| name.ends_with(".yaml") && !name.contains('/'))
}

/// Builds what an application renders, unless something is wrong with it, or the others make it wrong.
fn content(
    app: &AppName,
    read: &Read,
    policy: Option<&Result<RolloutPolicy, Vec<Problem>>>,
    wrong: Vec<Problem>,
) -> HeadContent {
    let mut problems = wrong;
    let application = match &read.application {
        Ok(application) => application,
        Err(wrong) => {
            problems.extend(wrong.iter().cloned());
            return HeadContent::Broken(problems);
        }
    };
    let policy = match policy {
        Some(Ok(policy)) => Some(policy.clone()),
        Some(Err(wrong)) => {
            problems.extend(wrong.iter().cloned());
            None
        }
        None => None,
    };
    let manifests = read.manifests.as_ref().map(|(inputs, manifests)| (inputs, manifests.open()));
    if let (Ok((_, manifests)), true) = (&manifests, problems.is_empty()) {
        problems.extend(check_workloads(application, policy.as_ref(), manifests));
    }
    match manifests {
        Ok((inputs, manifests)) if problems.is_empty() => {
            debug_assert_eq!(application.value.name, *app);
            let objects = manifests.into_iter().map(|manifest| manifest.object).collect();
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

fn first(problems: Vec<Problem>, path: &str) -> Problem {
    problems.into_iter().next().unwrap_or_else(|| Problem::in_file(path, "it cannot be read"))
}
