//! Plans, state folded from the journal, the frontier, and `decide`.

pub mod action;
mod analyse;
mod back;
pub mod beforehand;
pub mod build;
mod decide;
mod forward;
pub mod gates;
mod handover;
mod health;
pub mod input;
pub mod jobs;
pub mod labels;
mod objects;
pub mod observe;
pub mod plan;
pub mod quota;
pub mod render;
pub mod report;
mod reschedule;
mod rest;
mod services;
mod sides;
mod stages;
pub mod state;
pub mod steer;
pub mod strategy;
mod stray;
pub mod turn;
pub mod view;

pub use decide::{decide, version, versions};
pub use gates::late_answers;
pub use handover::{asks_for_nodes, keep_labels};
pub use objects::labelled;
pub use sides::{StableAt, inherited, needed, released_as, stable_at, target_at};
