//! What people write, and what is made of it.
#![allow(clippy::unwrap_used)]

mod anything;
mod differences;
mod files;
mod health;
mod manifests;
mod ready;
mod refused;
mod round_trip;
mod schema;
