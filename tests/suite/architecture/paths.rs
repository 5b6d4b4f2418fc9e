//! Every path that a source file names, in `use`, in code and inside macros, test modules aside.

use std::collections::BTreeSet;

use syn::{
    Attribute, ItemMod, ItemUse, Macro, UseTree,
    visit::{self, Visit},
};

/// One path.
pub enum Found {
    /// In this crate, from its root: `core::names::Digest`.
    Ours(Vec<String>),
    /// In another crate, or through a name that was imported.
    Other(Vec<String>),
}

/// Returns all paths of the file that lies at `file` below `src`.
pub fn paths_of(file: &str, source: &str) -> Vec<Found> {
    let parsed = syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut finder = Finder { module: module_of(file), ours: BTreeSet::new(), raw: Vec::new() };
    finder.visit_file(&parsed);
    let Finder { ours, raw, .. } = finder;
    raw.into_iter().map(|(module, path)| resolve(&module, path, &ours)).collect()
}

/// `core/rollout/mod.rs` and `core/rollout.rs` are `core::rollout`; `lib.rs` is the root.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

fn resolve(module: &[String], path: Vec<String>, ours: &BTreeSet<String>) -> Found {
    let mut at = module.to_vec();
    let mut rest = path.as_slice();
    match rest.first().map(String::as_str) {
        Some("crate") => {
            at.clear();
            rest = &rest[1..];
        }
        Some("self") => rest = &rest[1..],
        Some("super") => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        Some(name) if ours.contains(name) => {}
        _ => return Found::Other(path),
    }
    at.extend(rest.iter().cloned());
    Found::Ours(at)
}

struct Finder {
    module: Vec<String>,
    /// Names that `mod` and `use` of our own bring into the file.
    ours: BTreeSet<String>,
    raw: Vec<(Vec<String>, Vec<String>)>,
}

impl Finder {
    fn note(&mut self, path: Vec<String>) {
        self.raw.push((self.module.clone(), path));
    }

    fn note_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.note_tree(before, tree)),
            UseTree::Name(name) => self.note_import(with(&name.ident), &name.ident.to_string()),
            UseTree::Rename(rename) => self.note_import(with(&rename.ident), &rename.rename.to_string()),
            UseTree::Glob(_) => self.note(before.to_vec()),
        }
    }

    fn note_import(&mut self, path: Vec<String>, name: &str) {
        let is_ours = path.first().is_some_and(|first| matches!(first.as_str(), "crate" | "self" | "super"));
        // Types are not told apart from crates by their names alone, but crates are lower case.
        if is_ours && name.starts_with(|first: char| first.is_ascii_lowercase()) {
            self.ours.insert(name.to_owned());
        }
        self.note(path);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_for_tests(&module.attrs) {
            return;
        }
        self.ours.insert(module.ident.to_string());
        if module.content.is_some() {
            self.module.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.note_tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        // What a macro is given need not be Rust: names with `::` between them are taken for paths.
        let text = called.tokens.to_string().replace(" :: ", "::");
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
        for word in text.split(|c| !is_part(c)).filter(|word| word.contains("::")) {
            self.note(word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
        visit::visit_macro(self, called);
    }
}
