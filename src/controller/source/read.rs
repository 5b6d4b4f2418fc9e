//! Reads one application at one commit: its file, its manifests, and whatever else a Kustomize directory names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::core::{
    cluster::{Kind, Scope},
    kustomize,
    manifest::{Manifest, Object, builtin_scope, is_manifest, parse},
    names::{AppName, BlobId, Revision},
    policy::{
        Application, Freeze, RolloutPolicy, Settings, Source as Where, Sourced, read_application, read_freeze,
        read_policy, read_settings,
    },
    problem::Problem,
    render::{Files, RenderError, Renderer},
    repository::{Entry, EntryKind, Repository, RepositoryError},
    rollout::plan::Inputs,
    yaml::Span,
};

/// How many applications are read at a time.
pub(in crate::controller) const AT_A_TIME: usize = 32;
/// The largest file that is read.
const LARGEST_FILE: u64 = 8 << 20;
/// Names the reader of plain YAML in plans: it changes when the same files would read as other objects.
const PLAIN: &str = "plain/1";

/// One application as read, before it is looked at beside the others.
pub(super) struct Read {
    /// The paths outside of its directory that it asked for, whether there was something or not.
    pub outside: BTreeSet<String>,
    /// Whether only this machine was in the way: worth another try though nothing changed.
    pub again: bool,
    pub application: Result<Sourced<Application>, Vec<Problem>>,
    pub manifests: Result<(Inputs, Packed), Vec<Problem>>,
    pub revision: Revision,
}

/// Manifests as they are kept: as text, which takes a tenth of the room. They are looked at again only where what lies
/// beside them changes.
pub(super) enum Packed {
    /// The objects, as JSON, and the file of each with where it starts there.
    Text(Box<[u8]>, Box<[(Arc<str>, Span)]>),
    /// What would come back as something else: digests must not depend on how it is kept.
    Open(Vec<Manifest>),
}

impl Packed {
    fn new(manifests: Vec<Manifest>) -> Self {
        let objects: Vec<&Object> = manifests.iter().map(|manifest| &manifest.object).collect();
        let mut files: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut file = |name: &str| match files.get(name) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = name.into();
                files.insert(new.clone());
                new
            }
        };
        let text = serde_json::to_vec(&objects).unwrap_or_default();
        let is_same = serde_json::from_slice::<Vec<Object>>(&text).is_ok_and(|read| read.iter().eq(objects));
        let places = manifests.iter().map(|manifest| (file(&manifest.file), manifest.span)).collect();
        if is_same { Self::Text(text.into(), places) } else { Self::Open(manifests) }
    }

    /// Returns the manifests.
    pub fn open(&self) -> Vec<Manifest> {
        let (objects, places) = match self {
            Self::Text(objects, places) => (objects, places),
            Self::Open(manifests) => return manifests.clone(),
        };
        // It was read once already.
        let objects: Vec<Object> = serde_json::from_slice(objects).unwrap_or_default();
        let manifest = |(object, (file, span)): (Object, &(Arc<str>, Span))| Manifest {
            object,
            file: file.to_string(),
            span: *span,
        };
        objects.into_iter().zip(places.iter()).map(manifest).collect()
    }
}

/// Reads the files of a release repository.
#[derive(Clone)]
pub(super) struct Reader {
    pub repository: Arc<dyn Repository>,
    pub renderer: Arc<dyn Renderer>,
    pub scopes: HashMap<Kind, Scope>,
}

impl Reader {
    /// Reads `locktender.yaml`; its defaults where there is none.
    pub async fn settings(&self, root: &[Entry]) -> Result<Result<Settings, Vec<Problem>>, RepositoryError> {
        let Some(entry) = root.iter().find(|entry| entry.path == "locktender.yaml") else {
            return Ok(Ok(Settings::default()));
        };
        let bytes = self.repository.read(&entry.id, LARGEST_FILE).await?;
        Ok(read_settings(&entry.path, &bytes))
    }

    /// Reads one policy.
    pub async fn policy(
        &self,
        path: &str,
        blob: &BlobId,
    ) -> Result<Result<RolloutPolicy, Vec<Problem>>, RepositoryError> {
        let bytes = self.repository.read(blob, LARGEST_FILE).await?;
        Ok(read_policy(path, &bytes).map(|policy| policy.value))
    }

