//! Bad input and what is said of it: each directory of `fixtures/` is a release repository and the text expected.
//!
//! `UPDATE_FIXTURES=1` writes what is said now into `expected.txt`, to be read before it is committed.

use std::{collections::BTreeMap, fmt::Write as _, time::Instant};

use locktender::core::validate::validate;

use super::files::{directories, package, read};

#[test]
fn bad_input_gets_one_clear_error_each_and_other_applications_go_on() {
    let mut wrong = Vec::new();
    let cases = directories(&package("fixtures"));
    assert!(cases.len() >= 12, "there are only {} cases", cases.len());
    for case in cases {
        let files = read(&case.join("input"));
        let started = Instant::now();
        let found = validate(&files, &BTreeMap::new(), |_| None);
        assert!(started.elapsed().as_secs() < 2, "{} took {:?}", case.display(), started.elapsed());
        assert!(found.applications.contains_key("fine"), "{}: the good application must go on", case.display());
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
        if said != expected {
            wrong.push(format!("{}\n--- said\n{said}--- expected\n{expected}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
