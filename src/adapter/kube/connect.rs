//! From a kubeconfig, or the pod's own service account, to a client.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::{KubeCluster, Settings};

/// A server that does not even take a connection is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client. Nothing has been asked of the API server yet.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file that was named cannot be used.
    #[error("cannot use the kubeconfig {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// No file was named; `KUBECONFIG` or `~/.kube/config` has nothing for us.
    #[error("cannot use the kubeconfig of the environment")]
    Environment(#[source] Box<KubeconfigError>),
    /// No file was named, there is none, and this is no pod either.
    #[error("there is no kubeconfig ({kubeconfig}), and this is no pod of a cluster ({in_cluster})")]
    Nothing {
        /// What was wrong with `KUBECONFIG` or `~/.kube/config`.
        kubeconfig: Box<KubeconfigError>,
        /// What was missing of a service account.
        in_cluster: Box<InClusterError>,
    },
    /// Certificates, keys or the credential plugin cannot be used.
    #[error("cannot make a client from the kubeconfig")]
    Client(#[source] Box<kube::Error>),
}

/// Makes a client with [`Settings::default`]. `kubeconfig`: the file; else `KUBECONFIG`, `~/.kube/config`, or the
/// pod's service account, in this order. `context`: another than the file's current one. Sends nothing yet.
///
/// # Errors
///
/// Says which file cannot be used, and why.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<KubeCluster, ConnectError> {
    connect_with(kubeconfig, context, Settings::default()).await
}

/// Makes a client as [`connect`] does, with other settings.
///
/// # Errors
///
/// Says which file cannot be used, and why.
pub async fn connect_with(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
    settings: Settings,
) -> Result<KubeCluster, ConnectError> {
    // Fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = load(kubeconfig, context).await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(settings.request_timeout);
    // The controller decides again instead of repeating what it decided.
    config.default_retry = false;
    let client = kube::Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    Ok(KubeCluster::new(client, settings))
}

async fn load(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<kube::Config, ConnectError> {
    let options = KubeConfigOptions { context: context.map(Into::into), ..KubeConfigOptions::default() };
    if let Some(path) = kubeconfig {
        let wrong = |source| ConnectError::File { path: path.to_owned(), source: Box::new(source) };
        let file = Kubeconfig::read_from(path).map_err(wrong)?;
        return kube::Config::from_custom_kubeconfig(file, &options).await.map_err(wrong);
    }
    let error = match kube::Config::from_kubeconfig(&options).await {
        Ok(config) => return Ok(config),
        Err(error) => Box::new(error),
    };
    // Who names a context or a file wants that one, not the cluster that this happens to run in.
    if context.is_some() || std::env::var_os("KUBECONFIG").is_some() {
        return Err(ConnectError::Environment(error));
    }
    kube::Config::incluster()
        .map_err(|in_cluster| ConnectError::Nothing { kubeconfig: error, in_cluster: Box::new(in_cluster) })
}
