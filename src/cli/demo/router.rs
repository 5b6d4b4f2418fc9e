//! By what way requests come to the pods: by the Service itself, by the sandbox's gateway, or by a HAProxy of the demo's own.

use std::{env, fmt, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use crate::{
    adapter::traffic::haproxy::{place, state},
    cli::error::Error,
    core::traffic::haproxy::{Asked, Config, Runtime},
};

/// The port at which the gateway takes requests.
const GATEWAY_PORT: u16 = 8000;
/// How long HAProxy may take to start.
const STARTS: Duration = Duration::from_secs(30);

/// Which router stands before the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// None: callers go to the Service's pods
    Service,
    /// A Gateway API route, and the sandbox's gateway
    Gateway,
    /// A HAProxy of the demo's own, told over its Runtime API
    Haproxy,
}

/// A router that runs.
pub enum Router {
    /// Callers go to the Service's pods.
    Service,
    /// The Gateway `public`, an object of the release repository.
    Gateway,
    /// A HAProxy.
    Haproxy(Box<Haproxy>),
}

/// A HAProxy that ends with the demo.
pub struct Haproxy {
    config: Config,
    /// Killed when it is dropped.
    _process: Child,
    _directory: TempDir,
}

impl fmt::Display for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "the Service",
            Self::Gateway => "the sandbox's gateway",
            Self::Haproxy(_) => "HAProxy",
        })
    }
}

/// Where to send requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the pods that the Service names.
    Pods,
    /// To the gateway, once its status says where that is.
    Gateway,
    /// There.
    Address(SocketAddr),
}

/// Returns whether there is a HAProxy on this machine.
pub fn has_haproxy() -> bool {
    program().is_some()
}

/// Finds HAProxy, also where Debian puts it and people do not look.
fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let beside = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(beside).map(|directory| directory.join("haproxy")).find(|file| file.is_file())
}

impl Router {
    /// Starts what there is to start; `backend` is what HAProxy's is called.
    ///
    /// # Errors
    ///
    /// HAProxy is not there, or does not start.
    pub async fn start(kind: Kind, backend: &str) -> Result<Self, Error> {
        match kind {
            Kind::Service => Ok(Self::Service),
            Kind::Gateway => Ok(Self::Gateway),
            Kind::Haproxy => Ok(Self::Haproxy(Box::new(Haproxy::start(backend).await?))),
        }
    }

    /// Returns how requests are to be sent.
    pub fn way(&self) -> Way {
        match self {
            Self::Service => Way::Pods,
            Self::Gateway => Way::Gateway,
            Self::Haproxy(haproxy) => Way::Address(haproxy.config.bind),
        }
    }

    /// Writes the router into the policy, and adds the objects that it needs to the application.
    pub fn files(&self, app: &str, files: &[(&str, &str)]) -> Vec<(String, String)> {
        let traffic = match self {
            Self::Service => None,
            Self::Gateway => Some(format!("gatewayApi: {{httpRoute: {app}}}")),
            Self::Haproxy(haproxy) => {
                let Asked { runtime, backend } = &haproxy.config.asked;
                Some(format!("haproxy: {{backend: {backend}, runtime: \"{runtime}\"}}"))
            }
        };
        let with = |text: &str| match &traffic {
            None => text.to_owned(),
            Some(traffic) => ["    canary:\n", "    blueGreen:\n"].iter().fold(text.to_owned(), |text, strategy| {
                text.replace(strategy, &format!("{strategy}      traffic: {{{traffic}}}\n"))
            }),
        };
        let mut all: Vec<(String, String)> =
            files.iter().map(|(path, text)| ((*path).to_owned(), with(text))).collect();
        if matches!(self, Self::Gateway) {
            all.push((format!("apps/{app}/gateway.yaml"), gateway()));
            all.push((format!("apps/{app}/route.yaml"), route(app)));
        }
        all
    }
}

fn gateway() -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: public}}
spec:
  gatewayClassName: locktender-sandbox
  listeners:
  - {{name: http, port: {GATEWAY_PORT}, protocol: HTTP}}
"
    )
}

fn route(app: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {app}}}
spec:
  parentRefs:
  - name: public
  rules:
  - backendRefs:
    - {{name: {app}, port: 80}}
"
    )
}

impl Haproxy {
    async fn start(backend: &str) -> Result<Self, Error> {
        let missing = || Error::failed("there is no `haproxy` on this machine").hint("`--router service` needs none");
        let program = program().ok_or_else(missing)?;
        let wrong = |error: std::io::Error| Error::because("cannot start HAProxy", &error);
        let directory = tempfile::Builder::new().prefix("locktender-demo-").tempdir().map_err(wrong)?;
        // Free now, and nobody is told of it but HAProxy.
        let bind = TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).map_err(wrong)?;
        let runtime = Runtime::Unix(directory.path().join("runtime.sock").display().to_string());
        let asked = Asked { runtime, backend: backend.to_owned() };
        let config = Config { bind, asked, members: Vec::new() };
        let text = config.text().map_err(|error| Error::because("cannot start HAProxy", &error))?;
        let file = directory.path().join("haproxy.cfg");
        place(&program, &file, &text).await.map_err(|error| Error::because("cannot start HAProxy", &error))?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().map_err(wrong)?;
        let answers = async {
            while state(&config.asked).await.is_err() {
                if let Ok(Some(status)) = process.try_wait() {
                    return Err(Error::failed(format!("HAProxy has ended by itself: {status}")));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let late = |_| Error::failed(format!("HAProxy does not answer after {} s", STARTS.as_secs()));
        tokio::time::timeout(STARTS, answers).await.map_err(late)??;
        Ok(Self { config, _process: process, _directory: directory })
    }
}
