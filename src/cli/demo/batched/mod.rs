//! The batched demo: an install in batches, a release that is confirmed, stepped back from and aborted.

mod story;
mod verdict;

pub use story::{APP, Story};
pub use verdict::verdict;

/// How many headings it has.
pub const STEPS: usize = 7;
/// The release repository as it is when the demo begins.
pub const FILES: &[(&str, &str)] = &[
    ("policies/two-data-centers.yaml", include_str!("release/policies/two-data-centers.yaml")),
    ("apps/checkout/app.yaml", include_str!("release/apps/checkout/app.yaml")),
    ("apps/checkout/deployment.yaml", include_str!("release/apps/checkout/deployment.yaml")),
    ("apps/checkout/service.yaml", include_str!("release/apps/checkout/service.yaml")),
];
/// The subject of the first commit.
pub const FIRST: &str = "checkout 1.9";
