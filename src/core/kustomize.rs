//! Which files a Kustomize directory reads, told without running Kustomize.
//!
//! The answer is what a plan names as its inputs, and what the renderer is given: nothing else is laid out, so what
//! this walk does not see cannot be read. It also refuses what must never be followed: remote bases, absolute paths,
//! paths out of the repository, Helm charts and plugins.
//!
//! Kustomize decodes its file with Go's `encoding/json`, which takes `Resources` for `resources`; so does this walk.

use std::collections::BTreeSet;

use super::{
    problem::Problem,
    render::{Files, RenderError},
    yaml::{self, Data, Entry, Limits, Node, Span},
};

/// The names that Kustomize looks for in a directory, one of which must be there.
pub const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Bases of bases of bases: nobody has so many by intent.
const DEEPEST: usize = 50;

/// Returns the files that rendering the directory `path` reads, the kustomization files included, by their path from
/// the repository's root.
///
/// `files` may hold more than that. Where it holds less, the error is [`RenderError::Missing`] with a path that is a
/// file or a directory: add that file, or every file directly in that directory, and call again. Where the repository
/// has neither, or no file directly in the directory, add the path to `absent` instead: the next call says which line
/// names it.
///
/// # Errors
///
/// [`RenderError::Missing`], or [`RenderError::Wrong`] with the place that names what is not followed.
pub fn references(path: &str, files: &Files, absent: &BTreeSet<String>) -> Result<BTreeSet<String>, RenderError> {
    let mut walk = Walk { files, absent, read: BTreeSet::new(), open: Vec::new(), done: BTreeSet::new() };
    let root = resolve("", path).ok_or_else(|| wrong(path, Span::default(), "it leaves the repository".into()))?;
    walk.directory(&root)?;
    Ok(walk.read)
}

/// Returns the kustomization file directly in the directory `path` ("" is the repository's root) among `files`.
pub fn kustomization_file(path: &str, files: &Files) -> Option<String> {
    FILE_NAMES.iter().map(|name| join(path, name)).find(|file| files.contains_key(file))
}

struct Walk<'a> {
    files: &'a Files,
    absent: &'a BTreeSet<String>,
    read: BTreeSet<String>,
    /// The directories on the way here, outermost first.
    open: Vec<String>,
    done: BTreeSet<String>,
}

/// Where in a kustomization something is named: for messages and for resolving it.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    directory: &'a str,
    field: &'a str,
    span: Span,
}

impl<'a> Place<'a> {
    /// Returns the place of a text in the same field.
    fn at(self, span: Span) -> Self {
        Self { span, ..self }
    }

    fn wrong(&self, why: &str) -> RenderError {
        wrong(self.file, self.span, format!("`{}`: {why}", self.field))
    }
}

