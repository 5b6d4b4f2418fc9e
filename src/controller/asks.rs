//! Carries questions outside and brings the answers: a few at a time, never in the way of the loop.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};

use super::{Controller, app::App, lanes};
use crate::core::{
    ask::{Answer, Ask, Asking, Question, Unanswered},
    clock::Clock,
    names::AppName,
};

/// How many questions are under way at once, of all applications and of one: a router that hangs keeps nobody else from
/// being asked.
const MOST: usize = 32;
const MOST_OF_ONE: usize = 8;

/// What came of a question.
pub(super) struct Asked {
    app: AppName,
    question: Question,
    answer: Answer,
}

impl Controller {
    /// Keeps what a decision wants to know, and forgets what it does not.
    pub(super) fn wants_to_know(&mut self, name: &AppName, questions: Vec<Asking>) {
        let Some(app) = self.apps.get_mut(name) else { return };
        app.answers.keep_only(&questions);
        match questions.is_empty() {
            true => self.curious.remove(name),
            false => self.curious.insert(name.clone()),
        };
        app.questions = questions;
    }

    /// Asks what is due, the longest due first.
    pub(super) fn ask(&mut self) {
        let now = self.now();
        let mut due: Vec<(Timestamp, AppName, Question)> = self
            .with_questions()
            .flat_map(|(name, app)| {
                let open = app.questions.iter().filter(|asking| !self.is_asked(name, &asking.question));
                let due = open.filter_map(|asking| Some((asking.open_since(&app.answers)?, &asking.question)));
                due.map(|(due, question)| (due, name.clone(), question.clone()))
            })
            .filter(|(due, ..)| *due <= now)
            .collect();
        due.sort();
        for (_, name, question) in due {
            if self.has_room(&name) {
                self.under_way.insert((name.clone(), question.clone()));
                self.asks.push(one(name, question, &self.ports.ask, &self.ports.clock));
            }
        }
    }

    /// Returns the applications that want to know something.
    fn with_questions(&self) -> impl Iterator<Item = (&AppName, &App)> {
        self.curious.iter().filter_map(|name| self.apps.get_key_value(name))
    }

    fn is_asked(&self, name: &AppName, question: &Question) -> bool {
        self.under_way.contains(&(name.clone(), question.clone()))
    }

    fn has_room(&self, name: &AppName) -> bool {
        let of_it = self.under_way.iter().filter(|(app, _)| app == name).count();
        self.under_way.len() < MOST && of_it < MOST_OF_ONE
    }

    /// Returns when the next question is to be asked. Where there is no room, the answer that makes some wakes the loop.
    pub(super) fn next_question(&self) -> Option<Timestamp> {
        let with_room = self.with_questions().filter(|(name, _)| self.has_room(name));
        let open = with_room.flat_map(|(name, app)| {
            let open = app.questions.iter().filter(|asking| !self.is_asked(name, &asking.question));
            open.filter_map(|asking| asking.open_since(&app.answers))
        });
        open.min()
    }

    /// Takes an answer: its application is decided again.
    pub(super) fn answered(&mut self, asked: Asked) {
        let Asked { app: name, question, answer } = asked;
        self.under_way.remove(&(name.clone(), question.clone()));
        let Some(app) = self.apps.get_mut(&name) else { return };
        app.answers.add(question, answer, &app.questions);
        self.agenda.touch(&name);
    }
}

/// Asks one question. Its time limit holds whatever the adapter does.
fn one(app: AppName, question: Question, ask: &Arc<dyn Ask>, clock: &Arc<dyn Clock>) -> BoxFuture<'static, Asked> {
    let (ask, clock) = (ask.clone(), clock.clone());
    async move {
        let at = clock.now();
        let timeout = question.timeout();
        let limit = at.checked_add(SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX));
        let result = tokio::select! {
            biased;
            result = ask.ask(&question) => result,
            () = lanes::until(&clock, limit.ok()) => Err(Unanswered::Timeout(timeout)),
        };
        Asked { app, question, answer: Answer { at, result } }
    }
    .boxed()
}
