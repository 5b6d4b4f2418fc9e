//! `validate`: every problem of a release repository, before anybody merges it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

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
    controller::source::{Snapshot, Source},
    core::{
        manifest::builtin_scope,
        names::{AppName, Revision},
        policy::{Source as Where, read_application},
        problem::Problem,
        render::{Files, Renderer},
        repository::{EntryKind, Repository, RepositoryError},
        validate::validate,
    },
};

/// Larger files are no manifests.
const LARGEST_FILE: u64 = 8 << 20;

/// Checks a release repository: every problem with file, line and column, of all applications
///
/// Reads the working tree as it is, whatever git does not ignore, committed or not; of a bare repository its HEAD.
/// With --repo it reads the watched branch of a remote.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender validate && git commit -qam 'checkout 2.0'

Exit codes: 0 everything is fine, 1 there are errors, 2 wrong usage.")]
pub(super) struct Args {
    /// The root of the release repository. Default: the repository around the current directory
    path: Option<PathBuf>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Found {
    problems: Vec<Problem>,
    fine: Vec<AppName>,
    summary: String,
}

pub(super) async fn run(args: Args) -> Outcome {
    let (repository, at) = open(&args).await?;
    let (found, sources) = check(repository, &at).await?;
    if args.output.output == Format::Table {
        let mut text = String::new();
        for problem in &found.problems {
            let source = sources.get(&problem.file).map(|bytes| String::from_utf8_lossy(bytes));
            let shown = problem.render(source.as_deref());
            text.push_str(&shown.replacen(": error: ", &format!(": {} ", "error:".red().bold()), 1));
            text.push('\n');
        }
        output::data(&text);
        output::say(&format!("{}\n", found.summary));
    } else {
        args.output.print(&found, |_| String::new())?;
    }
    Ok(if found.problems.is_empty() { Done::Well } else { Done::FoundWrong })
}

async fn open(args: &Args) -> Result<(Arc<dyn Repository>, Revision), Error> {
    if let Some(path) = &args.path {
        if !path.is_dir() {
            return Err(Error::usage(format!("`{}` is no directory", path.display()))
                .hint("name the root of a release repository, where apps/ is"));
        }
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
    let place = args.repo.find()?;
    if let Some(here) = &place.here {
        let repository = here.as_is()?;
        let at = repository.fetch().await?;
        return Ok((Arc::new(repository), at));
    }
    let opened = place.open().await?;
    let at = opened.repository.fetch().await?;
    Ok((opened.repository, at))
}

async fn check(repository: Arc<dyn Repository>, at: &Revision) -> Result<(Found, Files), Error> {
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
    let snapshot = Source::new(repository, renderer.clone()).snapshot(at).await?;
    let rendered = render(&files, &snapshot, &renderer).await;
    let validated = validate(&files, &rendered, |kind| Some(builtin_scope(kind)));
    // What the controller would refuse, and what is wrong beside the applications: each knows what the other cannot.
    let mut problems: Vec<Problem> = validated.all_problems().into_iter().cloned().collect();
    problems.extend(snapshot.problems());
    problems.sort();
    problems.dedup();
    let fine: Vec<AppName> = validated
        .applications
        .keys()
        .filter(|app| !matches!(snapshot.apps.get(*app), Some(crate::core::rollout::input::HeadContent::Broken(_))))
        .cloned()
        .collect();
    let summary = summary(problems.len(), &fine);
    Ok((Found { problems, fine, summary }, files))
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