impl Walk<'_> {
    fn directory(&mut self, path: &str) -> Result<(), RenderError> {
        if self.done.contains(path) {
            return Ok(());
        }
        let file = self.kustomization(path)?;
        self.open.push(path.to_owned());
        for document in self.documents(&file)? {
            self.kustomization_document(path, &file, &document)?;
        }
        self.open.pop();
        self.done.insert(path.to_owned());
        Ok(())
    }

    /// Walks a directory that another one builds on.
    fn base(&mut self, place: &Place<'_>, path: &str) -> Result<(), RenderError> {
        if self.open.iter().any(|open| open == path) {
            let way: Vec<&str> = self.open.iter().map(String::as_str).chain([path]).collect();
            return Err(place.wrong(&format!("these directories build on each other: {}", way.join(" → "))));
        }
        if self.open.len() >= DEEPEST {
            return Err(place.wrong(&format!("more than {DEEPEST} directories build on each other")));
        }
        self.directory(path)
    }

    /// Returns the one kustomization file of a directory.
    fn kustomization(&self, path: &str) -> Result<String, RenderError> {
        let found: Vec<String> =
            FILE_NAMES.iter().map(|name| join(path, name)).filter(|file| self.files.contains_key(file)).collect();
        match found.as_slice() {
            [file] => Ok(file.clone()),
            [] if self.has_files_in(path) || self.absent.contains(path) => {
                let directory = if path.is_empty() { "." } else { path };
                Err(wrong(directory, Span::default(), "there is no kustomization.yaml in it".into()))
            }
            [] => Err(RenderError::Missing(path.to_owned())),
            [first, rest @ ..] => {
                Err(wrong(first, Span::default(), format!("there is {} beside it", rest.join(" and "))))
            }
        }
    }

    fn kustomization_document(&mut self, directory: &str, file: &str, document: &Node) -> Result<(), RenderError> {
        if !matches!(document.data, Data::Map(_)) {
            return Err(wrong(file, document.span, format!("it is {}, not a map", document.type_name())));
        }
        for Entry { key, key_span, value } in document.entries() {
            let place = Place { file, directory, field: key, span: *key_span };
            match key.to_ascii_lowercase().as_str() {
                "resources" => self.each(&place, value, Self::file_or_directory)?,
                "bases" | "components" => {
                    self.each(&place, value, |walk, place, text| walk.base(place, &inside(place, text)?))?;
                }
                "crds" | "configurations" => self.each(&place, value, Self::file)?,
                "patchesstrategicmerge" => self.each(&place, value, Self::file_or_inline)?,
                "generators" | "transformers" | "validators" => self.each(&place, value, Self::plugin)?,
                "patches" | "patchesjson6902" | "replacements" | "openapi" => self.paths(&place, value)?,
                "configmapgenerator" | "secretgenerator" => {
                    list(value).iter().try_for_each(|generator| self.generator(&place, generator))?;
                }
                "helmcharts" | "helmchartinflationgenerator" | "helmglobals" => {
                    return Err(place.wrong("Kustomize does not render charts here"));
                }
                _ if !key.is_ascii() => return Err(place.wrong("there is no such field")),
                // Names, labels, images and the like read nothing.
                _ => {}
            }
        }
        Ok(())
    }

    /// Does `visit` with each text of a list, or with the one text where there is no list.
    fn each(
        &mut self,
        place: &Place<'_>,
        value: &Node,
        visit: impl Fn(&mut Self, &Place<'_>, &str) -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        let texts = list(value).iter().filter_map(|node| Some((node.span, node.text()?)));
        texts.into_iter().try_for_each(|(span, text)| visit(self, &place.at(span), text))
    }

    /// Reads what `path` in each of these objects names.
    fn paths(&mut self, place: &Place<'_>, value: &Node) -> Result<(), RenderError> {
        let paths = list(value).iter().flat_map(|object| members(object, "path"));
        paths.into_iter().try_for_each(|path| self.each(place, path, Self::file))
    }

    /// Reads the files of one generator of a ConfigMap or Secret: `name=path` or `path`, and files of variables.
    fn generator(&mut self, place: &Place<'_>, generator: &Node) -> Result<(), RenderError> {
        for value in members(generator, "files") {
            self.each(place, value, |walk, place, text| {
                walk.file(place, text.split_once('=').map_or(text, |(_, path)| path))
            })?;
        }
        let variables = members(generator, "envs").chain(members(generator, "env"));
        variables.into_iter().try_for_each(|value| self.each(place, value, Self::file))
    }

    /// Reads the configuration of a generator, transformer or validator: a file, a directory or YAML in place. Only
    /// those that are built in may run; the files that those name are read too.
    fn plugin(&mut self, place: &Place<'_>, text: &str) -> Result<(), RenderError> {
        let documents = if is_inline(text) {
            yaml::parse(place.file, text.as_bytes(), &Limits::MANIFESTS)
                .map_err(|problem| place.wrong(&problem.message))?
        } else {
            let path = inside(place, text)?;
            if !self.files.contains_key(&path) && self.is_directory(&path) {
                return self.base(place, &path);
            }
            self.file(place, text)?;
            self.documents(&path)?
        };
        for document in &documents {
            let text = |key| document.get(key).and_then(Node::text).unwrap_or_default();
            if text("apiVersion") != "builtin" || text("kind") == "HelmChartInflationGenerator" {
                return Err(place.wrong(&format!("`{}` is no plugin that is run here", text("kind"))));
            }
            // What it names is in another text than the place is: the place is that of the plugin.
            let keep = |visit: fn(&mut Self, &Place<'_>, &str) -> Result<(), RenderError>| {
                move |walk: &mut Self, _: &Place<'_>, text: &str| visit(walk, place, text)
            };
            for value in members(document, "path") {
                self.each(place, value, keep(Self::file))?;
            }
            for value in members(document, "paths") {
                self.each(place, value, keep(Self::file_or_inline))?;
            }
            for value in members(document, "replacements") {
                self.paths(place, value)?;
            }
            self.generator(place, document)?;
        }
        Ok(())
    }

    fn file_or_inline(&mut self, place: &Place<'_>, text: &str) -> Result<(), RenderError> {
        if is_inline(text) { Ok(()) } else { self.file(place, text) }
    }

    fn file_or_directory(&mut self, place: &Place<'_>, text: &str) -> Result<(), RenderError> {
        let path = inside(place, text)?;
        if !self.files.contains_key(&path) && self.is_directory(&path) {
            self.base(place, &path)
        } else if self.absent.contains(&path) {
            Err(place.wrong(&format!("there is no file `{path}`, and no directory `{path}` with a kustomization.yaml")))
        } else {
            self.file(place, text)
        }
    }

    fn file(&mut self, place: &Place<'_>, text: &str) -> Result<(), RenderError> {
        let path = inside(place, text)?;
        if self.files.contains_key(&path) {
            self.read.insert(path);
            Ok(())
        } else if self.absent.contains(&path) {
            Err(place.wrong(&format!("there is no file `{path}` in the repository")))
        } else {
            Err(RenderError::Missing(path))
        }
    }

    /// Returns the documents of a file that is among those given, and notes that it is read.
    fn documents(&mut self, file: &str) -> Result<Vec<Node>, RenderError> {
        let content = self.files.get(file).ok_or_else(|| RenderError::Missing(file.to_owned()))?;
        self.read.insert(file.to_owned());
        yaml::parse(file, content, &Limits::MANIFESTS).map_err(RenderError::Wrong)
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.below(path).next().is_some()
    }

    fn has_files_in(&self, path: &str) -> bool {
        let start = if path.is_empty() { 0 } else { path.len() + 1 };
        self.below(path).any(|file| !file[start..].contains('/'))
    }

    fn below<'b>(&'b self, path: &str) -> impl Iterator<Item = &'b str> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let from = self.files.range(prefix.clone()..).map(|(file, _)| file.as_str());
        from.take_while(move |file| file.starts_with(&prefix))
    }
}

