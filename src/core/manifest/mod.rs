//! Objects, their canonical form and digest, the order they are applied in, and what may be shown of them.

mod canonical;
mod object;

pub use canonical::canonical_digest;
pub use object::{Object, strings};
