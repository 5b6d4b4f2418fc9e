//! What several suites need to set up the world that they test against.

pub mod git;
pub mod git_servers;
