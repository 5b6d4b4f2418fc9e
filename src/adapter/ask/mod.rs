//! Asks the outside: each kind of question in the way of whom it is for.

mod credentials;
mod http;
mod metrics;

use std::{future::Future, path::PathBuf, time::Duration};

use async_trait::async_trait;

use self::http::Http;
use super::traffic::haproxy;
use crate::core::ask::{Ask, Question, Said, Unanswered};

/// Asks over the network of this process.
#[derive(Default)]
pub struct Outside {
    http: Http,
}

impl Outside {
    /// Shows those who measure what is in this directory, each what is for its address and read again at every question:
    /// one directory each, with the file `url`, and `bearerToken`, or `username` and `password`, `ca.crt`, `tls.crt` and
    /// `tls.key`. Pods and proxies are shown nothing.
    pub fn with_credentials(directory: Option<PathBuf>) -> Self {
        Self { http: Http::with_credentials(directory) }
    }
}

#[async_trait]
impl Ask for Outside {
    async fn ask(&self, question: &Question) -> Result<Said, Unanswered> {
        let answer = async {
            match question {
                Question::Probe(probe) => self.http.probe(&probe.url).await,
                Question::Metric(metric) => self.http.metric(&metric.query).await,
                Question::Proxy(proxy) => haproxy::state(&proxy.asked).await.map(Said::Servers),
            }
        };
        within(question.timeout(), answer).await
    }
}

async fn within(limit: Duration, answer: impl Future<Output = Result<Said, Unanswered>>) -> Result<Said, Unanswered> {
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Unanswered::Timeout(limit)))
}
