//! `docs/faults.md` says which tests inject which fault: kept true by reading the names of all tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Suites that play on the sandbox, and on a real control plane where they run under `tests/controlplane/run`.
const ON_A_SERVER: [&str; 4] = ["conformance", "faults", "histories", "rollouts"];

/// Where the tests of each row are: modules by number.
fn found(directory: &Path, below: &Path, rows: &mut BTreeMap<u32, BTreeSet<String>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found(&path, below, rows);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = path.strip_prefix(below).unwrap().with_extension("");
            let parts = module.components().map(|part| part.as_os_str().to_str().unwrap());
            let module = parts.filter(|part| *part != "mod").collect::<Vec<_>>().join("::");
            for name in fs::read_to_string(&path).unwrap().split("fn fault_").skip(1) {
                let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
                if let Ok(number) = digits.parse() {
                    rows.entry(number).or_default().insert(module.clone());
                }
            }
        }
    }
}

/// Files that are wrong have a directory each, which a test is made of: `fault_57_one_object_twice`.
fn refused(fixtures: &Path, rows: &mut BTreeMap<u32, BTreeSet<String>>) {
    for entry in fs::read_dir(fixtures).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let number = name.strip_prefix("fault_").and_then(|rest| rest.split('_').next()?.parse().ok());
        if let Some(number) = number {
            rows.entry(number).or_default().insert("input::refused".to_owned());
        }
    }
}

fn modules(of: &BTreeSet<String>, on_a_server: bool) -> String {
    let is_on_a_server = |module: &&String| ON_A_SERVER.contains(&module.split("::").next().unwrap_or_default());
    let chosen = of.iter().filter(|module| is_on_a_server(module) == on_a_server);
    chosen.map(|module| format!("`{module}`")).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_table_of_faults_says_where_each_is_injected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut rows = BTreeMap::new();
    found(&root.join("tests/suite"), &root.join("tests/suite"), &mut rows);
    found(&root.join("src"), &root.join("src"), &mut rows);
    refused(&root.join("fixtures"), &mut rows);
    let page = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let mut told = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u32>() else { continue };
        let none = BTreeSet::new();
        let of = rows.get(&number).unwrap_or(&none);
        let true_line = format!("| {number} | {} | {} | {} |", cells[1], modules(of, false), modules(of, true));
        let tidy = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(tidy(line), tidy(&true_line), "docs/faults.md");
        told.insert(number);
    }
    let tested: BTreeSet<u32> = rows.into_keys().collect();
    assert!(tested.is_subset(&told), "rows that docs/faults.md does not have: {:?}", &tested - &told);
}
