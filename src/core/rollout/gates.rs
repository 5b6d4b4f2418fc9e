//! Which decisions count: gates, promotes, aborts, retries; and answers to those that do not.

use super::{
    input::DecisionAtHead,
    plan::Stage,
    state::{Outcome, Phase, State},
};
use crate::core::{
    ledger::{DecisionFile, Draft, Event},
    names::StageName,
    policy::Decision as Verb,
};

/// The decisions at HEAD for one rollout.
pub struct Decisions<'a> {
    state: &'a State,
    at_head: &'a [DecisionAtHead],
}

impl<'a> Decisions<'a> {
    /// Looks at the decisions in a rollout's directory.
    pub fn new(state: &'a State, at_head: &'a [DecisionAtHead]) -> Self {
        Self { state, at_head }
    }

    fn find(&self, verb: &Verb) -> Option<&'a DecisionAtHead> {
        self.at_head.iter().find(|decision| decision.verb.as_ref() == Some(verb))
    }

    /// Returns the confirm that opens a stage's gate.
    pub fn confirm(&self, stage: &StageName) -> Option<&'a DecisionAtHead> {
        let decision = self.find(&Verb::Confirm(stage.clone()))?;
        let waiting = self.state.waiting.get(stage)?;
        // Its author saw the stage wait: it was not there when the latest waiting record was written.
        (!waiting.listed.contains(&decision.file) && self.mismatch(decision).is_none()).then_some(decision)
    }

    /// Returns the promote that counts.
    pub fn promote(&self) -> Option<&'a DecisionAtHead> {
        self.not_in_advance(&Verb::Promote)
    }

    /// Returns the abort that counts.
    pub fn abort(&self) -> Option<&'a DecisionAtHead> {
        self.not_in_advance(&Verb::Abort)
    }

    fn not_in_advance(&self, verb: &Verb) -> Option<&'a DecisionAtHead> {
        let decision = self.find(verb)?;
        (!self.state.old_decisions.contains(&decision.file) && self.mismatch(decision).is_none()).then_some(decision)
    }

    /// Returns the retry that counts: written after the rollout stopped or was aborted.
    pub fn retry(&self) -> Option<&'a DecisionAtHead> {
        let waits = matches!(self.state.phase, Phase::Stopped | Phase::Ended(Outcome::Aborted));
        let decision = self.find(&Verb::Retry).filter(|_| waits)?;
        let old = self.state.final_decisions.contains(&decision.file) || self.state.answered.contains(&decision.file);
        (!old && self.mismatch(decision).is_none()).then_some(decision)
    }

    /// Returns `pause.yaml`. It holds whatever it says and whenever it was written: holding is safe.
    pub fn pause(&self) -> Option<&'a DecisionAtHead> {
        self.find(&Verb::Pause)
    }

    /// Returns whether a stage's gate for a person is open.
    pub fn is_open(&self, stage: &Stage) -> bool {
        !stage.asks_for_confirm() || self.promote().is_some() || self.confirm(&stage.name).is_some()
    }

    /// Returns the frontier among the stages that have started: the first whose gate is closed, else the current one.
    pub fn frontier(&self) -> usize {
        let started = self.state.plan.stages.iter().take(self.state.stage);
        started.enumerate().find(|(_, stage)| !self.is_open(stage)).map_or(self.state.stage, |(index, _)| index)
    }

    /// Says why a decision's content does not fit this rollout.
    fn mismatch(&self, decision: &DecisionAtHead) -> Option<String> {
        let body = match &decision.body {
            Ok(body) => body,
            Err(problem) => return Some(format!("it cannot be read: {problem}")),
        };
        if body.plan_hash.as_ref().is_some_and(|hash| !hash.matches(&self.state.plan.hash)) {
            return Some(format!("it names another plan than this rollout's {}", self.state.plan.hash.short()));
        }
        let named = body.record.as_ref()?;
        let waiting = match &decision.verb {
            Some(Verb::Confirm(stage)) => self.state.waiting.get(stage).map(|waiting| waiting.record),
            _ => None,
        };
        let fits = match waiting {
            Some(record) => named.matches(&record),
            None => self.state.records.iter().any(|record| named.matches(&record.id)),
        };
        (!fits).then(|| "it names another waiting record than the latest".to_owned())
    }

    /// Says why a decision that nobody answered yet counts for nothing; `None` when it counts, or may yet.
    fn useless(&self, decision: &DecisionAtHead) -> Option<String> {
        let state = self.state;
        let Some(verb) = &decision.verb else {
            return Some("its name is no decision: confirm/<stage>, promote, abort, pause or retry".to_owned());
        };
        if matches!(state.phase, Phase::Ended(_) | Phase::Aborting(_)) {
            if *verb == Verb::Retry && self.retry().is_some() {
                return None;
            }
            let what = match state.phase {
                Phase::Aborting(_) => "the rollout is going back, and nothing changes that",
                _ => "the rollout is over",
            };
            return Some(what.to_owned());
        }
        if let Some(why) = self.mismatch(decision) {
            return Some(why);
        }
        match verb {
            Verb::Confirm(name) => {
                let Some(index) = state.index_of(name) else {
                    let known: Vec<&str> = state.plan.stages.iter().map(|stage| stage.name.as_str()).collect();
                    return Some(format!("the plan has no stage `{name}`; it has {}", known.join(", ")));
                };
                if !state.plan.stages[index].asks_for_confirm() {
                    return Some(format!("{name} asks for no confirm"));
                }
                match state.waiting.get(name) {
                    Some(waiting) if waiting.listed.contains(&decision.file) => {
                        Some("it was there before the stage waited: change it to confirm".to_owned())
                    }
                    Some(_) => None,
                    None => Some("the stage does not wait yet: it opens nothing, also later".to_owned()),
                }
            }
            Verb::Promote | Verb::Abort => state
                .old_decisions
                .contains(&decision.file)
                .then(|| "it was written before what it decides: change it to decide".to_owned()),
            Verb::Retry if self.retry().is_none() => Some("there is nothing to try again".to_owned()),
            Verb::Retry | Verb::Pause => None,
        }
    }

    /// Answers every decision that counts for nothing and was not answered yet.
    pub fn answers(&self) -> Vec<Draft> {
        let state = self.state;
        let over = matches!(state.phase, Phase::Ended(_) | Phase::Aborting(_));
        let mut answers: Vec<Draft> = self
            .at_head
            .iter()
            .filter(|decision| !state.answered.contains(&decision.file))
            .filter(|decision| !(over && state.final_decisions.contains(&decision.file)))
            .filter_map(|decision| Some(rejected(decision.file.clone(), self.useless(decision)?)))
            .collect();
        if over {
            for file in &state.final_decisions {
                let gone = DecisionFile { path: file.path.clone(), blob: None };
                let still = self.at_head.iter().any(|decision| decision.file.path == file.path);
                if !still && !state.answered.contains(&gone) {
                    answers.push(rejected(gone, "it was taken away after the rollout had ended".to_owned()));
                }
            }
        }
        answers
    }
}

