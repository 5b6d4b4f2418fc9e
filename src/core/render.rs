//! Turning an application's files into objects, as the controller needs it: what the `render` adapter must offer.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use super::problem::Problem;

/// Files by their path from the repository's root.
pub type Files = BTreeMap<String, Bytes>;

/// Why a Kustomize directory did not render.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A file that is read is not among those given: read it too and call again.
    #[error("`{0}` is read but was not given")]
    Missing(String),
    /// A kustomization file names what must not be followed, or cannot be read: says where.
    #[error("{0}")]
    Wrong(Problem),
    /// The program refused: what it said, with paths from the repository's root.
    #[error("{0}")]
    Refused(String),
    /// The program did not end in time.
    #[error("rendering took longer than {0:?}")]
    TooSlow(Duration),
    /// There is no program to render with: says which are looked for.
    #[error("{0}")]
    NoProgram(String),
}

/// Renders Kustomize directories; plain YAML needs no renderer.
#[async_trait]
pub trait Renderer: Send + Sync {
    /// Renders the Kustomize directory `path`, with `files` laid out in a private directory, to a stream of YAML
    /// documents. Remote bases and what lies outside the repository are refused.
    async fn kustomize(&self, path: &str, files: &Files) -> Result<Vec<u8>, RenderError>;

    /// Names the renderer and its version, `kustomize/v5.5.0`: part of a plan's inputs.
    async fn version(&self) -> Result<String, RenderError>;
}
