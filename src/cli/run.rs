//! `run`: the controller.

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::{
    error::{Done, Error, Outcome},
    lease::{LeaseArgs, identity_of_process},
    place::{ClusterArgs, RepoArgs, ports},
};
use crate::{
    adapter::{
        ask::Outside,
        clock::SystemClock,
        git::{GitOptions, GitRepository, access::Access, here::cache_directory, objects::Who, url::Transport},
        kube::{KubeCluster, Rate, Settings as KubeSettings},
    },
    controller::{
        self, Options, Ports,
        events::events,
        fence::{Fence, fenced},
        lease::{Lease, Standing},
        news::Listeners,
    },
    core::{
        names::Revision,
        policy::{HumanDuration, Settings, read_settings},
        repository::Repository,
    },
    server::{
        Server, Shown,
        health::Health,
        metrics::{Metrics, Sources},
    },
};

/// Runs the controller until it is told to stop
///
/// Watches the branch and the cluster, and carries out what the branch says. Keeps nothing that cannot be rebuilt: it may
/// be killed at any time. Ends within ten seconds of SIGTERM or Ctrl-C. In a pod it acts only while it holds the leader
/// lease, so that there may be several.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  locktender run --repo https://git.example/release.git --kubeconfig ~/.kube/config

Exit codes: 0 it was told to stop, 1 failed, 2 wrong usage.")]
pub(super) struct Args {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How often the remote is asked; a repository on this machine is watched as well
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = HumanDuration::parse, env = "LOCKTENDER_POLL")]
    poll: HumanDuration,
    /// Where the mirror of the repository is kept. Default: the user's cache
    #[arg(long, value_name = "DIRECTORY", env = "LOCKTENDER_MIRROR")]
    mirror: Option<PathBuf>,
    /// The least time between two pushes of records of going forward, instead of ledger.pushInterval
    #[arg(long, value_name = "DURATION", value_parser = HumanDuration::parse, env = "LOCKTENDER_PUSH_INTERVAL")]
    push_interval: Option<HumanDuration>,
    /// Where /healthz, /readyz and /metrics are answered, over plain HTTP and to anybody: 127.0.0.1:8080, 0.0.0.0:8080.
    /// Default: nowhere
    #[arg(long, value_name = "ADDRESS", env = "LOCKTENDER_LISTEN")]
    listen: Option<SocketAddr>,
    /// A directory with one directory, of the files of a Secret, for each server of metrics that asks who is there: url,
    /// the address that it is for; bearerToken, or username and password; ca.crt; tls.crt and tls.key. Default: nothing
    /// is shown
    #[arg(long, value_name = "DIRECTORY", env = "LOCKTENDER_METRICS_CREDENTIALS")]
    metrics_credentials: Option<PathBuf>,
    #[command(flatten)]
    lease: LeaseArgs,
    /// How many requests a second may go to the API server, lastingly. Default: no limit but the server's own
    #[arg(long, value_name = "N", value_parser = qps, env = "LOCKTENDER_QPS")]
    qps: Option<f64>,
    /// How many requests may go at once after a rest, with --qps
    #[arg(long, value_name = "N", default_value_t = 20, requires = "qps", value_parser = clap::value_parser!(u32).range(1..), env = "LOCKTENDER_BURST")]
    burst: u32,
    /// How the log is written, on standard error
    #[arg(long, value_name = "FORMAT", default_value = "human", env = "LOCKTENDER_LOG_FORMAT")]
    log_format: LogFormat,
    /// Logs more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// After this long whatever is under way is left: it is found again by whoever comes next. The controller takes seven
/// seconds at most, giving the lease back two.
const FAREWELL: Duration = Duration::from_millis(9_200);

fn qps(text: &str) -> Result<f64, String> {
    let qps = text.parse::<f64>().ok().filter(|qps| qps.is_finite() && *qps > 0.0);
    qps.ok_or_else(|| format!("`{text}` is no number above 0"))
}