/// Answers what came together with what ends a rollout, or makes it go back: it decides nothing any more, and nobody was told.
/// The record that ends it lists it, so nobody would be later. Returns the answers, and before which draft they belong.
pub fn answers_at_end(
    state: &State,
    at_head: &[DecisionAtHead],
    drafts: &[(u32, Draft)],
) -> Option<(usize, Vec<Draft>)> {
    let ends = |draft: &Draft| matches!(draft.event, Event::Superseded | Event::Completed | Event::Aborting);
    if !matches!(state.phase, Phase::Running | Phase::Stopped) {
        return None;
    }
    let number = state.plan.rollout.number;
    let index = drafts.iter().position(|(of, draft)| *of == number && ends(draft))?;
    let end = &drafts[index].1;
    // What was accepted or answered has a record that names it; a pause has when it began to hold.
    let recorded = state.records.iter().filter(|record| record.event == Event::Paused).map(|record| &record.evidence);
    let fresh = drafts.iter().filter(|(of, _)| *of == number).map(|(_, draft)| &draft.evidence);
    let named: Vec<&DecisionFile> = recorded.chain(fresh).filter_map(|evidence| evidence.decision.as_ref()).collect();
    let unanswered = at_head
        .iter()
        .map(|decision| &decision.file)
        .filter(|file| !state.answered.contains(*file) && !named.contains(file) && end.decisions.contains(file));
    let answers = unanswered.map(|file| rejected(file.clone(), format!("it decides nothing any more: {}", end.why)));
    Some((index, answers.collect()))
}

/// Answers, in the latest rollout's journal, what was put into the directory of a rollout that others came after: it
/// decides nothing. The records name it by number and path: `0003/confirm/beta.yaml`.
pub fn late_answers(rollouts: &[State], number: u32, files: &[DecisionFile]) -> Vec<Draft> {
    let Some(index) = rollouts.iter().position(|state| state.plan.rollout.number == number) else { return Vec::new() };
    let (of_it, later) = (&rollouts[index], &rollouts[index + 1..]);
    let known = |file: &&DecisionFile| of_it.answered.contains(*file) || of_it.final_decisions.contains(file);
    let named = files
        .iter()
        .filter(|file| !known(file))
        .map(|file| DecisionFile { path: format!("{number:04}/{}", file.path), blob: file.blob.clone() });
    let unanswered = named.filter(|file| !later.iter().any(|state| state.answered.contains(file)));
    unanswered.map(|file| rejected(file, "that rollout is over, and another came after it".to_owned())).collect()
}

fn rejected(file: DecisionFile, why: String) -> Draft {
    let path = file.path.clone();
    Draft::new(Event::DecisionRejected, None, format!("{path}: {why}")).with(|evidence| evidence.decision = Some(file))
}
