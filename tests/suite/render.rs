//! Kustomize directories, rendered by the real program of this machine.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use locktender::{
    adapter::render::{KustomizeRenderer, RenderSettings},
    core::{
        kustomize,
        render::{Files, RenderError, Renderer},
    },
};
use rstest::rstest;

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n";

fn files(content: &[(&str, &str)]) -> Files {
    content.iter().map(|(path, text)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes()))).collect()
}

/// A repository with a base that two overlays share, and things that nobody reads.
fn shop() -> Files {
    files(&[
        (
            "base/kustomization.yaml",
            "resources: [deployment.yaml]\nconfigMapGenerator:\n- name: settings\n  files: [colours=palette.txt]\n",
        ),
        (
            "base/deployment.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - {name: web, image: web:1, envFrom: [{configMapRef: {name: settings}}]}\n",
        ),
        ("base/palette.txt", "red\n"),
        ("base/notes.md", "read by nobody"),
        (
            "apps/one/kustomization.yml",
            "namePrefix: one-\nresources:\n- ../../base\npatches:\n- path: more.yaml\n- patch: |-\n    - {op: add, path: /metadata/labels, value: {tier: front}}\n  target: {kind: Deployment}\n",
        ),
        ("apps/one/more.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n"),
        ("apps/two/Kustomization", "namePrefix: two-\nresources: [../../base/]\n"),
        ("apps/two/app.yaml", "kind: Application\n"),
    ])
}

fn paths(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

async fn render(path: &str, files: &Files) -> Result<String, RenderError> {
    let rendered = KustomizeRenderer::default().kustomize(path, files).await?;
    Ok(String::from_utf8(rendered).unwrap())
}

async fn refusal(path: &str, files: &Files) -> String {
    match render(path, files).await {
        Err(RenderError::Refused(text)) => text,
        other => unreachable!("not refused: {other:?}"),
    }
}

/// What is read when nothing is known to be absent.
fn references(path: &str, files: &Files) -> Result<BTreeSet<String>, RenderError> {
    kustomize::references(path, files, &BTreeSet::new())
}

/// Adds what is missing, as the controller does, until there is an answer.
fn gather(path: &str, repository: &Files) -> Result<Files, RenderError> {
    let (mut gathered, mut absent) = (Files::new(), BTreeSet::new());
    loop {
        let missing = match kustomize::references(path, &gathered, &absent) {
            Err(RenderError::Missing(missing)) => missing,
            other => return other.map(|_| gathered),
        };
        let prefix = if missing.is_empty() { String::new() } else { format!("{missing}/") };
        let direct = |file: &str| file.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
        let had = gathered.len();
        let found = repository.iter().filter(|(file, _)| **file == missing || direct(file));
        gathered.extend(found.map(|(file, content)| (file.clone(), content.clone())));
        if gathered.len() == had {
            assert!(absent.insert(missing), "asked for in vain, twice");
        }
    }
}

#[tokio::test]
async fn the_published_podinfo_renders_as_it_is() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus/podinfo"));
    let mut files = Files::new();
    for entry in corpus.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = format!("apps/podinfo/{}", path.file_name().unwrap().to_str().unwrap());
        files.insert(name, std::fs::read(&path).unwrap().into());
    }
    let rendered = render("apps/podinfo", &files).await.unwrap();
    let kinds: Vec<&str> = rendered.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds, ["Service", "Deployment", "HorizontalPodAutoscaler"]);
}

#[tokio::test]
async fn the_version_is_part_of_a_plans_inputs() {
    let version = KustomizeRenderer::default().version().await.unwrap();
    assert!(version.starts_with("kustomize/v"), "{version}");
}

#[tokio::test]
async fn a_base_serves_two_overlays_and_each_names_exactly_what_it_reads() {
    let base = ["base/kustomization.yaml", "base/deployment.yaml", "base/palette.txt"];
    let (mut one, mut two) = (paths(&base), paths(&base));
    one.extend(paths(&["apps/one/kustomization.yml", "apps/one/more.yaml"]));
    two.extend(paths(&["apps/two/Kustomization"]));
    assert_eq!(references("apps/one", &shop()), Ok(one));
    assert_eq!(references("apps/two", &shop()), Ok(two));

    let rendered = render("apps/one", &shop()).await.unwrap();
    assert!(rendered.contains("name: one-web") && rendered.contains("replicas: 3"), "{rendered}");
    assert!(rendered.contains("tier: front") && rendered.contains("colours: |\n    red"), "{rendered}");
    let rendered = render("apps/two", &shop()).await.unwrap();
    assert!(rendered.contains("name: two-web") && rendered.contains("replicas: 1"), "{rendered}");
}