    /// Reads one freeze.
    pub async fn freeze(&self, path: &str, blob: &BlobId) -> Result<Result<Freeze, Problem>, RepositoryError> {
        let bytes = self.repository.read(blob, LARGEST_FILE).await?;
        let first = |problems: Vec<Problem>| {
            problems.into_iter().next().unwrap_or_else(|| Problem::in_file(path, "it cannot be read"))
        };
        Ok(read_freeze(path, &bytes).map_err(first))
    }

    /// Finds one entry by its path.
    pub async fn file(&self, at: &Revision, path: &str) -> Result<Option<Entry>, RepositoryError> {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let entries = self.repository.directory(at, directory).await?.unwrap_or_default();
        Ok(entries.into_iter().find(|entry| entry.path == path))
    }

    /// Reads applications, some at a time: while one waits for Git's objects the others go on.
    pub async fn applications(
        &self,
        at: &Revision,
        settings: &Settings,
        apps: BTreeSet<AppName>,
    ) -> Result<Vec<(AppName, Option<Read>)>, RepositoryError> {
        let read = |app: AppName| async move {
            let directory = format!("{}/{app}", settings.paths.apps);
            let read = self.application(at, &app, &directory).await?;
            Ok((app, read))
        };
        stream::iter(apps).map(read).buffered(AT_A_TIME).try_collect().await
    }

    /// Reads the application whose directory this is; `None` where it is none.
    pub async fn application(
        &self,
        at: &Revision,
        app: &AppName,
        directory: &str,
    ) -> Result<Option<Read>, RepositoryError> {
        let entries = self.repository.files(at, directory).await?;
        let file = format!("{directory}/app.yaml");
        let Some(entry) = entries.iter().find(|entry| entry.path == file) else { return Ok(None) };
        let application = match entry.kind {
            EntryKind::File => read_application(&file, &self.repository.read(&entry.id, LARGEST_FILE).await?),
            _ => Err(vec![Problem::in_file(&file, "it is no plain file")]),
        };
        let mut read = Read {
            outside: BTreeSet::new(),
            again: false,
            application,
            manifests: Err(Vec::new()),
            revision: at.clone(),
        };
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
            Where::Kustomize { path } => self.kustomize(at, path, directory, &mut inputs, &mut read).await?,
        };
        let scope = |kind: &Kind| Some(self.scopes.get(kind).copied().unwrap_or_else(|| builtin_scope(kind)));
        read.manifests =
            files.and_then(|files| parse(&files, &namespace, scope)).map(|manifests| (inputs, Packed::new(manifests)));
        Ok(Some(read))
    }

    /// Renders a Kustomize directory: reads exactly the files that it names, then lets the program do it.
    async fn kustomize(
        &self,
        at: &Revision,
        below: &str,
        directory: &str,
        inputs: &mut Inputs,
        into: &mut Read,
    ) -> Result<Result<Files, Vec<Problem>>, RepositoryError> {
        let mut files = Files::new();
        let mut absent = BTreeSet::new();
        let mut ids = BTreeMap::new();
        let read = loop {
            match kustomize::references(below, &files, &absent) {
                Ok(read) => break read,
                Err(RenderError::Missing(path)) => {
                    if !path.starts_with(&format!("{directory}/")) {
                        into.outside.insert(path.clone());
                    }
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
            inputs.files.insert(path, id);
        }
        match self.renderer.version().await {
            Ok(version) => inputs.renderer = version,
            Err(error) => {
                into.again = true;
                return Ok(Err(vec![problem_of(below, error)]));
            }
        }
        Ok(match self.renderer.kustomize(below, &files).await {
            Ok(yaml) => Ok(Files::from([(format!("{below}/kustomization.yaml"), yaml.into())])),
            Err(error) => {
                into.again = matches!(error, RenderError::TooSlow(_) | RenderError::NoProgram(_));
                Err(vec![problem_of(below, error)])
            }
        })
    }
}

fn problem_of(path: &str, error: RenderError) -> Problem {
    match error {
        RenderError::Wrong(problem) => problem,
        other => Problem::in_file(path, other.to_string()),
    }
}
