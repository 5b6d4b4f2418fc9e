//! Asks the outside: each kind of question in the way of whom it is for.

mod http;
mod metrics;

use std::{future::Future, time::Duration};

use async_trait::async_trait;

use self::http::Http;
use super::traffic::haproxy;
use crate::core::ask::{Ask, Question, Said, Unanswered};

/// Asks over the network of this process.
#[derive(Default)]
pub struct Outside {
    http: Http,
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
