//! A rollout's journal: YAML documents, hash-chained; and the longest chain among the copies that were found.

use serde::Deserialize as _;

use super::record::Record;
use crate::core::names::Digest;

/// Why a journal's text cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// It is not what Locktender writes.
    #[error("document {document} cannot be read: {reason}")]
    Unreadable {
        /// Counts from 1.
        document: usize,
        /// What the reader said.
        reason: String,
    },
    /// A record's id is not the hash of its content.
    #[error("record {seq} was changed: its content does not hash to its id")]
    Changed {
        /// The record's number.
        seq: u32,
    },
    /// A record does not follow the one before.
    #[error("record {seq} does not follow the one before it")]
    Broken {
        /// The record's number.
        seq: u32,
    },
}

/// Writes records as a stream of YAML documents.
pub fn write(records: &[Record]) -> String {
    records.iter().fold(String::new(), |mut text, record| {
        write_one(record, &mut text);
        text
    })
}

/// Writes one more record after the others.
pub fn write_one(record: &Record, text: &mut String) {
    text.push_str("---\n");
    text.push_str(&serde_yaml::to_string(record).unwrap_or_default());
}

/// Reads a journal and checks its chain: ids, links and numbers. What precedes its first record is not checked here.
///
/// # Errors
///
/// Names the first record that cannot be believed.
pub fn read(text: &str) -> Result<Vec<Record>, JournalError> {
    read_after(None, text)
}

/// Reads the records that follow one that was read before, and checks that they continue its chain.
///
/// # Errors
///
/// As [`read`].
pub fn read_after(last: Option<&Record>, text: &str) -> Result<Vec<Record>, JournalError> {
    let mut records: Vec<Record> = Vec::new();
    let before = last.map_or(0, |last| last.seq as usize);
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let record = Record::deserialize(document)
            .map_err(|error| JournalError::Unreadable { document: before + index + 1, reason: error.to_string() })?;
        if record.computed_id() != record.id {
            return Err(JournalError::Changed { seq: record.seq });
        }
        let follows = match records.last().or(last) {
            Some(last) => record.previous == last.id && record.seq == last.seq + 1,
            None => record.seq == 1,
        };
        if !follows {
            return Err(JournalError::Broken { seq: record.seq });
        }
        records.push(record);
    }
    Ok(records)
}

/// Returns whether `longer` begins with all of `shorter`.
pub fn continues(longer: &[Record], shorter: &[Record]) -> bool {
    shorter.len() <= longer.len() && longer.iter().zip(shorter).all(|(a, b)| a.id == b.id)
}

/// Returns the id of the last record, or `otherwise`.
pub fn tip(records: &[Record], otherwise: Digest) -> Digest {
    records.last().map_or(otherwise, |record| record.id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::{
        ledger::{Draft, Event},
        names::Revision,
    };

    fn two() -> Vec<Record> {
        let time = "2026-11-21T12:00:00.123456Z".parse().unwrap();
        let start = Digest::of(b"plan");
        let head = Revision::new("a".repeat(40));
        let first = Record::chain(Draft::new(Event::RolloutOpened, None, "no"), 1, time, head.clone(), start);
        let draft = Draft::new(Event::StageStarted, Some(&"beta".into()), "yes: \"quoted\" & 0644");
        let second = Record::chain(draft, 2, time, head, first.id);
        vec![first, second]
    }

    #[test]
    fn what_is_written_is_read_back() {
        let records = two();
        assert_eq!(read(&write(&records)).unwrap(), records);
    }

    #[test]
    fn a_changed_record_is_named() {
        let text = write(&two()).replace("0644", "0645");
        assert_eq!(read(&text), Err(JournalError::Changed { seq: 2 }));
    }

    #[test]
    fn a_missing_record_is_named() {
        let records = two();
        assert_eq!(read(&write(&records[1..])), Err(JournalError::Broken { seq: 2 }));
    }

    #[test]
    fn what_was_appended_is_read_alone() {
        let records = two();
        let appended = write(&records[1..]);
        assert_eq!(read_after(Some(&records[0]), &appended).unwrap(), records[1..]);
        assert_eq!(read_after(Some(&records[1]), &appended), Err(JournalError::Broken { seq: 2 }));
    }

    #[test]
    fn a_chain_continues_its_own_beginning_only() {
        let records = two();
        assert!(continues(&records, &records[..1]));
        assert!(!continues(&records[..1], &records));
    }
}
