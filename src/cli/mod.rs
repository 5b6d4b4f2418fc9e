//! The command line: one file a command, `print` for what they print, `error` for how they fail.
//!
//! Commands that look go through [`Look`](crate::controller::look::Look): the very reading and deciding of the
//! controller, with Git and the cluster asked directly. So they work with the controller dead. Commands that decide
//! make the same commit that a person would, and push it with compare-and-swap.

mod audit;
mod decision;
mod demo;
mod diff;
mod error;
mod give_back;
mod haproxy;
mod history;
mod lease;
mod meta;
mod output;
mod place;
mod plan;
mod print;
mod revert;
mod run;
mod sandbox;
mod schema;
mod status;
mod validate;
mod watch;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use error::{Done, Error, Outcome};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a policy.";

/// A release controller for Kubernetes: merge to release, commit to advance, revert to roll back
#[derive(Debug, Parser)]
#[command(name = "locktender", version, after_help = EXIT_CODES, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What a command says of itself stands at its arguments: a comment here would take the place of all of it. Those that share
/// their arguments say it here.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Sandbox(sandbox::Args),
    Validate(validate::Args),
    Schema(schema::Args),
    Plan(plan::Args),
    Diff(diff::Args),
    Status(status::Args),
    Watch(watch::Args),
    History(history::Args),
    Confirm(decision::ConfirmArgs),
    /// Passes every confirm and pause that is left
    ///
    /// Never health, an analysis, a freeze or a window. Writes `promote.yaml` into the rollout's directory, commits and pushes
    /// it; the controller acts on it, and this command does not wait for that.
    #[command(after_help = decision::example("promote", "it is urgent, and looks well"))]
    Promote(decision::Args),
    /// Holds a rollout where it is
    ///
    /// Nothing goes forward while `pause.yaml` is in the rollout's directory, which this writes, commits and pushes. Going
    /// back is not held: an abort still counts.
    #[command(after_help = decision::example("pause", "the database is being moved"))]
    Pause(decision::Args),
    /// Lets a paused rollout go on
    ///
    /// Removes `pause.yaml` from the rollout's directory, commits and pushes that.
    #[command(after_help = decision::example("resume", "the database is back"))]
    Resume(decision::Args),
    /// Tries a stopped stage, or a refused target, again
    ///
    /// Writes `retry.yaml` into the rollout's directory, commits and pushes it. A stopped rollout runs its failed stage again;
    /// a target that was aborted is released again, as a rollout of its own with all its gates.
    #[command(after_help = decision::example("retry", "the registry is back"))]
    Retry(decision::Args),
    Abort(decision::AbortArgs),
    Revert(revert::Args),
    #[command(visible_alias = "release")]
    GiveBack(give_back::Args),
    /// Reads and checks the trail of records
    #[command(subcommand)]
    Audit(audit::Command),
    Haproxy(haproxy::Args),
    Completion(meta::CompletionArgs),
    /// Prints the manual page
    #[command(hide = true)]
    Man,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            // Help and versions are data; a reader that has gone away is no error.
            let _ = error.print();
            return ExitCode::from(if wrong { 2 } else { 0 });
        }
    };
    match execute(cli.command) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::FoundWrong) => ExitCode::FAILURE,
        Err(error) => error.report(),
    }
}

fn execute(command: Command) -> Outcome {
    match &command {
        Command::Schema(args) => return schema::run(args),
        Command::Completion(args) => return meta::completion(args),
        Command::Man => return meta::man(),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Error::because("cannot start", &error))?;
    let outcome = runtime.block_on(dispatch(command));
    // A thread that waits for a disk or a program must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn dispatch(command: Command) -> Outcome {
    use decision::Verb;
    match command {
        Command::Demo(args) => demo::run(&args).await,
        Command::Run(args) => run::run(args).await,
        Command::Sandbox(args) => sandbox::run(args).await,
        Command::Validate(args) => validate::run(args).await,
        Command::Plan(args) => plan::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::History(args) => history::run(args).await,
        Command::Confirm(args) => decision::confirm(args).await,
        Command::Promote(args) => decision::run(Verb::Promote, args).await,
        Command::Pause(args) => decision::run(Verb::Pause, args).await,
        Command::Resume(args) => decision::run(Verb::Resume, args).await,
        Command::Retry(args) => decision::run(Verb::Retry, args).await,
        Command::Abort(args) => decision::abort(args).await,
        Command::Revert(args) => revert::run(args).await,
        Command::GiveBack(args) => give_back::run(args).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Haproxy(args) => haproxy::run(args).await,
        Command::Schema(args) => schema::run(&args),
        Command::Completion(args) => meta::completion(&args),
        Command::Man => meta::man(),
    }
}
