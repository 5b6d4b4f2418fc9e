//! Conditions in CEL over what was measured.
//!
//! `result` is what the provider found: a list of numbers from Prometheus, any JSON from an endpoint. `value` is its one
//! number, where it is one; `baseline` is the same of the version that is stable, where it is asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{Context, Program, Value as Cel};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a condition may name.
const VARIABLES: &[&str] = &["result", "value", "baseline"];
/// The longest that is read: the parser and the evaluation go as deep as the text is nested.
const LONGEST: usize = 500;
const DEEPEST: usize = 32;
/// What goes over lists, and how many of these there may be: each multiplies the work by the list's length.
const LOOPS: &[&str] = &[".all(", ".exists(", ".exists_one(", ".map(", ".filter("];
const MOST_LOOPS: usize = 2;

/// A condition that compiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Condition(String);

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it, and at which character.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("a condition has at most {LONGEST} characters"));
        }
        if nesting(text) > DEEPEST {
            return Err(format!("a condition is nested at most {DEEPEST} deep"));
        }
        if LOOPS.iter().map(|one| text.matches(one).count()).sum::<usize>() > MOST_LOOPS {
            return Err(format!("a condition goes over lists at most {MOST_LOOPS} times"));
        }
        let program = compile(text)?;
        let references = program.references();
        let unknown = references.variables().into_iter().filter(|name| !VARIABLES.contains(name)).min();
        if let Some(name) = unknown.filter(|_| LOOPS.iter().all(|one| !text.contains(one))) {
            return Err(format!("`{name}` is not known here: there are {}", VARIABLES.join(", ")));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns whether it compares with what is stable.
    pub fn names_baseline(&self) -> bool {
        compile(&self.0).is_ok_and(|program| program.references().has_variable("baseline"))
    }

    /// Compiles it, so that it can be evaluated many times.
    ///
    /// # Errors
    ///
    /// It does not compile after all.
    pub(super) fn compiled(&self) -> Result<Compiled<'_>, String> {
        Ok(Compiled { condition: self, program: compile(&self.0)? })
    }

    /// Evaluates it once.
    ///
    /// # Errors
    ///
    /// It names something that is not there, compares what cannot be compared, or is not true or false.
    pub fn holds(&self, result: &Value, baseline: Option<&Value>) -> Result<bool, String> {
        self.compiled()?.holds(result, baseline)
    }
}

/// A condition that can be evaluated.
pub(super) struct Compiled<'a> {
    condition: &'a Condition,
    program: Program,
}

impl Compiled<'_> {
    /// Evaluates it.
    ///
    /// # Errors
    ///
    /// It names something that is not there, compares what cannot be compared, or is not true or false.
    pub(super) fn holds(&self, result: &Value, baseline: Option<&Value>) -> Result<bool, String> {
        let condition = self.condition;
        let mut context = Context::default();
        context.add_variable_from_value("result", cel(result));
        if let Some(value) = number(result) {
            context.add_variable_from_value("value", Cel::Float(value));
        }
        if let Some(baseline) = baseline.and_then(number) {
            context.add_variable_from_value("baseline", Cel::Float(baseline));
        }
        match quietly(|| self.program.execute(&context))? {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("`{condition}` gives {}, not true or false", other.type_of())),
            Err(error) => Err(format!("`{condition}`: {error}")),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.0
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

fn compile(text: &str) -> Result<Program, String> {
    quietly(|| Program::compile(text))?.map_err(|errors| {
        let first = errors.errors.first();
        first.map_or_else(
            || "it does not compile".to_owned(),
            |error| format!("{} at character {}", error.msg.trim(), error.pos.1 + 1),
        )
    })
}

/// The language's own code may give up on what nobody has tried yet: that is an answer like any other.
fn quietly<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| "the condition cannot be worked out".to_owned())
}

/// Counts how deep brackets and negations go.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut signs) = (0_usize, 0, 0);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' | '?' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '!' | '-' => signs += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest.max(signs)
}

/// Returns the one number that a result is.
fn number(result: &Value) -> Option<f64> {
    match result {
        Value::Array(items) => items.first().filter(|_| items.len() == 1).and_then(Value::as_f64),
        other => other.as_f64(),
    }
}

fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match number.as_i64().filter(|_| !number.is_f64()) {
            Some(whole) => Cel::Int(whole),
            None => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::from(text.as_str()),
        Value::Array(items) => Cel::from(items.iter().map(cel).collect::<Vec<_>>()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), cel(value)));
            Cel::from(members.collect::<std::collections::HashMap<String, Cel>>())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(condition: &str, result: &Value) -> Result<bool, String> {
        Condition::parse(condition).unwrap().holds(result, Some(&json!([0.5])))
    }

    #[test]
    fn conditions_are_true_or_false_or_an_error() {
        assert_eq!(holds("result[0] >= 0.95", &json!([0.99])), Ok(true));
        assert_eq!(holds("result[0] >= 0.95", &json!([0.9])), Ok(false));
        assert_eq!(holds("value >= 1", &json!([2.0])), Ok(true));
        assert_eq!(holds("value <= baseline * 1.2", &json!([0.61])), Ok(false));
        assert_eq!(holds("result.all(one, one < 3.0)", &json!([1.0, 2.0])), Ok(true));
        assert_eq!(holds("result.healthy && result.load < 10", &json!({"healthy": true, "load": 3})), Ok(true));
        assert!(holds("result[1] > 0.5", &json!([0.99])).unwrap_err().contains("ndex"));
        assert!(holds("value > 0.5", &json!([1.0, 2.0])).is_err());
        assert!(holds("result.missing > 0.5", &json!({})).is_err());
        assert!(holds("result[0]", &json!([0.99])).unwrap_err().contains("not true or false"));
    }

    #[test]
    fn what_does_not_compile_says_where() {
        assert!(Condition::parse("result[0] >=").unwrap_err().contains("at character"));
        let unknown = Condition::parse("rseult[0] > 1").unwrap_err();
        assert_eq!(unknown, "`rseult` is not known here: there are result, value, baseline");
        assert!(Condition::parse(&"(".repeat(40)).unwrap_err().contains("nested"));
        assert!(Condition::parse(&"x".repeat(2000)).unwrap_err().contains("characters"));
        let loops = "result.all(a, result.all(b, result.all(c, true)))";
        assert!(Condition::parse(loops).unwrap_err().contains("lists"));
    }
}
