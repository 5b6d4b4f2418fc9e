//! HAProxy: a client of its Runtime API, and its configuration file.

mod client;
mod instance;

use std::{future::Future, time::Duration};

use async_trait::async_trait;
pub use client::state;
pub use instance::{Instance, TakeError, place};

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
        for together in commands.chunk_by(|one, next| is_weight(one) && is_weight(next)) {
            for some in together.chunks(MOST_TOGETHER) {
                let lines: Vec<String> = some.iter().map(|command| command.line(&asked.backend)).collect();
                let line = lines.join("; ");
                let said = self.within(client::say(&asked.runtime, &line)).await?;
                if !some.iter().all(|command| command.is_done(&said)) {
                    // While a server has idle connections it cannot be forgotten, and nothing goes there.
                    if matches!(some, [Command::Delete(_)]) {
                        continue;
                    }
                    return Err(Unanswered::Garbage(format!("`{line}` is not done: {}", said.trim())).into());
                }
            }
        }
        let state = self.within(client::state(asked)).await?;
        Ok(State { told: true, ..state })
    }
}

/// So many weights are told in one line: two sides of a usual size. HAProxy takes no line longer than its buffer, 16 KiB.
const MOST_TOGETHER: usize = 48;

/// A switch is many weights: told one by one, requests would go to both sides for as long as that takes.
fn is_weight(command: &Command) -> bool {
    matches!(command, Command::Weight(..))
}

impl Proxies {
    async fn within<T>(&self, answer: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
        tokio::time::timeout(self.timeout, answer).await.unwrap_or(Err(Unanswered::Timeout(self.timeout)))
    }
}
