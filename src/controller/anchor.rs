//! The anchor: a ConfigMap beside the application that names its last pushed record, and keeps what could not be
//! pushed yet, with the plan and both sides: enough to go back without Git and without a disk.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::journals::{AppLedger, Journal};
use crate::core::{
    ledger::{DecisionFile, Record},
    manifest::Object,
    names::{AppName, BlobId, Digest, Revision, RolloutId},
    policy::{Decision, DecisionBody},
    rollout::{
        action::Action,
        input::DecisionAtHead,
        labels,
        plan::Plan,
        render::Render,
        state::{Outcome, Phase},
    },
    shared::Shared,
};

/// ConfigMaps may be 1 MiB; what is over this is left out.
const LARGEST: usize = 900 << 10;
/// The largest content that is unpacked: more is not ours.
const LARGEST_UNPACKED: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Content {
    rollouts: Vec<Kept>,
    renders: Vec<Render>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    plan: Shared<Plan>,
    records: Vec<Record>,
    pushed: usize,
}

/// What an anchor says.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// The application.
    pub app: AppName,
    /// The namespace that it lies in.
    pub namespace: String,
    /// The last record that was pushed.
    pub pushed: Option<Digest>,
    /// The rollouts since the last completed one.
    pub rollouts: BTreeMap<u32, Journal>,
    /// What they need, rendered.
    pub renders: BTreeMap<Revision, Render>,
}

/// The last record that an anchor names as pushed, and the last that it keeps.
pub type Named = (Option<Digest>, Option<Digest>);

impl Anchor {
    fn named(&self) -> Named {
        let last = self.rollouts.values().rev().find_map(|journal| journal.records.last()).map(|record| record.id);
        (self.pushed, last)
    }
}

/// What an anchor names, read once for each of its versions: unpacking it costs more than deciding for an application at
/// rest.
#[derive(Debug, Default)]
pub struct Seen(Option<(String, Option<Named>)>);

impl Seen {
    /// Returns what the object names; `None` where it is no anchor, or is not whole.
    pub fn named(&mut self, live: &Object) -> Option<Named> {
        let version = live.resource_version();
        match &self.0 {
            Some((seen, named)) if seen == version && !version.is_empty() => *named,
            _ => {
                let named = read(live).map(|anchor| anchor.named());
                self.0 = Some((version.to_owned(), named));
                named
            }
        }
    }
}

/// The key of an anchor's data by which a person aborts while Git is away: the rollout's id, and why.
pub const ABORT: &str = labels::ANCHOR_ABORT;

/// The key of an anchor's data that says which rights the controller lacks for the application: whoever looks has others,
/// and could not tell.
const LACKS: &str = "lacks";

/// Returns which rights an anchor says the controller lacks, a line each.
pub fn lacks(object: &Object) -> Option<&str> {
    object.at(&["data", LACKS])?.as_str()
}

/// Writes what a person's abort says: no commit has its author.
pub fn abort_of(rollout: &RolloutId, author: &str, message: Option<&str>) -> String {
    let message = message.map(|message| format!(": {message}")).unwrap_or_default();
    format!("{rollout} {author}{message}")
}

/// Reads a person's abort of one rollout, as the decision that `abort.yaml` would be.
pub fn abort(object: &Object, rollout: &RolloutId) -> Option<DecisionAtHead> {
    let text = object.at(&["data", ABORT])?.as_str()?;
    let (named, message) = text.split_once(' ').map_or((text, None), |(id, message)| (id, Some(message.to_owned())));
    if RolloutId::parse(named)? != *rollout {
        return None;
    }
    let blob = BlobId::new(format!("anchor:{}", Digest::of(text.as_bytes()).short()));
    Some(DecisionAtHead {
        verb: Some(Decision::Abort),
        file: DecisionFile { path: Decision::Abort.path(), blob: Some(blob) },
        body: Ok(DecisionBody { message, ..DecisionBody::default() }),
    })
}

/// Returns an anchor's name.
pub fn name(app: &AppName) -> String {
    format!("locktender-{app}")
}

/// Reads an anchor; `None` where the object is none, or is not whole.
pub fn read(object: &Object) -> Option<Anchor> {
    let app = AppName::new(object.label(labels::ANCHOR)?);
    let pushed = object.at(&["data", "record"]).and_then(|text| text.as_str());
    let pushed = pushed.and_then(|text| Digest::parse(text).ok());
    let packed = STANDARD.decode(object.at(&["binaryData", "state"])?.as_str()?).ok()?;
    let mut unpacked = Vec::new();
    GzDecoder::new(packed.as_slice()).take(LARGEST_UNPACKED).read_to_end(&mut unpacked).ok()?;
    let content: Content = serde_json::from_slice(&unpacked).ok()?;
    let rollouts = content
        .rollouts
        .into_iter()
        .map(|kept| {
            let journal = Journal::new(kept.plan, kept.records, kept.pushed);
            (journal.plan.rollout.number, journal)
        })
        .collect();
    let renders = content.renders.into_iter().map(|render| (render.revision.clone(), render)).collect();
    Some(Anchor { app, namespace: object.namespace().to_owned(), pushed, rollouts, renders })
}

/// Builds the write that brings an anchor to what is known now.
pub fn write<'a>(
    app: &AppName,
    namespace: &str,
    ledger: &AppLedger,
    renders: impl Iterator<Item = &'a Render> + Clone,
    lacks: Option<&str>,
    live: Option<&Object>,
) -> Action {
    let since = ledger.states.iter().rposition(|state| state.phase == Phase::Ended(Outcome::Completed)).unwrap_or(0);
    let kept = |journal: &Journal| Kept {
        plan: journal.plan.clone(),
        records: journal.records.clone(),
        pushed: journal.pushed,
    };
    let rollouts: Vec<Kept> = ledger.rollouts.values().skip(since).map(kept).collect();
    let whole = Content { rollouts, renders: renders.cloned().collect() };
    let packed = match pack(&whole) {
        packed if packed.len() <= LARGEST => packed,
        // Without the sides going back waits for Git; without the records it would forget.
        _ => pack(&Content { renders: Vec::new(), ..whole }),
    };
    let mut object = Object(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(app),
            "namespace": namespace,
            "labels": { labels::ANCHOR: app, "app.kubernetes.io/managed-by": "locktender" },
        },
        "binaryData": { "state": STANDARD.encode(packed) },
    }));
    if let Some(pushed) = ledger.pushed_tip() {
        object.set(&["data", "record"], json!(pushed));
    }
    if let Some(lacks) = lacks {
        object.set(&["data", LACKS], json!(lacks));
    }
    let last = ledger.states.last().map(|state| state.plan.rollout.to_string()).unwrap_or_default();
    object.set(&["data", "rollout"], json!(last));
    Action::apply(object, live, true, format!("the anchor of {app} names the last record"))
}

fn pack(content: &Content) -> Vec<u8> {
    let plain = serde_json::to_vec(content).unwrap_or_default();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let _ = packed.write_all(&plain);
    packed.finish().unwrap_or_default()
}
