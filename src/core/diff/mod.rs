//! Desired against live: what sending an object by server-side apply would change, and how a person sees it.
//!
//! The comparison is in memory and of owned fields only: an unchanged object costs the API server nothing.

mod owned;
mod quantity;
mod show;

pub use owned::{FieldChange, is_applied_by, owned_differs};
pub use show::text_diff;
