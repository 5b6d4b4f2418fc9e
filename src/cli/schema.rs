//! `schema`: the JSON Schema of what people write.

use serde::Serialize;
use serde_json::Value;

use super::{
    error::{Done, Error, Outcome},
    output::{self, Format, OutputArgs},
};
use crate::core::policy::{nearest, schema};

/// Prints the JSON Schema of a file that people write, for editors
///
/// Without a kind, lists the kinds. A schema is JSON unless YAML is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender schema rolloutpolicy > .schemas/rolloutpolicy.json

Then, as the first line of a policy:
  # yaml-language-server: $schema=../.schemas/rolloutpolicy.json

Exit codes: 0 done, 2 there is no such kind.")]
pub(super) struct Args {
    /// application, decision, freeze, rolloutpolicy or settings
    kind: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A kind of file that people write.
#[derive(Serialize)]
struct Kind<'a> {
    kind: &'a str,
    title: &'a str,
}

pub(super) fn run(args: &Args) -> Outcome {
    let all = schema::all();
    let Some(kind) = &args.kind else {
        let kinds = all.iter().map(|(kind, schema)| Kind { kind, title: schema["title"].as_str().unwrap_or_default() });
        args.output.print(&kinds.collect::<Vec<_>>(), |kinds| {
            let rows = kinds.iter().map(|one| vec![one.kind.to_owned(), one.title.to_owned()]);
            output::columns(&rows.collect::<Vec<_>>())
        })?;
        return Ok(Done::Well);
    };
    let Some(schema) = all.get(kind.to_lowercase().as_str()) else {
        let error = Error::usage(format!("there is no kind `{kind}`"));
        return Err(match nearest(kind, all.keys().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("there are {}", all.keys().copied().collect::<Vec<_>>().join(", "))),
        });
    };
    // What editors read, also where nobody says how.
    let output = if args.output.output == Format::Table { OutputArgs { output: Format::Json } } else { args.output };
    output.print(schema, Value::to_string)?;
    Ok(Done::Well)
}
