//! The commit that carries records: a subject, a body a person can read, and trailers.

use super::record::{Event, Record};
use crate::core::names::{Digest, RolloutId};

/// Writes the message of a commit that carries `records` of `rollout`; `target` is the digest it goes to.
///
/// The trailers name the last record; the body lists all.
pub fn message(rollout: &RolloutId, target: Option<&Digest>, subject: &str, records: &[Record]) -> String {
    let mut text = format!("{} {:04}: {subject}\n\n", rollout.app, rollout.number);
    for record in records {
        let stage = record.stage.as_ref().map(|stage| format!(" {stage}")).unwrap_or_default();
        text.push_str(&format!("{:?}{stage}: {}\n", record.event, record.why));
    }
    let Some(last) = records.last() else { return text };
    text.push_str(&format!("\nLocktender-Rollout: {rollout}\nLocktender-Event: {:?}\n", last.event));
    if let Some(stage) = &last.stage {
        text.push_str(&format!("Locktender-Stage: {stage}\n"));
    }
    if let Some(target) = target {
        text.push_str(&format!("Locktender-Digest: {target}\n"));
    }
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
            Event::AnalysisRun => format!("{stage} analysed"),
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
