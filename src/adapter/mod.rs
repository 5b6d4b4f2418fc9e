//! Does: one folder for each outside system, whose SDK is imported nowhere else.

pub mod git;
