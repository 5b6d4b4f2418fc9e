//! What commands print for people.

pub mod plan;
pub mod report;
