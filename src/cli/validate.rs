//! `validate`: every problem of a release repository, before anybody merges it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::{
    error::{Done, Error, Outcome},
    output::{self, Format, OutputArgs},
    place::RepoArgs,
};
use crate::{
    adapter::{
        git::here::{Here, directory_as_is},
        render::KustomizeRenderer,
    },
    controller::source::{Snapshot, Source, strays},
    core::{
        manifest::builtin_scope,
        names::{AppName, Revision},
        policy::{Source as Where, nearest, read_application},
        problem::Problem,
        render::{Files, Renderer},
        repository::{EntryKind, Repository, RepositoryError},
        rollout::{all_astray, input::HeadContent},
        validate::validate,
    },
};

/// Larger files are no manifests.
const LARGEST_FILE: u64 = 8 << 20;

/// Checks a release repository: every problem with file, line and column
///
/// Reads the working tree as it is, whatever git does not ignore, committed or not; of a bare repository its HEAD.
/// With --repo it reads the watched branch of a remote.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender validate && git commit -qam 'checkout 2.0'
  locktender validate checkout

Exit codes: 0 everything is fine, 1 there are errors, 2 wrong usage.")]
pub(super) struct Args {
    /// An application: only what is wrong with it. Or a directory: the root of the release repository. Default: all of
    /// the repository around the current directory
    #[arg(value_name = "APP|DIRECTORY")]
    what: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Found {
    problems: Vec<Problem>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    fine: Vec<AppName>,
    summary: String,
}

pub(super) async fn run(args: Args) -> Outcome {
    let directory = args.what.as_ref().map(PathBuf::from).filter(|path| path.is_dir());
    let app = args.what.as_ref().filter(|_| directory.is_none()).map(AppName::new);
    if let Some(path) = app.as_ref().filter(|app| app.as_str().contains(['/', '.'])) {
        return Err(Error::usage(format!("`{path}` is no directory"))
            .hint("name the root of a release repository, where apps/ is, or an application"));
    }
    let (repository, at) = open(directory.as_deref(), &args.repo).await?;
    let (found, sources) = check(repository, &at, app.as_ref()).await?;
    if args.output.output == Format::Table {
        let mut text = String::new();
        for problem in &found.problems {
            let source = sources.get(&problem.file).map(|bytes| String::from_utf8_lossy(bytes));
            let shown = problem.render(source.as_deref());
            text.push_str(&shown.replacen(": error: ", &format!(": {} ", "error:".red().bold()), 1));
            text.push('\n');
        }
        output::data(&text);
        for warning in &found.warnings {
            output::say(&format!("{} {warning}\n", "warning:".yellow().bold()));
        }
        output::say(&format!("{}\n", found.summary));
    } else {
        args.output.print(&found, |_| String::new())?;
    }
    Ok(if found.problems.is_empty() { Done::Well } else { Done::FoundWrong })
}

/// Says of a directory that it looks like an application and is none.
pub(super) fn no_application(directory: &str) -> String {
    format!("{directory} has manifests and no app.yaml: it is no application, and nothing of it is released")
}

async fn open(directory: Option<&Path>, repo: &RepoArgs) -> Result<(Arc<dyn Repository>, Revision), Error> {
    if let Some(path) = directory {
        let whole = Here::discover(path).filter(|here| {
            let same = |root: &std::path::Path| root.canonicalize().ok() == path.canonicalize().ok();
            here.root().map_or_else(|| same(here.location()), same)
        });
        let repository = match whole {
            Some(here) => here.as_is()?,
            None => directory_as_is(path)?,
        };
        let at = repository.fetch().await?;
        return Ok((Arc::new(repository), at));
    }
    let place = repo.find()?;
    if let Some(here) = &place.here {
        let repository = here.as_is()?;
        let at = repository.fetch().await?;
        return Ok((Arc::new(repository), at));
    }
    let opened = place.open().await?;
    let at = opened.repository.fetch().await?;
    Ok((opened.repository, at))
}

/// Checks everything, and tells of one application alone where one is named.
async fn check(
    repository: Arc<dyn Repository>,
    at: &Revision,
    only: Option<&AppName>,
) -> Result<(Found, Files), Error> {
    let mut files = Files::new();
    for entry in repository.files(at, "").await? {
        if entry.kind == EntryKind::File && entry.size <= LARGEST_FILE {
            match repository.read(&entry.id, LARGEST_FILE).await {
                Ok(bytes) => drop(files.insert(entry.path, bytes)),
                Err(RepositoryError::Damaged(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let renderer: Arc<dyn Renderer> = Arc::new(KustomizeRenderer::default());
    let snapshot = Source::new(repository.clone(), renderer.clone()).snapshot(at).await?;
    let strays = strays(repository.as_ref(), at, &snapshot.branch.settings.paths).await?;
    let rendered = render(&files, &snapshot, &renderer).await;
    let validated = validate(&files, &rendered, |kind| Some(builtin_scope(kind)));
    let is_broken = |app: &AppName| matches!(snapshot.apps.get(app), Some(HeadContent::Broken(_)));
    // What the controller would refuse, and what is wrong beside the applications: each knows what the other cannot.
    let mut problems: Vec<Problem> = match only {
        None => validated.all_problems().into_iter().cloned().chain(snapshot.problems()).collect(),
        Some(app) => {
            if !snapshot.apps.contains_key(app) && snapshot.branch.broken.is_none() {
                return Err(unknown(app, snapshot.apps.keys()));
            }
            let controller = match snapshot.content(app) {
                HeadContent::Broken(problems) => problems,
                _ => Vec::new(),
            };
            validated.refused.get(app).into_iter().flatten().cloned().chain(controller).collect()
        }
    };
    problems.sort();
    problems.dedup();
    let asked_for = |app: &&AppName| only.is_none_or(|only| only == *app) && !is_broken(app);
    let fine: Vec<AppName> = validated.applications.keys().filter(asked_for).cloned().collect();
    let summary = match (only, problems.len()) {
        (Some(app), 1) => format!("1 error of {app}"),
        (Some(app), many) if many > 1 => format!("{many} errors of {app}"),
        (_, errors) => summary(errors, &fine),
    };
    let strays = strays.iter().filter(|_| only.is_none()).map(|directory| no_application(directory));
    let apps = snapshot.apps.keys().cloned().collect();
    let astray = all_astray(files.keys().map(String::as_str), &apps).into_iter();
    let astray = astray.filter(|(app, _)| only.is_none_or(|only| only == app)).flat_map(|(_, lines)| lines);
    // Where the settings cannot be read nobody knows which applications there are.
    let astray = astray.filter(|_| snapshot.branch.broken.is_none());
    let warnings = strays.chain(astray).collect();
    Ok((Found { problems, warnings, fine, summary }, files))
}

fn unknown<'a>(app: &AppName, known: impl Iterator<Item = &'a AppName>) -> Error {
    let error = Error::usage(format!("there is no application `{app}`, and no such directory"));
    match nearest(app.as_str(), known.map(AppName::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("an application is a directory apps/<name> with an app.yaml"),
    }
}

/// Renders the Kustomize directories.
async fn render(
    files: &Files,
    snapshot: &Snapshot,
    renderer: &Arc<dyn Renderer>,
) -> BTreeMap<AppName, Result<Vec<u8>, Problem>> {
    let mut rendered = BTreeMap::new();
    for app in snapshot.apps.keys() {
        let directory = format!("{}/{app}", snapshot.branch.settings.paths.apps);
        let file = format!("{directory}/app.yaml");
        let Some(Ok(application)) = files.get(&file).map(|bytes| read_application(&file, bytes)) else { continue };
        if let Where::Kustomize { path } = &application.value.source {
            // The path is from the repository's root.
            let result = renderer.kustomize(path, files).await.map_err(|error| match error {
                crate::core::render::RenderError::Wrong(problem) => problem,
                other => Problem::in_file(path, other.to_string()),
            });
            rendered.insert(app.clone(), result);
        }
    }
    rendered
}

/// Sums it up: `2 errors; checkout and 14 others are fine and go on`.
fn summary(errors: usize, fine: &[AppName]) -> String {
    let (who, verb, goes) = match fine {
        [] => ("no application".to_owned(), "is", "goes"),
        [one] => (one.to_string(), "is", "goes"),
        [first, _] => (format!("{first} and 1 other"), "are", "go"),
        [first, others @ ..] => (format!("{first} and {} others", others.len()), "are", "go"),
    };
    match (errors, fine.is_empty()) {
        (0, true) => "there are no applications".to_owned(),
        (0, false) => format!("{who} {verb} fine"),
        (1, true) => "1 error; no application is left".to_owned(),
        (many, true) => format!("{many} errors; no application is left"),
        (1, false) => format!("1 error; {who} {verb} fine and {goes} on"),
        (many, false) => format!("{many} errors; {who} {verb} fine and {goes} on"),
    }
}
