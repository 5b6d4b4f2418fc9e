//! Objects, their canonical form and digest, the order they are applied in, and what may be shown of them.

mod object;

pub use object::{Object, strings};
