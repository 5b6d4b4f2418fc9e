//! `schema`: the JSON Schema of what people write.

use super::{
    error::{Done, Error, Outcome},
    output,
};
use crate::core::policy::{nearest, schema};

/// Prints the JSON Schema of a file that people write, for editors
///
/// Without a kind, lists the kinds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender schema rolloutpolicy > .schemas/rolloutpolicy.json

Then, as the first line of a policy:
  # yaml-language-server: $schema=../.schemas/rolloutpolicy.json

Exit codes: 0 done, 2 there is no such kind.")]
pub(super) struct Args {
    /// application, decision, freeze, rolloutpolicy or settings
    kind: Option<String>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let all = schema::all();
    let Some(kind) = &args.kind else {
        let title = |schema: &serde_json::Value| schema["title"].as_str().unwrap_or_default().to_owned();
        let rows: Vec<Vec<String>> = all.iter().map(|(kind, schema)| vec![(*kind).to_owned(), title(schema)]).collect();
        output::data(&output::columns(&rows));
        return Ok(Done::Well);
    };
    let Some(schema) = all.get(kind.to_lowercase().as_str()) else {
        let error = Error::usage(format!("there is no kind `{kind}`"));
        return Err(match nearest(kind, all.keys().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("there are {}", all.keys().copied().collect::<Vec<_>>().join(", "))),
        });
    };
    let text = serde_json::to_string_pretty(schema).map_err(|error| Error::because("cannot print it", &error))?;
    output::data(&format!("{text}\n"));
    Ok(Done::Well)
}