/// Returns the path that a kustomization names, from the repository's root; refuses what is not in the repository.
fn inside(place: &Place<'_>, text: &str) -> Result<String, RenderError> {
    let refuse = |why: &str| Err(place.wrong(&format!("`{text}` {why}")));
    if is_remote(text) {
        return refuse("is remote: keep it in the repository");
    }
    if text.is_empty() {
        return refuse("names nothing");
    }
    if text.starts_with(['/', '~']) || text.contains(['\0', '\\']) {
        return refuse("is no path inside the repository");
    }
    match resolve(place.directory, text) {
        Some(path) => Ok(path),
        None => refuse("leaves the repository"),
    }
}

/// Returns whether Kustomize would fetch this: it asks so before it looks for a file of that name
/// (`api/internal/git/repospec.go`).
fn is_remote(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let host = lower.split(['/', ':']).next().unwrap_or_default();
    lower.contains("://")
        || lower.contains('?')
        || lower.contains("::")
        || lower.starts_with("gh:")
        || host.contains('@')
        || host == "github.com"
}

/// Returns whether an entry is YAML itself instead of the name of a file.
fn is_inline(text: &str) -> bool {
    text.contains('\n') || text.trim_start().starts_with('{')
}

/// Joins and normalises; `None` where the path leaves the repository. The root is "".
fn resolve(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Returns the items of a list, or the one value where there is no list.
fn list(value: &Node) -> &[Node] {
    match &value.data {
        Data::List(items) => items,
        Data::Null => &[],
        _ => std::slice::from_ref(value),
    }
}

/// Returns a map's members of this name, in whatever case.
fn members<'a>(map: &'a Node, name: &'static str) -> impl Iterator<Item = &'a Node> {
    let members = map.entries().iter().filter(move |entry| entry.key.eq_ignore_ascii_case(name));
    members.map(|entry| &entry.value)
}

fn wrong(file: &str, span: Span, why: String) -> RenderError {
    RenderError::Wrong(Problem::at(file, span.into(), why))
}
