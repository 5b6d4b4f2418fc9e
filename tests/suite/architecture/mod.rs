//! Imports point one way (`lib.rs` says which), the core is pure, and no file holds two ideas: read from the sources.
#![allow(clippy::unwrap_used, clippy::panic)]

mod paths;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use paths::{Found, paths_of};

/// Which folders of `src` a folder may name. `lib.rs` and `main.rs` are not in any.
const FOLDERS: &[(&str, &[&str])] = &[
    ("core", &["core"]),
    ("adapter", &["core", "adapter"]),
    ("sandbox", &["core", "sandbox"]),
    ("controller", &["core", "controller"]),
    ("server", &["core", "adapter", "controller", "sandbox", "server"]),
    ("cli", &["core", "adapter", "controller", "sandbox", "server", "cli"]),
];

/// What `core` may use besides itself: nothing that has a clock, a thread, a socket or a file.
const PURE: &[&str] = &[
    "async_trait",
    "base64",
    "bytes",
    "cel",
    "granit_parser",
    "humantime",
    "jiff",
    "serde",
    "serde_json",
    "serde_yaml",
    "sha2",
    "similar",
    "std",
    "thiserror",
];

/// Crates that live in a few folders only, with everything below them.
const PLACES: &[(&str, &[&str])] = &[
    ("git2", &["adapter/git"]),
    ("kube", &["adapter/kube", "sandbox/kubelet"]),
    ("k8s_openapi", &["adapter/kube", "sandbox/kubelet"]),
    ("cel", &["core/analysis"]),
    ("axum", &["sandbox/http", "server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("notify", &["adapter/git"]),
    ("prometheus_client", &["server"]),
    ("rustix", &["adapter"]),
    ("backon", &["adapter"]),
    ("rustls", &["adapter/ask", "adapter/kube", "cli", "sandbox/kubelet"]),
    // The demo asks pods as anybody would.
    ("reqwest", &["adapter", "cli/demo"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("indicatif", &["cli"]),
    ("anstream", &["cli"]),
    ("owo_colors", &["cli"]),
    ("tracing_subscriber", &["cli"]),
];

/// What would make deciding depend on more than its input.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "env::var",
    "env::var_os",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
];

/// What is only data, though it lives beside what is not.
const DATA: &[&str] = &["std::net::IpAddr", "std::net::SocketAddr"];

/// A longer file holds two ideas.
const LONGEST: usize = 700;

/// Says what is wrong with one file. `file`: its path below `src`, with `/`.
fn problems(file: &str, source: &str, dependencies: &BTreeSet<String>) -> Vec<String> {
    let lines = source.lines().count();
    let mut problems = Vec::new();
    if lines > LONGEST {
        problems.push(format!("{file}: {lines} lines, more than {LONGEST}"));
    }
    let folder = FOLDERS.iter().find(|(folder, _)| file.starts_with(&format!("{folder}/")));
    let is_in = |place: &str| file.starts_with(&format!("{place}/")) || file == format!("{place}.rs");
    for found in paths_of(file, source) {
        let path = match &found {
            Found::Ours(path) | Found::Other(path) => path.join("::"),
        };
        let wrong = match &found {
            Found::Ours(path) => folder.and_then(|(folder, allowed)| {
                let named = path.first().filter(|named| FOLDERS.iter().any(|(known, _)| known == named))?;
                let ok = allowed.contains(&named.as_str());
                (!ok).then(|| format!("{folder} must not name {named}"))
            }),
            Found::Other(path) => {
                let name = path.first().map_or("", String::as_str);
                let place = PLACES.iter().find(|(crate_name, _)| *crate_name == name);
                let is_crate = name == "std" || dependencies.contains(name);
                if is_crate && is_in("core") && !PURE.contains(&name) {
                    Some(format!("core must not use {name}"))
                } else if let Some((_, places)) = place.filter(|(_, places)| !places.iter().any(|place| is_in(place))) {
                    Some(format!("{name} belongs into {}", places.join(" or ")))
                } else {
                    None
                }
            }
        };
        let impure = is_in("core")
            && !DATA.contains(&path.as_str())
            && IMPURE.iter().any(|impure| {
                path == *impure || path.starts_with(&format!("{impure}::")) || path.ends_with(&format!("::{impure}"))
            });
        let impure = impure.then(|| "core must not ask for it".to_owned());
        problems.extend(wrong.or(impure).map(|wrong| format!("{file}: {path}: {wrong}")));
    }
    problems.sort();
    problems.dedup();
    problems
}

/// The crates that Cargo.toml names, as they are written in paths.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap().to_owned();
    let name = |line: &str| Some(line.split_once('=')?.0.trim().replace('-', "_"));
    section.lines().filter(|line| !line.starts_with('#')).filter_map(name).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_import_points_the_right_way_and_the_core_is_pure() {
    let source = root().join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 100, "the sources are somewhere else");
    let dependencies = dependencies();
    let mut all = Vec::new();
    for file in files {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
        all.extend(problems(&name, &fs::read_to_string(&file).unwrap(), &dependencies));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn tests_are_short_files_as_well() {
    let mut files = Vec::new();
    rust_files(&root().join("tests"), &mut files);
    let long: Vec<_> =
        files.iter().filter(|file| fs::read_to_string(file).unwrap().lines().count() > LONGEST).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn a_wrong_arrow_is_found_wherever_it_hides() {
    let table = [
        ("core/rollout/bad.rs", "use crate::adapter::git::GitRepository;", "core must not name adapter"),
        ("core/rollout/bad.rs", "use crate::{core::names, controller};", "core must not name controller"),
        ("core/bad.rs", "fn f() { super::super::sandbox::world(); }", "core must not name sandbox"),
        ("core/bad.rs", "fn f() { super::sandbox::world(); }", ""),
        ("core/bad.rs", "fn f() -> Vec<tokio::time::Duration> { Vec::new() }", "core must not use tokio"),
        ("core/bad.rs", "fn f() { println!(\"{}\", kube::core::x()); }", "core must not use kube"),
        ("core/bad.rs", "use std::{fmt, fs};", "core must not ask for it"),
        ("core/bad.rs", "use jiff::Timestamp; fn f() { Timestamp::now(); }", "core must not ask for it"),
        ("core/bad.rs", "fn f() { std::time::Instant::now(); }", "core must not ask for it"),
        ("core/bad.rs", "use std::env; fn f() { env::var(\"HOME\"); }", "core must not ask for it"),
        ("controller/bad.rs", "use crate::adapter::kube::KubeCluster;", "controller must not name adapter"),
        ("adapter/git/bad.rs", "use crate::controller::Ports;", "adapter must not name controller"),
        ("sandbox/world.rs", "fn f(x: kube::Client) {}", "kube belongs into adapter/kube or sandbox/kubelet"),
        ("cli/bad.rs", "use git2::Repository;", "git2 belongs into adapter/git"),
        ("controller/bad.rs", "use clap::Parser;", "clap belongs into cli"),
        ("sandbox/api/bad.rs", "use axum::Router;", "axum belongs into sandbox/http or server"),
    ];
    for (file, source, expected) in table {
        let found = problems(file, source, &dependencies());
        if expected.is_empty() {
            assert!(found.is_empty(), "{file}: {source}: {found:?}");
        } else {
            assert!(found.iter().any(|problem| problem.ends_with(expected)), "{file}: {source}: {found:?}");
        }
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let table = [
        ("core/rollout/good.rs", "use super::plan; use crate::core::names::Digest; use std::collections::BTreeMap;"),
        ("core/good.rs", "#[cfg(test)] mod tests { use std::fs; fn f() { std::time::Instant::now(); } }"),
        ("adapter/kube/good.rs", "use kube::Client; use crate::core::cluster::Cluster;"),
        // A module of ours with a crate's name is no crate.
        ("cli/good.rs", "use crate::adapter::kube; fn f() { kube::connect(); }"),
        ("controller/good.rs", "use crate::core::cluster::Cluster; use tokio::sync::watch;"),
    ];
    for (file, source) in table {
        assert_eq!(problems(file, source, &dependencies()), Vec::<String>::new(), "{file}: {source}");
    }
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let source = "// one idea\n".repeat(LONGEST + 1);
    assert_eq!(problems("core/long.rs", &source, &dependencies()), ["core/long.rs: 701 lines, more than 700"]);
}
