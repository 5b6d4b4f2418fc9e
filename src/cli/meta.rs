//! `completion` and `man`: what the command line says of itself.

use clap::CommandFactory as _;

use super::{
    Cli,
    error::{Done, Error, Outcome},
    output,
};

/// Prints a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  locktender completion bash > ~/.local/share/bash-completion/completions/locktender"
)]
pub(super) struct CompletionArgs {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn completion(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "locktender", &mut script);
    output::data(&String::from_utf8_lossy(&script));
    Ok(Done::Well)
}

pub(super) fn man() -> Outcome {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
    rendered.map_err(|error| Error::because("cannot print the manual page", &error))?;
    output::data(&String::from_utf8_lossy(&page));
    Ok(Done::Well)
}
