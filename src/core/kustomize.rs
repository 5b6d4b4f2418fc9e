//! Which files a Kustomize directory reads, told without running Kustomize.
//!
//! The answer is what a plan names as its inputs, and what the renderer is given: nothing else is laid out, so what
//! this walk does not see cannot be read. It also refuses what must never be followed: remote bases, absolute paths,
//! paths out of the repository, Helm charts and plugins.
//!
//! Kustomize decodes its file with Go's `encoding/json`, which takes `Resources` for `resources`; so does this walk.

use std::collections::BTreeSet;

use serde_json::Value;

use super::render::{Files, RenderError};

/// The names that Kustomize looks for in a directory, one of which must be there.
pub const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Bases of bases of bases: nobody has so many by intent.
const DEEPEST: usize = 50;

/// Returns the files that rendering the directory `path` reads, the kustomization files included, by their path from
/// the repository's root.
///
/// `files` may hold more than that. Where it holds less, the error is [`RenderError::Missing`] with a path that is a
/// file or a directory: add that file, or every file directly in that directory, and call again. A path that is
/// neither in the repository is missing there: it is a mistake of the kustomization file.
///
/// # Errors
///
/// [`RenderError::Missing`], or [`RenderError::Refused`] with the file and field that names what is not followed.
pub fn references(path: &str, files: &Files) -> Result<BTreeSet<String>, RenderError> {
    let mut walk = Walk { files, read: BTreeSet::new(), open: Vec::new(), done: BTreeSet::new() };
    let root = resolve("", path).ok_or_else(|| refused(path, "it leaves the repository"))?;
    walk.directory(&root)?;
    Ok(walk.read)
}

/// Returns the kustomization file directly in the directory `path` ("" is the repository's root) among `files`.
pub fn kustomization_file(path: &str, files: &Files) -> Option<String> {
    FILE_NAMES.iter().map(|name| join(path, name)).find(|file| files.contains_key(file))
}

struct Walk<'a> {
    files: &'a Files,
    read: BTreeSet<String>,
    /// The directories on the way here, outermost first.
    open: Vec<String>,
    done: BTreeSet<String>,
}

/// Where in a kustomization something is named: for messages and for resolving it.
struct Place<'a> {
    file: &'a str,
    directory: &'a str,
    field: &'a str,
}

