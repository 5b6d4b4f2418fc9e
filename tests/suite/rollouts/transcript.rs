//! A rollout told line by line: what people do, what is recorded, and where pods are.

use std::{collections::BTreeMap, fmt::Write as _};

use locktender::core::{ledger::Record, rollout::report::Activity};
use regex::Regex;

use crate::{
    histories::release::{Place, Release, Seen, two_units},
    support::{cluster, git::Clone},
};

/// The transcript of one application's rollouts.
pub struct Transcript {
    pub release: Release,
    app: String,
    text: String,
    told: BTreeMap<u32, usize>,
}

impl Transcript {
    /// Starts with these files and nothing running, on two units of three nodes.
    pub async fn of(app: &str, files: &[(&str, &str)]) -> Self {
        Self::on(app, files, two_units(), 10).await
    }

    /// Starts on these units, with so many pods a node: in the simulation, or on the control plane that tests run
    /// under.
    pub async fn on(app: &str, files: &[(&str, &str)], units: Vec<(String, usize)>, capacity: u32) -> Self {
        let place = match cluster::real() {
            None => Place::Simulation,
            Some(_) => {
                // The tests' runtime begins with its time standing still.
                tokio::time::resume();
                Place::ControlPlane
            }
        };
        let release = Release::on(place, files, units, capacity).await;
        Self { release, app: app.to_owned(), text: String::new(), told: BTreeMap::new() }
    }

    /// A person does something.
    pub fn person(&mut self, what: &str, edit: impl Fn(&Clone)) {
        let _ = writeln!(self.text, "> {what}");
        self.release.commit(what, edit);
    }

    /// A person writes a decision.
    pub fn decide(&mut self, number: u32, decision: &str, text: &str) {
        let path = format!("rollouts/{}/{number:04}/{decision}.yaml", self.app);
        self.person(&format!("{decision} of {number:04}"), |clone| {
            clone.write(&path, text);
        });
    }

    /// Something else happens.
    pub fn note(&mut self, what: &str) {
        let _ = writeln!(self.text, "! {what}");
    }

    /// The controller dies and another one starts without a disk.
    pub async fn restart(&mut self) {
        self.note("the controller is killed, and another starts");
        self.release.lose_controller_and_disk().await;
        self.release.start().await;
    }

    /// Waits, and tells what was recorded meanwhile.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let seen = self.release.until(&self.app, what, holds).await;
        self.tell(&seen);
        seen
    }

    pub async fn waits(&mut self, number: u32, stage: &str) -> Seen {
        self.until(&format!("{number} waits at {stage}"), |seen| seen.waits(number, stage)).await
    }

    pub async fn stable(&mut self, number: u32) -> Seen {
        self.until(&format!("stable after {number}"), |seen| seen.is(number, Activity::Stable)).await
    }

    pub async fn held(&mut self, number: u32) -> Seen {
        self.until(&format!("held after {number}"), |seen| seen.is(number, Activity::Held)).await
    }

    /// Confirms whatever waits until the rollout is over.
    pub async fn complete(&mut self, number: u32) -> Seen {
        loop {
            let seen = self
                .until("it waits or is done", |seen| {
                    seen.is(number, Activity::Waiting) || seen.is(number, Activity::Stable)
                })
                .await;
            if seen.is(number, Activity::Stable) {
                return seen;
            }
            let stage = seen.report.as_ref().unwrap().stage.clone().unwrap();
            self.decide(number, &format!("confirm/{stage}"), "");
            self.release.until(&self.app, "it goes on", |seen| !seen.waits(number, stage.as_str())).await;
        }
    }

    /// Tells what is new, and how pods are spread.
    pub fn tell(&mut self, seen: &Seen) {
        for (number, records) in &seen.ledger {
            let told = self.told.entry(*number).or_default();
            for record in &records[*told..] {
                let _ = writeln!(self.text, "{}", line(*number, record));
            }
            *told = records.len();
        }
        let mut places: BTreeMap<(String, String), BTreeMap<String, usize>> = BTreeMap::new();
        for pod in &seen.pods {
            let labels = &pod["metadata"]["labels"];
            let text = |name: &str| labels[name].as_str().unwrap_or_default().to_owned();
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
            let tag = image.rsplit(':').next().unwrap().to_owned();
            let place = (text("locktender.dev/workload"), text("locktender.dev/unit"));
            *places.entry(place).or_default().entry(tag).or_default() += 1;
        }
        for ((workload, unit), tags) in places {
            let tags: Vec<String> = tags.into_iter().map(|(tag, count)| format!("{count} at {tag}")).collect();
            let place = [workload, unit].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            let _ = writeln!(self.text, "       {place}: {}", tags.join(", "));
        }
    }

    /// Begins the text anew: what was before is not what the test is about.
    pub fn forget(&mut self) {
        self.text.clear();
    }

    /// The text so far, without what differs from run to run.
    pub fn text(&self) -> String {
        let ids = Regex::new(r"\b[0-9a-f]{7,64}\b").unwrap();
        // Also those that happen to have no letter: one commit in thirty.
        let text = ids.replace_all(&self.text, "<id>");
        // Which pods go depends on the revision.
        Regex::new(r"<id>-[a-z0-9]{5}\b").unwrap().replace_all(&text, "<pod>").into_owned()
    }
}

fn line(number: u32, record: &Record) -> String {
    let stage = record.stage.as_ref().map(|stage| format!(" {stage}")).unwrap_or_default();
    format!("  {number:04} {:?}{stage}: {}", record.event, record.why)
}

/// Compares a transcript with the one that is kept beside the tests.
macro_rules! told {
    ($transcript:expr) => {
        told_text!($transcript.text())
    };
}

/// The same of any text.
macro_rules! told_text {
    ($text:expr) => {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "golden" }, {
            insta::assert_snapshot!($text)
        })
    };
}
