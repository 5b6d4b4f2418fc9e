//! `run`: the controller.

mod lease;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::sync::watch;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use self::lease::LeaseArgs;
use super::{
    error::{Done, Error, Outcome},
    place::{ClusterArgs, RepoArgs, ports},
};
use crate::{
    adapter::{
        clock::SystemClock,
        git::{GitOptions, GitRepository, here::cache_directory, objects::Who},
        kube::{Rate, Settings as KubeSettings},
    },
    controller::{
        self, Options,
        fence::{Fence, fenced},
        lease::{Lease, Standing},
    },
    core::{
        names::{Digest, Revision},
        policy::{HumanDuration, Settings, read_settings},
        repository::Repository,
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

/// After this long whatever is under way is left: it is found again by whoever comes next. The controller takes eight
/// seconds at most, giving the lease back one.
const FAREWELL: Duration = Duration::from_millis(9_200);

fn qps(text: &str) -> Result<f64, String> {
    let qps = text.parse::<f64>().ok().filter(|qps| qps.is_finite() && *qps > 0.0);
    qps.ok_or_else(|| format!("`{text}` is no number above 0"))
}

pub(super) async fn run(args: Args) -> Outcome {
    log_to_stderr(args.log_format, args.verbose);
    let place = args.repo.find()?;
    let key = Digest::of(format!("{}\n{}", place.url, place.branch.as_str()).as_bytes()).short();
    let default = || cache_directory().map(|cache| cache.join("controllers").join(&key));
    let Some(directory) = args.mirror.clone().or_else(default) else {
        return Err(Error::usage("there is no home directory for the mirror").hint("`--mirror` names a directory"));
    };
    let mut options = GitOptions::new(place.url.clone(), place.branch.clone(), directory);
    options.poll = args.poll.get();
    let mut repository = GitRepository::open(options.clone()).await?;
    let identity = identity(&repository).await;
    if identity != options.identity {
        // A mirror belongs to one at a time.
        drop(repository);
        options.identity = identity;
        repository = GitRepository::open(options).await?;
    }
    let rate = args.qps.map(|qps| Rate { qps, burst: args.burst });
    let settings = KubeSettings { rate, ..KubeSettings::default() };
    let cluster = args.cluster.connect_with(settings).await?;
    let repository = Arc::new(repository);
    info!(repository = %place.url, branch = place.branch.as_str(), "started");
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    // Where the sender is dropped, everything ends anyway.
    let stop = async move { drop(told.await) }.shared();
    // Each term starts with nothing known, as a process does.
    let term = |fence: Option<Fence>| {
        let ports = ports(repository.clone(), Arc::new(cluster.anew()));
        let ports = match &fence {
            Some(fence) => fenced(ports, fence),
            None => ports,
        };
        let options = Options { push_interval: args.push_interval.map(HumanDuration::get), ..Options::default() };
        controller::run(ports, options, None, stop.clone()).map(Ok::<(), Error>)
    };
    let controller = async {
        let Some(terms) = args.lease.terms(&key)? else { return term(None).await };
        let (standing, _) = watch::channel(Standing::default());
        // Connections of its own, without a limit: a renewal must not wait behind what it is there for.
        let cluster = Arc::new(args.cluster.connect().await?);
        let lease = Lease { cluster, clock: Arc::new(SystemClock::new()), terms, standing };
        lease.while_leading(stop.clone(), |fence| term(Some(fence))).await
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
