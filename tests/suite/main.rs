//! Every test that needs more than one module, in one binary: linking is what costs.

mod sandbox_api;
mod sandbox_world;
