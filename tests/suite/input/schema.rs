//! The published schema takes what is right and refuses what is wrong in structure.
//!
//! A checker of the few keywords that the schema uses; an unknown keyword fails the test.

use locktender::core::{
    policy::schema,
    yaml::{Limits, parse},
};
use regex::Regex;
use serde_json::Value;

use super::files::{directories, package, read};

/// Returns what is wrong with a value, as paths.
fn check(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let number = |keyword: &Value| keyword.as_f64().unwrap();
    for (keyword, rule) in schema.as_object().unwrap() {
        let fits = match (keyword.as_str(), value) {
            ("$schema" | "title" | "description" | "default", _) => true,
            ("type", _) => match rule {
                Value::Array(types) => types.iter().any(|name| is_type(name, value)),
                name => is_type(name, value),
            },
            ("const", _) => rule == value,
            ("enum", _) => rule.as_array().unwrap().contains(value),
            ("anyOf", _) => rule.as_array().unwrap().iter().any(|schema| {
                let mut inner = Vec::new();
                check(schema, value, path, &mut inner);
                inner.is_empty()
            }),
            ("pattern", Value::String(text)) => Regex::new(rule.as_str().unwrap()).unwrap().is_match(text),
            ("minLength", Value::String(text)) => text.chars().count() as f64 >= number(rule),
            ("minimum", Value::Number(value)) => value.as_f64().unwrap() >= number(rule),
            ("maximum", Value::Number(value)) => value.as_f64().unwrap() <= number(rule),
            ("minItems", Value::Array(items)) => items.len() as f64 >= number(rule),
            ("maxItems", Value::Array(items)) => items.len() as f64 <= number(rule),
            ("uniqueItems", Value::Array(items)) => {
                items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
            }
            ("items", Value::Array(items)) => {
                items.iter().enumerate().for_each(|(at, item)| check(rule, item, &format!("{path}/{at}"), wrong));
                true
            }
            ("minProperties", Value::Object(members)) => members.len() as f64 >= number(rule),
            ("maxProperties", Value::Object(members)) => members.len() as f64 <= number(rule),
            ("required", Value::Object(members)) => {
                rule.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
            }
            ("properties", Value::Object(members)) => {
                for (name, schema) in rule.as_object().unwrap() {
                    if let Some(value) = members.get(name) {
                        check(schema, value, &format!("{path}/{name}"), wrong);
                    }
                }
                true
            }
            ("additionalProperties", Value::Object(members)) => {
                let known = schema.get("properties").and_then(Value::as_object);
                let others = members.iter().filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
                match rule {
                    Value::Bool(false) => others.count() == 0,
                    rule => {
                        others.for_each(|(name, value)| check(rule, value, &format!("{path}/{name}"), wrong));
                        true
                    }
                }
            }
            (
                "pattern"
                | "minLength"
                | "minimum"
                | "maximum"
                | "minItems"
                | "maxItems"
                | "uniqueItems"
                | "items"
                | "minProperties"
                | "maxProperties"
                | "required"
                | "properties"
                | "additionalProperties",
                _,
            ) => true,
            (other, _) => unreachable!("the schema uses `{other}`"),
        };
        if !fits {
            wrong.push(format!("{path}: {keyword}"));
        }
    }
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.as_i64().is_some() || value.as_u64().is_some(),
        other => unreachable!("the schema uses the type `{other}`"),
    }
}

fn wrong(schema: &str, bytes: &[u8]) -> Vec<String> {
    let document = parse("a.yaml", bytes, &Limits::SETTINGS).unwrap().into_iter().next();
    let mut wrong = Vec::new();
    check(&schema::all()[schema], &document.map_or(Value::Null, |node| node.into_value()), "", &mut wrong);
    wrong
}

/// Which schema a file of a release repository is under.
fn schema_of(path: &str) -> Option<&'static str> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["locktender.yaml"] => Some("settings"),
        ["policies", name] if name.ends_with(".yaml") => Some("rolloutpolicy"),
        ["apps", _, "app.yaml"] => Some("application"),
        ["freezes", _] => Some("freeze"),
        ["rollouts", _, _, "confirm", _] | ["rollouts", _, _, "abort.yaml"] => Some("decision"),
        _ => None,
    }
}

#[test]
fn every_example_and_ready_policy_is_under_the_schema() {
    let mut repositories = directories(&package("examples"));
    repositories.push(package("policies"));
    let mut number = 0;
    for repository in repositories {
        let is_policies = repository.ends_with("policies");
        for (path, bytes) in read(&repository) {
            let schema = if is_policies { Some("rolloutpolicy") } else { schema_of(&path) };
            let Some(schema) = schema else { continue };
            assert_eq!(wrong(schema, &bytes), Vec::<String>::new(), "{path}");
            number += 1;
        }
    }
    assert!(number > 12, "{number}");
}

/// What only several fields or files together show: no schema of one file can refuse it.
const BEYOND: &[&str] = &[
    "analysis/input/apps/nobody/app.yaml",
    "analysis/input/policies/both.yaml",
    "analysis/input/policies/sugar.yaml",
    "blue_green/input/policies/watch-of-nothing.yaml",
    "canary/input/policies/shrinks.yaml",
    "canary/input/policies/stuck.yaml",
    "canary/input/policies/twice.yaml",
    "canary/input/policies/uneven.yaml",
    "fault_56_unknown_fields/input/apps/search/app.yaml",
    "fault_58_numbers/input/apps/shop/app.yaml",
    "fault_58_numbers/input/policies/short.yaml",
    "fault_59_durations/input/apps/shop/app.yaml",
    "fault_59_durations/input/policies/never.yaml",
    "names_and_later/input/policies/short.yml",
    "placement/input/apps/over/app.yaml",
    "traffic/input/policies/cannot.yaml",
    "traffic/input/policies/nginx.yaml",
    "traffic/input/policies/scaled.yaml",
    "traffic/input/policies/without.yaml",
    "units/input/apps/cart/app.yaml",
    "units/input/apps/checkout/app.yaml",
    "units/input/apps/pay/app.yaml",
    "units/input/apps/search/app.yaml",
];

#[test]
fn what_is_wrong_in_structure_is_refused_by_the_schema_too() {
    use locktender::core::validate::validate;
    let root = package("fixtures");
    for case in directories(&root) {
        let files = read(&case.join("input"));
        let found = validate(&files, &Default::default(), |_| None);
        let bad: std::collections::BTreeSet<&str> =
            found.all_problems().into_iter().map(|problem| problem.file.as_str()).collect();
        for (path, bytes) in &files {
            let Some(schema) = schema_of(path) else { continue };
            let shown = format!("{}/input/{path}", case.file_name().unwrap().to_str().unwrap());
            if BEYOND.contains(&shown.as_str())
                || path.starts_with("apps/") && case.ends_with("fault_61_dependency_cycle")
            {
                continue;
            }
            // What is no YAML, or no document at all, gets to no schema.
            let Ok(documents) = parse(path, bytes, &Limits::SETTINGS) else { continue };
            if documents.is_empty() {
                continue;
            }
            assert_eq!(
                !wrong(schema, bytes).is_empty(),
                bad.contains(path.as_str()),
                "{shown}: {:?}",
                wrong(schema, bytes)
            );
        }
    }
}
