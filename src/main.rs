//! Starts the CLI, nothing else.

fn main() {}
