//! What lies outside of Git and the cluster: it answers what a test says, after as long as a test says.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use locktender::core::{
    ask::{Ask, Question, Said, Unanswered},
    clock::Clock,
};

/// How long an answer takes, and what it says.
pub type Reply = (Duration, Result<Said, Unanswered>);

type Model = dyn FnMut(&Question, Timestamp) -> Reply + Send;

/// Outlives the controller, as the outside does.
#[derive(Clone)]
pub struct Outside {
    clock: Arc<dyn Clock>,
    model: Arc<Mutex<Box<Model>>>,
    asked: Arc<Mutex<Vec<(Timestamp, Question)>>>,
}

impl Outside {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let nobody =
            |_: &Question, _: Timestamp| (Duration::ZERO, Err(Unanswered::Unreachable("nobody is there".to_owned())));
        Self { clock, model: Arc::new(Mutex::new(Box::new(nobody))), asked: Arc::default() }
    }

    /// Lets a model answer from here on, given the question and the time.
    pub fn answers(&self, model: impl FnMut(&Question, Timestamp) -> Reply + Send + 'static) {
        *self.model.lock().unwrap() = Box::new(model);
    }

    /// Returns everything that was asked so far, and when.
    pub fn asked(&self) -> Vec<(Timestamp, Question)> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Ask for Outside {
    async fn ask(&self, question: &Question) -> Result<Said, Unanswered> {
        let now = self.clock.now();
        self.asked.lock().unwrap().push((now, question.clone()));
        let (takes, result) = (self.model.lock().unwrap())(question, now);
        tokio::time::sleep(takes).await;
        result
    }
}
