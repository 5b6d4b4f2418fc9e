//! What several suites need to set up the world that they test against.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod cluster;
pub mod deployed;
pub mod git;
pub mod git_servers;
pub mod measures;
pub mod proxy;
pub mod ssh;
pub mod tls;
