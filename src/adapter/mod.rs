//! Does. One folder for each outside system; its SDK is imported nowhere else. Adapters implement the traits that
//! `core` declares and make no decisions.

pub mod clock;
pub mod kube;
pub mod render;
