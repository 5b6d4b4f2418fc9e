//! Bad input and what is said of it: each directory of `fixtures/` is a release repository and the text expected.
//!
//! `UPDATE_FIXTURES=1` writes what is said now into `expected.txt`, to be read before it is committed.

use std::{collections::BTreeMap, fmt::Write as _, time::Instant};

use locktender::core::validate::validate;

use super::files::{directories, package, read};

/// Asserts what is said of one case, and that the good application in it goes on.
fn check(case: &str) {
    let case = package("fixtures").join(case);
    let files = read(&case.join("input"));
    let started = Instant::now();
    let found = validate(&files, &BTreeMap::new(), |_| None);
    assert!(started.elapsed().as_secs() < 2, "it took {:?}", started.elapsed());
    assert!(found.applications.contains_key("fine"), "the good application must go on");
    let mut said = String::new();
    for problem in found.all_problems() {
        let source = files.get(&problem.file).map(|bytes| String::from_utf8_lossy(bytes));
        writeln!(said, "{}", problem.render(source.as_deref())).unwrap();
    }
    writeln!(said, "{}", found.summary()).unwrap();
    let expected = case.join("expected.txt");
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&expected, &said).unwrap();
    }
    let expected = std::fs::read_to_string(expected).unwrap_or_default();
    assert!(said == expected, "--- said\n{said}--- expected\n{expected}");
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_fixture_is_a_case() {
            let names = directories(&package("fixtures"));
            let names: Vec<&str> = names.iter().filter_map(|path| path.file_name()?.to_str()).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

cases! {
    analysis
    blue_green
    canary
    decisions
    fault_54_bombs
    fault_55_scalars
    fault_56_unknown_fields
    fault_57_one_object_twice
    fault_58_numbers
    fault_59_durations
    fault_61_dependency_cycle
    fault_62_selectors
    manifests
    names_and_later
    placement
    traffic
    units
}
