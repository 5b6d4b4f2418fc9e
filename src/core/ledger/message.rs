//! The commit that carries records: a subject, a body a person can read, and trailers.

use super::record::{Event, Record};
use crate::core::{
    analysis::Verdict,
    names::{Digest, RolloutId},
};

/// What a commit says of one application.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The rollout that it ends with.
    pub rollout: RolloutId,
    /// The digest that it goes to.
    pub target: Digest,
    /// In a few words.
    pub subject: String,
    /// The records that it carries.
    pub records: Vec<Record>,
}

impl Message {
    fn title(&self) -> String {
        format!("{} {:04}: {}", self.rollout.app, self.rollout.number, self.subject)
    }
}

/// Writes the message of a commit that carries records of one application, or of many.
///
/// The trailers name the last record; the body lists all, of many applications a line each.
pub fn message(of: &[Message]) -> String {
    let mut text = match of {
        [one] => {
            let stage = |record: &Record| record.stage.as_ref().map(|stage| format!(" {stage}")).unwrap_or_default();
            let lines =
                one.records.iter().map(|record| format!("{:?}{}: {}\n", record.event, stage(record), record.why));
            format!("{}\n\n{}", one.title(), lines.collect::<String>())
        }
        many => {
            let lines: String = many.iter().map(|one| format!("{}\n", one.title())).collect();
            format!("records of {} applications\n\n{lines}", many.len())
        }
    };
    let last = of.iter().rev().find_map(|one| Some((one, one.records.last()?)));
    let Some((one, last)) = last else { return text };
    text.push_str(&format!("\nLocktender-Rollout: {}\nLocktender-Event: {:?}\n", one.rollout, last.event));
    if let Some(stage) = &last.stage {
        text.push_str(&format!("Locktender-Stage: {stage}\n"));
    }
    text.push_str(&format!("Locktender-Digest: {}\n", one.target));
    text.push_str(&format!("Locktender-Source: {}\n", last.head));
    text.push_str(&format!("Locktender-Chain: {} {}\n", last.previous, last.id));
    text
}

/// Says in a few words what records that were decided together say: `beta confirmed, batch-1 started`.
pub fn subject(records: &[Record]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for record in records {
        let stage = record.stage.as_ref().map_or("", |stage| stage.as_str());
        parts.push(match record.event {
            Event::RolloutOpened => format!("opened, {}", record.why),
            Event::StageStarted => format!("{stage} started"),
            Event::StageWaiting if record.evidence.gates.is_empty() => format!("{stage} waiting for confirm"),
            Event::StageWaiting => format!("{stage} waiting for {}", record.evidence.gates.join(" and ")),
            Event::ConfirmAccepted => format!("{stage} confirmed"),
            Event::DecisionRejected => {
                let path = record.evidence.decision.as_ref().map_or("a decision", |file| file.path.as_str());
                format!("{path} counts for nothing")
            }
            Event::StageReverted => format!("back to {stage}"),
            Event::AnalysisRun => record.evidence.analysis.as_ref().map_or_else(String::new, |run| match run.verdict {
                Verdict::Pass => format!("{} passed", run.metric),
                Verdict::Fail => format!("{} failed", run.metric),
                Verdict::Inconclusive => format!("{} is inconclusive", run.metric),
                Verdict::Error => format!("{} cannot be measured", run.metric),
            }),
            Event::Rescheduled => "rescheduled".to_owned(),
            Event::QuotaChanged => "quotas changed".to_owned(),
            Event::Paused => "paused".to_owned(),
            Event::Resumed => "resumed".to_owned(),
            Event::Stopped => "stopped".to_owned(),
            Event::Retried => "tries again".to_owned(),
            Event::Superseded => {
                let by = record.evidence.by.map(|number| format!(" by {number:04}")).unwrap_or_default();
                format!("superseded{by}")
            }
            Event::Aborting => "aborting".to_owned(),
            Event::Aborted => "aborted".to_owned(),
            Event::Reverted => "Git repaired".to_owned(),
            Event::Promoted => "promoted".to_owned(),
            Event::Completed => format!("completed, {}", record.why),
            Event::DriftCorrected => "drift corrected".to_owned(),
            Event::LedgerRestored => "ledger restored".to_owned(),
            Event::Held => "held".to_owned(),
            Event::Applied => "applied".to_owned(),
        });
    }
    parts.join(", ")
}