impl Walk<'_> {
    fn directory(&mut self, path: &str) -> Result<(), RenderError> {
        if self.done.contains(path) {
            return Ok(());
        }
        if self.open.iter().any(|open| open == path) {
            let way: Vec<&str> = self.open.iter().map(String::as_str).chain([path]).collect();
            return Err(RenderError::Refused(format!("these directories build on each other: {}", way.join(" → "))));
        }
        if self.open.len() >= DEEPEST {
            return Err(refused(path, &format!("more than {DEEPEST} directories build on each other")));
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

    /// Returns the one kustomization file of a directory.
    fn kustomization(&self, path: &str) -> Result<String, RenderError> {
        let found: Vec<String> =
            FILE_NAMES.iter().map(|name| join(path, name)).filter(|file| self.files.contains_key(file)).collect();
        match found.as_slice() {
            [file] => Ok(file.clone()),
            [] if self.has_files_in(path) => {
                Err(refused(if path.is_empty() { "." } else { path }, "there is no kustomization.yaml in it"))
            }
            [] => Err(RenderError::Missing(path.to_owned())),
            [first, rest @ ..] => Err(refused(first, &format!("there is {} beside it", rest.join(" and ")))),
        }
    }

    fn kustomization_document(&mut self, directory: &str, file: &str, document: &Value) -> Result<(), RenderError> {
        let Value::Object(fields) = document else {
            return Err(refused(file, "it is no map"));
        };
        for (name, value) in fields {
            let field = name.to_ascii_lowercase();
            let place = Place { file, directory, field: name };
            match field.as_str() {
                "resources" => self.each(value, |walk, text| walk.file_or_directory(&place, text))?,
                "bases" | "components" => self.each(value, |walk, text| {
                    let path = inside(&place, text)?;
                    walk.directory(&path)
                })?,
                "crds" | "configurations" => self.each(value, |walk, text| walk.file(&place, text))?,
                "patchesstrategicmerge" => self.each(value, |walk, text| walk.file_or_inline(&place, text))?,
                "generators" | "transformers" | "validators" => {
                    self.each(value, |walk, text| walk.plugin(&place, text))?;
                }
                "patches" | "patchesjson6902" | "replacements" | "openapi" => self.paths(&place, value)?,
                "configmapgenerator" | "secretgenerator" => {
                    for generator in list(value) {
                        self.generator(&place, generator)?;
                    }
                }
                "helmcharts" | "helmchartinflationgenerator" | "helmglobals" => {
                    return Err(refused(file, &format!("`{name}`: Kustomize does not render charts here")));
                }
                _ if !name.is_ascii() => {
                    return Err(refused(file, &format!("there is no field `{name}`")));
                }
                // Names, labels, images and the like read nothing.
                _ => {}
            }
        }
        Ok(())
    }

    /// Does `visit` with the text of a list, or with the one text where there is no list.
    fn each(
        &mut self,
        value: &Value,
        mut visit: impl FnMut(&mut Self, &str) -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        list(value).iter().filter_map(Value::as_str).try_for_each(|text| visit(self, text))
    }

    /// Reads what `path` in each of these objects names.
    fn paths(&mut self, place: &Place<'_>, value: &Value) -> Result<(), RenderError> {
        for object in list(value) {
            for text in members(object, "path").filter_map(Value::as_str) {
                self.file(place, text)?;
            }
        }
        Ok(())
    }

    /// Reads the files of one generator of a ConfigMap or Secret: `name=path` or `path`, and files of variables.
    fn generator(&mut self, place: &Place<'_>, generator: &Value) -> Result<(), RenderError> {
        for value in members(generator, "files") {
            self.each(value, |walk, text| walk.file(place, text.split_once('=').map_or(text, |(_, path)| path)))?;
        }
        for value in members(generator, "envs").chain(members(generator, "env")) {
            self.each(value, |walk, text| walk.file(place, text))?;
        }
        Ok(())
    }

    /// Reads the configuration of a generator, transformer or validator: a file, a directory or YAML in place. Only
    /// those that are built in may run; the files that those name are read too.
    fn plugin(&mut self, place: &Place<'_>, text: &str) -> Result<(), RenderError> {
        let documents = if is_inline(text) {
            documents(place.file, text.as_bytes())?
        } else {
            let path = inside(place, text)?;
            if self.is_directory(&path) {
                return self.directory(&path);
            }
            self.file(place, text)?;
            self.documents(&path)?
        };
        for document in &documents {
            let kind = document["kind"].as_str().unwrap_or_default();
            if document["apiVersion"] != "builtin" || kind == "HelmChartInflationGenerator" {
                return Err(refused(place.file, &format!("`{}`: `{kind}` is no plugin that is run here", place.field)));
            }
            self.paths(place, document)?;
            for value in members(document, "paths") {
                self.each(value, |walk, text| walk.file_or_inline(place, text))?;
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
            self.directory(&path)
        } else {
            self.file(place, text)
        }
    }

    fn file(&mut self, place: &Place<'_>, text: &str) -> Result<(), RenderError> {
        let path = inside(place, text)?;
        if !self.files.contains_key(&path) {
            return Err(RenderError::Missing(path));
        }
        self.read.insert(path);
        Ok(())
    }

    /// Returns the documents of a file that is among those given, and notes that it is read.
    fn documents(&mut self, file: &str) -> Result<Vec<Value>, RenderError> {
        let content = self.files.get(file).ok_or_else(|| RenderError::Missing(file.to_owned()))?;
        self.read.insert(file.to_owned());
        documents(file, content)
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

/// Reads all documents of a file.
fn documents(file: &str, content: &[u8]) -> Result<Vec<Value>, RenderError> {
    serde_saphyr::from_slice_multiple(content).map_err(|error| refused(file, &error.to_string()))
}

/// Returns the path that a kustomization names, from the repository's root; refuses what is not in the repository.
fn inside(place: &Place<'_>, text: &str) -> Result<String, RenderError> {
    let refuse = |why: &str| Err(refused(place.file, &format!("`{}`: `{text}` {why}", place.field)));
    if is_remote(text) {
        return refuse("is remote: keep it in the repository");
    }
    if text.is_empty() {
        return refuse("names nothing");
    }
    if text.starts_with(['/', '\\', '~']) || text.contains(['\0', '\\']) {
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

/// Returns the members of a list, or the one value where there is no list.
fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        Value::Null => &[],
        value => std::slice::from_ref(value),
    }
}

/// Returns an object's members of this name, in whatever case.
fn members<'a>(object: &'a Value, name: &'static str) -> impl Iterator<Item = &'a Value> {
    let members = object.as_object().into_iter().flatten();
    members.filter(move |(member, _)| member.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn refused(file: &str, why: &str) -> RenderError {
    RenderError::Refused(format!("{file}: {why}"))
}
