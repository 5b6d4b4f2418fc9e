//! The closing table: what was promised, beside what cluster, repository and load show.

use owo_colors::OwoColorize as _;

use super::setting::Setting;
use crate::{
    cli::{error::Error, output},
    core::ledger::{Event, Record},
};

/// One thing that was promised.
pub struct Row {
    /// What.
    pub what: String,
    /// What was seen of it.
    pub seen: Vec<String>,
    /// Whether that is as promised.
    pub well: bool,
}

impl Row {
    /// Makes a row of one cell.
    pub fn new(what: &str, seen: impl Into<String>, well: bool) -> Self {
        Self { what: what.to_owned(), seen: vec![seen.into()], well }
    }

    fn cells(&self) -> Vec<String> {
        let well = if self.well { "✓" } else { "✗" }.to_owned();
        [well, self.what.clone()].into_iter().chain(self.seen.iter().cloned()).collect()
    }
}

/// What came of a demo.
pub struct Verdict {
    /// What the columns of the steps are called.
    pub header: &'static [&'static str],
    /// One row for each step.
    pub steps: Vec<Row>,
    /// What holds of all of it.
    pub facts: Vec<Row>,
}

impl Verdict {
    /// Returns whether all of it is as promised.
    pub fn is_well(&self) -> bool {
        self.steps.iter().chain(&self.facts).all(|row| row.well)
    }

    /// Lays it out.
    pub fn table(&self) -> String {
        let header = ["", ""].iter().chain(self.header).map(|&name| name.to_owned()).collect();
        let rows: Vec<Vec<String>> = [header].into_iter().chain(self.steps.iter().map(Row::cells)).collect();
        let mut text = output::columns(&rows);
        text.push('\n');
        let rows: Vec<Vec<String>> = self.facts.iter().map(Row::cells).collect();
        text.push_str(&output::columns(&rows));
        text.lines().map(|line| format!("  {line}").trim_end().to_owned() + "\n").collect()
    }

    /// Returns the last line.
    pub fn closing(&self) -> String {
        if self.is_well() {
            format!("  {} all of it is as promised", "✓".green())
        } else {
            format!("  {} not everything is as promised", "✗".red())
        }
    }
}

/// The application's directory in Git is the tree that it was before.
///
/// # Errors
///
/// Git's words.
pub async fn repaired(setting: &Setting, app: &str, before: &str) -> Result<Row, Error> {
    let path = format!("apps/{app}");
    let well = setting.repositories.id(&format!("main:{path}")).await? == before;
    let by = setting.repositories.log(&path).await?.into_iter().next();
    let by = by.map(|commit| format!("{} {}", commit.id, commit.subject)).unwrap_or_default();
    Ok(Row::new("Git is as before the merge", by, well))
}

/// What `locktender audit verify` concluded.
pub fn verified(verify: Result<String, String>) -> Row {
    let well = verify.is_ok();
    Row::new("`locktender audit verify`", verify.unwrap_or_else(|broken| broken), well)
}

/// Reads the records of all rollouts of an application, in order.
///
/// # Errors
///
/// A chain is broken.
pub async fn rollouts(setting: &Setting, app: &str) -> Result<Vec<Vec<Record>>, Error> {
    let mut rollouts = Vec::new();
    for path in setting.repositories.paths(&format!("rollouts/{app}")).await? {
        if path.ends_with("/journal.yaml") {
            rollouts.push(setting.repositories.journal(&path).await?);
        }
    }
    Ok(rollouts)
}

/// Counts an event among records.
pub fn count(records: &[Record], event: Event) -> usize {
    records.iter().filter(|record| record.event == event).count()
}
