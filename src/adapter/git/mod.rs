//! The release repository over Git.
pub mod memory;
pub mod objects;
pub mod url;
