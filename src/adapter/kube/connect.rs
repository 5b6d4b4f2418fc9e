//! From a kubeconfig, or the pod's own service account, to a client.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::{KubeCluster, Settings, renew::Clients};

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

/// Makes a client as [`connect`] does, with other settings. Credentials that are rotated in their files are read again.
///
/// # Errors
///
/// Says which file cannot be used, and why.
pub async fn connect_with(
    kubeconfig: Option<&Path>,
    context: Option<&str>,
    settings: Settings,
) -> Result<KubeCluster, ConnectError> {
    let origin = Origin {
        kubeconfig: kubeconfig.map(Path::to_owned),
        context: context.map(str::to_owned),
        write_timeout: settings.request_timeout,
    };
    Ok(KubeCluster::over(Clients::of(origin).await?, settings))
}

/// Where clients come from.
pub(super) struct Origin {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    write_timeout: Duration,
}

/// What a pod's account is given.
const ACCOUNT: [&str; 2] =
    ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"];

impl Origin {
    /// Makes a client of what the files say now.
    pub(super) async fn client(&self) -> Result<kube::Client, ConnectError> {
        // Fails when a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = self.load().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.write_timeout = Some(self.write_timeout);
        // The controller decides again instead of repeating what it decided.
        config.default_retry = false;
        kube::Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))
    }

    /// Lists every file that the client is made of: the kubeconfig's, those that it names, those of the pod.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = match (&self.kubeconfig, std::env::var_os("KUBECONFIG")) {
            (Some(path), _) => vec![path.clone()],
            (None, Some(paths)) => std::env::split_paths(&paths).collect(),
            (None, None) => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
        };
        let read = |path: &PathBuf| Kubeconfig::read_from(path).ok();
        let named: Vec<PathBuf> = files.iter().filter_map(read).flat_map(|file| named_by(&file)).collect();
        files.extend(named);
        files.extend(ACCOUNT.map(PathBuf::from));
        files
    }

    async fn load(&self) -> Result<kube::Config, ConnectError> {
        load(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }
}

/// Returns the files that a kubeconfig names.
fn named_by(file: &Kubeconfig) -> Vec<PathBuf> {
    let authorities = file.clusters.iter().filter_map(|one| one.cluster.as_ref()?.certificate_authority.clone());
    let users = file.auth_infos.iter().filter_map(|one| one.auth_info.as_ref());
    let theirs = users.flat_map(|user| {
        [user.client_certificate.clone(), user.client_key.clone(), user.token_file.clone()].into_iter().flatten()
    });
    authorities.chain(theirs).map(PathBuf::from).collect()
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