#[test]
fn what_is_missing_is_asked_for_until_nothing_is() {
    assert_eq!(references("apps/one", &Files::new()), Err(RenderError::Missing("apps/one".into())));
    let gathered = gather("apps/one", &shop()).unwrap();
    assert_eq!(references("apps/one", &gathered), references("apps/one", &shop()));
    assert!(!gathered.contains_key("apps/two/Kustomization"));

    let mut broken = shop();
    broken.remove("base/palette.txt");
    assert_eq!(
        gather("apps/one", &broken).unwrap_err().to_string(),
        "base/kustomization.yaml:4:11: error: `configMapGenerator`: there is no file `base/palette.txt` in the repository"
    );
    broken.insert("empty/deeper/file".into(), Bytes::new());
    broken.insert("base/kustomization.yaml".into(), "resources: [../empty]".into());
    assert_eq!(
        gather("apps/one", &broken).unwrap_err().to_string(),
        "base/kustomization.yaml:1:13: error: `resources`: there is no file `empty`, and no directory `empty` with a kustomization.yaml"
    );
    assert_eq!(
        gather("apps/none", &broken).unwrap_err().to_string(),
        "apps/none: error: there is no kustomization.yaml in it"
    );
}

#[test]
fn every_field_that_names_a_file_is_followed() {
    let plugin = "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: x}\npath: plugged.yaml\n";
    let kustomization = "\
resources: [a.yaml]
components: [part]
crds: [crd.json]
patchesStrategicMerge: [b.yaml, '{kind: X}']
patchesJson6902: [{path: c.yaml, target: {kind: X, name: x}}]
patches: [{path: d.yaml}, {patch: inline}]
configMapGenerator: [{name: m, files: [key=e.txt, f.txt], envs: [g.env], env: h.env}]
SecretGenerator: [{name: s, files: [i.txt]}]
replacements: [{path: j.yaml}, {source: {kind: X}}]
configurations: [k.yaml]
openapi: {path: l.json}
transformers: [plugin.yaml]
images: [{name: web, newTag: https-is-no-file}]
";
    let mut all = files(&[
        ("app/kustomization.yaml", kustomization),
        ("app/plugin.yaml", plugin),
        ("app/part/kustomization.yaml", "kind: Component\nresources: [../m.yaml]\n"),
    ]);
    let names =
        "a.yaml crd.json b.yaml c.yaml d.yaml e.txt f.txt g.env h.env i.txt j.yaml k.yaml l.json m.yaml plugged.yaml";
    for name in names.split(' ') {
        assert!(matches!(references("app", &all), Err(RenderError::Missing(_))), "before {name}");
        all.insert(format!("app/{name}"), Bytes::new());
    }
    assert_eq!(references("app", &all), Ok(all.keys().cloned().collect()));
}

#[rstest]
#[case("resources: ['https://example.com/x.yaml']", "is remote")]
#[case("resources: [github.com/org/repo]", "is remote")]
#[case("resources: ['GitHub.com/org/repo?ref=v1']", "is remote")]
#[case("resources: ['../base?ref=main']", "is remote")]
#[case("resources: ['git@example.com:org/repo']", "is remote")]
#[case("resources: ['git::https://example.com/repo']", "is remote")]
#[case("bases: ['ssh://git@example.com/repo']", "is remote")]
#[case("components: ['gh:org/repo']", "is remote")]
#[case("Resources: ['https://example.com/x.yaml']", "is remote")]
#[case("crds: ['http://example.com/x.json']", "is remote")]
#[case("patches: [{path: 'https://example.com/x'}]", "is remote")]
#[case("configMapGenerator: [{name: m, files: ['k=https://example.com/x']}]", "is remote")]
#[case("openapi: {path: 'https://example.com/x'}", "is remote")]
#[case("transformers: ['https://example.com/x']", "is remote")]
#[case("resources: [/etc]", "is no path inside the repository")]
#[case("configMapGenerator: [{name: m, files: [/etc/passwd]}]", "is no path inside the repository")]
#[case("configMapGenerator: [{name: m, files: ['../../../etc/passwd']}]", "leaves the repository")]
#[case("resources: [../../..]", "leaves the repository")]
#[case("resources: ['']", "names nothing")]
#[case("helmCharts: [{name: x, repo: 'https://example.com'}]", "does not render charts")]
#[case("generators: [\"apiVersion: v1\\nkind: Exec\\nmetadata: {name: x}\"]", "is no plugin that is run here")]
#[case(
    "generators: [\"apiVersion: builtin\\nkind: HelmChartInflationGenerator\\nmetadata: {name: x}\"]",
    "is no plugin"
)]
#[case("reſources: ['https://example.com/x.yaml']", "there is no such field")]
#[case("[a, b]", "it is a list, not a map")]
#[case("resources: [a\nb", "")]
#[tokio::test]
async fn what_must_not_be_followed_is_refused_before_anything_runs(#[case] text: &str, #[case] expected: &str) {
    let refused = references("apps/web", &files(&[("apps/web/kustomization.yaml", text)])).unwrap_err();
    let RenderError::Wrong(problem) = refused else { unreachable!("{refused:?}") };
    assert_eq!((problem.file.as_str(), problem.line > 0), ("apps/web/kustomization.yaml", true));
    assert!(problem.message.contains(expected), "{problem}");
}

