//! HAProxy: a client of its Runtime API, and its configuration file.

mod client;
mod instance;

use std::{future::Future, time::Duration};

use async_trait::async_trait;
pub use client::state;
pub use instance::{Instance, TakeError};

use crate::core::{
    ask::Unanswered,
    traffic::haproxy::{Command, State, Tell, TellError, Telling},
};

/// Tells any HAProxy that its socket can be reached of.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// How long the answer to one command may take.
    pub timeout: Duration,
}

impl Default for Proxies {
    /// An answer comes from HAProxy's memory: five seconds are long.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5) }
    }
}

#[async_trait]
impl Tell for Proxies {
    async fn tell(&self, telling: &Telling) -> Result<State, TellError> {
        let Telling { asked, seen, commands, .. } = telling;
        let now = self.within(client::state(asked)).await?;
        if !now.is_told_as(seen) {
            return Err(TellError::Stale(now));
        }
        for command in commands {
            let line = command.line(&asked.backend);
            let said = self.within(client::say(&asked.runtime, &line)).await?;
            if !command.is_done(&said) {
                // While a server has idle connections it cannot be forgotten, and nothing goes there.
                if matches!(command, Command::Delete(_)) {
                    continue;
                }
                return Err(Unanswered::Garbage(format!("`{line}` is not done: {}", said.trim())).into());
            }
        }
        let state = self.within(client::state(asked)).await?;
        Ok(State { told: true, ..state })
    }
}

impl Proxies {
    async fn within<T>(&self, answer: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
        tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(Unanswered::Timeout(self.timeout)))
    }
}
