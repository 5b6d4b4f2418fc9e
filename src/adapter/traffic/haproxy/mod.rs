//! HAProxy: a client of its Runtime API, and its configuration file.

mod client;
mod instance;

use std::time::Duration;

use async_trait::async_trait;
pub use client::state;
pub use instance::{Instance, TakeError};

use crate::core::{
    ask::Unanswered,
    traffic::haproxy::{Asked, Command, Tell},
};

/// Tells any HAProxy that its socket can be reached of.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// How long the answer to one command may take.
    pub timeout: Duration,
}

#[async_trait]
impl Tell for Proxies {
    async fn tell(&self, asked: &Asked, commands: &[Command]) -> Result<(), Unanswered> {
        for command in commands {
            let line = command.line(&asked.backend);
            let said = tokio::time::timeout(self.timeout, client::say(&asked.runtime, &line)).await;
            let said = said.unwrap_or(Err(Unanswered::Timeout(self.timeout)))?;
            if !command.is_done(&said) {
                return Err(Unanswered::Garbage(format!("`{line}` is not done: {}", said.trim())));
            }
        }
        Ok(())
    }
}