#[test]
fn directories_that_build_on_each_other_are_refused() {
    let loops = files(&[
        ("a/kustomization.yaml", "resources: [../b]"),
        ("b/kustomization.yaml", "resources: [../c]"),
        ("c/kustomization.yaml", "resources: [../a]"),
    ]);
    assert_eq!(
        references("a", &loops).unwrap_err().to_string(),
        "c/kustomization.yaml:1:13: error: `resources`: these directories build on each other: a → b → c → a"
    );

    let chain: Vec<(String, String)> =
        (0..1_000).map(|i| (format!("d{i}/kustomization.yaml"), format!("resources: [../d{}]", i + 1))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert!(matches!(references("d0", &files(&chain)), Err(RenderError::Wrong(_))));
}

#[test]
fn a_directory_has_exactly_one_kustomization_file() {
    let two = files(&[("a/kustomization.yaml", ""), ("a/Kustomization", "")]);
    assert_eq!(
        references("a", &two).unwrap_err().to_string(),
        "a/kustomization.yaml: error: there is a/Kustomization beside it"
    );
    let none = files(&[("a/deployment.yaml", "")]);
    assert_eq!(references("a", &none).unwrap_err().to_string(), "a: error: there is no kustomization.yaml in it");
}

#[tokio::test]
async fn a_file_of_the_repository_outside_the_directory_is_refused_as_kubectl_does() {
    let outside =
        files(&[("apps/web/kustomization.yaml", "resources: [../shared.yaml]"), ("apps/shared.yaml", CONFIG_MAP)]);
    let why = refusal("apps/web", &outside).await;
    assert!(why.contains("file 'apps/shared.yaml' is not in or below 'apps/web'"), "{why}");
}

#[tokio::test]
async fn a_complaint_names_paths_from_the_repositorys_root() {
    let broken =
        files(&[("apps/web/kustomization.yaml", "resources: [x.yaml]\nnamePrefxi: a"), ("apps/web/x.yaml", "a: [")]);
    let why = refusal("apps/web", &broken).await;
    assert!(why.contains("namePrefxi"), "{why}");
    let broken = files(&[("apps/web/kustomization.yaml", "resources: [x.yaml]"), ("apps/web/x.yaml", "a: [")]);
    let why = refusal("apps/web", &broken).await;
    assert!(why.contains("x.yaml") && !why.contains("locktender-render") && !why.contains("run.go"), "{why}");
}

#[tokio::test]
async fn variables_of_our_own_environment_are_not_rendered() {
    // A line without `=` takes its value from the environment of the program.
    let given = ["PATH", "HOME", "TMPDIR", "KUBECONFIG", "LC_ALL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let is_plain = |name: &str| name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    let ours = std::env::vars()
        .map(|(name, _)| name)
        .find(|name| is_plain(name) && !name.starts_with("GIT_") && !given.contains(&name.as_str()))
        .unwrap();
    let curious = files(&[
        ("app/kustomization.yaml", "configMapGenerator: [{name: loot, envs: [names.env]}]"),
        ("app/names.env", &format!("{ours}\n")),
    ]);
    let rendered = render("app", &curious).await.unwrap();
    assert!(rendered.contains(&format!("{ours}: \"\"")), "{rendered}");
}

fn program(name: &str) -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/programs").join(name).join("kustomize"))
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed() {
    let time_limit = Duration::from_millis(300);
    let renderer =
        KustomizeRenderer::new(RenderSettings { program: program("slow"), time_limit, ..RenderSettings::default() });
    let start = Instant::now();
    assert_eq!(renderer.kustomize("apps/one", &shop()).await, Err(RenderError::TooSlow(time_limit)));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_program_that_says_too_much_is_refused() {
    let settings = RenderSettings { program: program("chatty"), largest_output: 1_000, ..RenderSettings::default() };
    let renderer = KustomizeRenderer::new(settings.clone());
    let refused = RenderError::Refused("it renders more than 1000 bytes".into());
    assert_eq!(renderer.kustomize("apps/one", &shop()).await, Err(refused));
    let enough = KustomizeRenderer::new(RenderSettings { largest_output: 1_000_000, ..settings });
    assert_eq!(enough.kustomize("apps/one", &shop()).await.map(|output| output.len()), Ok(1_000_000));
}

#[tokio::test]
async fn a_machine_without_a_program_says_what_to_install() {
    let nowhere = Some(PathBuf::from("/nowhere/kustomize"));
    let renderer = KustomizeRenderer::new(RenderSettings { program: nowhere, ..RenderSettings::default() });
    let error = renderer.version().await.unwrap_err();
    assert!(matches!(&error, RenderError::NoProgram(text) if text.starts_with("/nowhere/kustomize ")), "{error}");
}
