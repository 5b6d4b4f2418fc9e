//! What must not happen, whatever else does: one test for each safety check of the engine, on the simulation.
//!
//! `tests/mutants` takes these checks out one by one; here is where each is caught.
#![allow(clippy::unwrap_used, clippy::panic)]

mod gates;
mod history;
mod ledger;
mod pods;
mod shop;