pub(super) async fn run(args: Args) -> Outcome {
    log_to_stderr(args.log_format, args.verbose);
    let place = args.repo.find()?;
    let key = place.key();
    let default = || cache_directory().map(|cache| cache.join("controllers").join(&key));
    let Some(directory) = args.mirror.clone().or_else(default) else {
        return Err(Error::usage("there is no home directory for the mirror").hint("`--mirror` names a directory"));
    };
    let mut options = GitOptions::new(place.url.clone(), place.branch.clone(), directory);
    options.poll = args.poll.get();
    options.access = Access::Own { credentials: place.credentials.clone() };
    let repository = GitRepository::open(options).await?;
    if let Transport::Local(path) = place.url.transport()
        && !path.exists()
        && repository.tip().await?.is_none()
    {
        // One that was there before may come back; a path that never was is a slip.
        return Err(Error::failed(format!("there is no repository at {}", path.display()))
            .hint("`--repo` names a path or a URL"));
    }
    let rate = args.qps.map(|qps| Rate { qps, burst: args.burst });
    let cluster = args.cluster.connect_with(KubeSettings { rate, ..KubeSettings::default() }).await?;
    let instance = identity_of_process();
    let terms = args.lease.terms(&key, &instance)?;
    // Connections of its own, without a limit: a renewal must not wait behind what it is there for.
    let for_lease = args.cluster.connect().await?;
    let (standing, leading) = watch::channel(Standing::default());
    let health = Arc::new(Health::new(terms.is_some().then_some(leading)));
    let metrics = Arc::new(Metrics::new(Sources {
        health: health.clone(),
        api: vec![cluster.requests(), for_lease.requests()],
        git: repository.requests(),
    }));
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    // Where the sender is dropped, everything ends anyway.
    let stop = async move { drop(told.await) }.shared();
    if let Some(address) = args.listen {
        let shown = Shown { health: health.clone(), metrics: metrics.clone() };
        answer(address, shown, stop.clone()).await?;
    }
    let identity = identity(&repository).await;
    let repository = Arc::new(repository.with_identity(identity));
    info!(repository = %place.url, branch = place.branch.as_str(), "started");
    let push_interval = args.push_interval.map(HumanDuration::get);
    let ask = Arc::new(Outside::with_credentials(args.metrics_credentials));
    let work = Work { repository, cluster, ask, health, metrics, instance, push_interval };
    let controller = async {
        let Some(terms) = terms else { return work.term(None, stop.clone()).await };
        let clock = Arc::new(SystemClock::new());
        let lease = Lease { cluster: Arc::new(for_lease), clock, terms, standing };
        lease.while_leading(stop.clone(), |fence| work.term(Some(fence), stop.clone())).await
    };
    let leave = async {
        stopped().await?;
        info!("told to stop");
        let _ = tell.send(());
        tokio::time::sleep(FAREWELL).await;
        warn!("left what was still under way: it is found again at the next start");
        Ok::<(), Error>(())
    };
    tokio::select! {
        ended = controller => ended?,
        left = leave => left?,
    }
    Ok(Done::Well)
}

/// What the controller works with, term after term.
struct Work {
    repository: Arc<GitRepository>,
    cluster: KubeCluster,
    ask: Arc<Outside>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// Which process this is.
    instance: String,
    push_interval: Option<Duration>,
}

impl Work {
    /// Runs the controller. Each term starts with nothing known, as a process does.
    async fn term(&self, fence: Option<Fence>, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.health.starts_anew();
        self.metrics.starts_anew();
        let ports = ports(self.repository.clone(), Arc::new(self.cluster.anew()));
        let ports = Ports { ask: self.ask.clone(), ..ports };
        let ports = match &fence {
            Some(fence) => fenced(ports, fence),
            None => ports,
        };
        let (events, write_events) = events(ports.cluster.clone(), self.instance.clone());
        let listeners = Listeners(vec![self.health.clone(), self.metrics.clone(), events]);
        let options = Options { push_interval: self.push_interval, listeners, ..Options::default() };
        tokio::select! {
            () = controller::run(ports, options, None, stop) => {}
            // Ends only with the controller, which has the other end.
            () = write_events => {}
        }
        Ok(())
    }
}

/// Answers probes and scrapes from now on.
async fn answer(
    address: SocketAddr,
    shown: Shown,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let server = Server::bind(address).await;
    let server = server.map_err(|error| Error::because(&format!("cannot listen on {address}"), &error))?;
    info!(address = %server.address, "answers /healthz, /readyz and /metrics");
    tokio::spawn(server.run(shown, stop));
    Ok(())
}

/// Returns once the process is told to stop.
pub(super) async fn stopped() -> Result<(), Error> {
    let listen = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let mut terminate = listen.map_err(|error| Error::because("cannot listen for signals", &error))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Reads whose name the controller's commits are to have.
async fn identity(repository: &GitRepository) -> Who {
    let settings = match repository.fetch().await {
        Ok(head) => settings(repository, &head).await,
        Err(error) => {
            warn!(%error, "cannot fetch yet: until the next start commits have the usual identity");
            None
        }
    };
    let identity = settings.unwrap_or_default().identity;
    Who { name: identity.name, email: identity.email }
}

async fn settings(repository: &GitRepository, head: &Revision) -> Option<Settings> {
    let root = repository.directory(head, "").await.ok()??;
    let entry = root.into_iter().find(|entry| entry.path == "locktender.yaml")?;
    read_settings(&entry.path, &repository.read(&entry.id, 1 << 20).await.ok()?).ok()
}

/// Sets up the log; LOCKTENDER_LOG says what of it is shown.
pub(super) fn log_to_stderr(format: LogFormat, verbose: u8) {
    let usual = match verbose {
        0 => "info",
        1 => "info,locktender=debug",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("LOCKTENDER_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only where somebody has set one up already.
    let _ = match format {
        LogFormat::Human => builder.with_target(verbose > 0).with_ansi(colours()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

fn colours() -> bool {
    anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
}
