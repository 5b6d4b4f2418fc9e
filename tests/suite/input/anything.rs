//! Whatever is written, reading answers: with a value or with problems that have a place in the file, and soon.

use locktender::core::{
    cluster::FIELD_MANAGER,
    diff::owned_differs,
    manifest::{Object, canonical_digest, parse, pod_change, redact},
    policy::{read_application, read_decision, read_freeze, read_policy, read_settings},
    problem::Problem,
    render::Files,
    yaml,
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value};

use super::files::package;

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9 :#'\"-]{0,12}".prop_map(Value::String),
        select(vec!["no", "0644", "1e3", "~", "2026-11-21", "<<", "=", "é\n"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name = prop_oneof![
            select(vec![
                "name",
                "containers",
                "env",
                "ports",
                "limits",
                "image",
                "spec",
                "metadata",
                "finalizers",
                "no"
            ])
            .prop_map(str::to_owned),
            "[a-z]{1,4}",
        ];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::Array),
            vec((name, inner), 0..6).prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Asserts that every problem is about a place that the file has.
fn have_places(text: &str, problems: &[Problem]) -> Result<(), TestCaseError> {
    prop_assert!(!problems.is_empty());
    let lines = u32::try_from(text.lines().count()).unwrap() + 1;
    for problem in problems {
        prop_assert!(problem.line <= lines, "{problem} of {lines} lines");
        prop_assert!(!problem.render(Some(text)).is_empty());
    }
    Ok(())
}

fn read_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(bytes);
    let results = [
        read_policy("policies/a.yaml", bytes).err(),
        read_application("apps/a/app.yaml", bytes).err(),
        read_settings("locktender.yaml", bytes).err(),
        read_freeze("freezes/a.yaml", bytes).err(),
        read_decision("rollouts/a/0001/abort.yaml", bytes).err(),
        parse(&Files::from([("a.yaml".to_owned(), bytes.to_vec().into())]), "default", |_| None).err(),
    ];
    results.into_iter().flatten().try_for_each(|problems| have_places(&text, &problems))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..300)) {
        read_all(&bytes)?;
    }

    #[test]
    fn any_text_that_looks_like_yaml_is_answered(text in "([ \t]{0,4}(- |[a-z]{1,3}: ?|[&*!][a-z]|[|>\\[{}\\],'\"#%?~]|<<: |---\n|\n|0x1F|no){1,6}){0,12}") {
        read_all(text.as_bytes())?;
    }

    #[test]
    fn a_policy_with_anything_changed_is_answered(at in 0_usize..1_300, length in 0_usize..20, put in "[ -~\n\t]{0,8}") {
        let mut text = std::fs::read_to_string(package("policies/two-data-centers.yaml")).unwrap();
        let at = at.min(text.len());
        let end = (at + length).min(text.len());
        text.replace_range(at..end, &put);
        read_all(text.as_bytes())?;
    }

    /// JSON is YAML: what is written by one is read the same by the other.
    #[test]
    fn json_reads_as_itself(value in json()) {
        let text = value.to_string();
        let read = yaml::parse("a.json", text.as_bytes(), &yaml::Limits::MANIFESTS);
        let read: Vec<Value> = read.map_err(|problem| TestCaseError::fail(problem.to_string()))?
            .into_iter().map(yaml::Node::into_value).collect();
        let expected: Vec<Value> = if value.is_null() { vec![] } else { vec![value] };
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn nothing_differs_from_itself(value in json()) {
        let object = Object(value);
        prop_assert_eq!(owned_differs(&object, &object, FIELD_MANAGER), vec![]);
        prop_assert_eq!(canonical_digest(&object.0), canonical_digest(&object.0.clone()));
        redact(&object);
    }

    #[test]
    fn any_two_objects_can_be_compared(a in json(), b in json()) {
        pod_change(&a, &b);
        owned_differs(&Object(a), &Object(b), FIELD_MANAGER);
    }
}
