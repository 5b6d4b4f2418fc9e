//! Real requests over real connections through twenty switches and ten canaries of each way by which requests come: how many
//! there were, that none failed, and how many a second the machine served.
//!
//! These are the suite's own tests of it, so that what is measured is what is asserted. They are not optimised, as tests are:
//! the rate is the machine's under that load, and no claim. `LOCKTENDER_LOAD=sample` does a few of each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

fn main() {
    let load = std::env::var("LOCKTENDER_LOAD").unwrap_or_else(|_| "all".to_owned());
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--test", "suite", "--", "rollouts::load", "--nocapture", "--test-threads", "1"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("LOCKTENDER_LOAD", load).stdout(Stdio::piped());
    let mut suite = command.spawn().unwrap();
    let lines = BufReader::new(suite.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told: Vec<String> = lines.filter(|line| line.contains(" requests, ") || line.contains("FAILED")).collect();
    assert!(suite.wait().unwrap().success(), "requests failed:\n{}", told.join("\n"));
    told.iter().for_each(|line| println!("{line}"));
}
