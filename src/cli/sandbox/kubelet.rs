//! `sandbox kubelet`: the sandbox's kubelet on somebody else's API server.

use std::path::PathBuf;

use super::{Units, units};
use crate::{
    cli::{
        error::{Done, Error, Outcome},
        output,
        run::stopped,
    },
    sandbox::{
        kubelet::{PodRange, Remote, RemoteOptions},
        pace::Pace,
    },
};

/// Runs the sandbox's kubelet against any API server
///
/// It registers nodes, and runs the pods that are bound to them as HTTP listeners on this machine, with probes,
/// readiness gates and faults, as in the sandbox. For a test cluster only: no image is pulled and nothing of it runs.
/// It also stands for the sandbox's slow load balancer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  locktender sandbox kubelet --kubeconfig admin.kubeconfig --units dca=3,dcb=3
  ip route add local 10.244.0.0/16 dev lo     # a real API server refuses loopback addresses in EndpointSlices
  locktender sandbox kubelet --kubeconfig admin.kubeconfig --pods 10.244.0.0/16

Exit codes: 0 it was told to stop, 1 failed, 2 wrong usage.")]
pub(in crate::cli) struct Args {
    /// The kubeconfig. Default: $KUBECONFIG, or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Another context than the kubeconfig's current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Units and how many nodes each has
    #[arg(long, value_name = "UNIT=NODES,…", default_value = "dca=3,dcb=3", value_parser = units)]
    units: Units,
    /// How many pods a node holds
    #[arg(long, value_name = "PODS", default_value_t = 110)]
    capacity: u32,
    /// Where the pods' addresses come from; they must be local to this machine. Default: loopback
    #[arg(long, value_name = "RANGE")]
    pods: Option<PodRange>,
}

pub(super) async fn run(args: Args) -> Outcome {
    let options = RemoteOptions {
        kubeconfig: args.kubeconfig,
        context: args.context,
        units: args.units.clone(),
        capacity: args.capacity,
        pods: args.pods.unwrap_or(PodRange::LOOPBACK),
        pace: Pace::default(),
    };
    let pods = options.pods;
    let kubelet = Remote::start(options).await.map_err(|error| Error::because("cannot start the kubelet", &error))?;
    let nodes: Vec<String> = args.units.iter().map(|(unit, count)| format!("{count} in {unit}")).collect();
    output::data(&format!(
        "{} nodes ({}) for the API server {}, pods from {pods}\n",
        args.units.iter().map(|(_, count)| count).sum::<usize>(),
        nodes.join(", "),
        kubelet.version,
    ));
    output::say("ends with Ctrl-C; its nodes stay, and fall silent\n");
    let stop = stopped().await;
    kubelet.shutdown().await;
    stop.map(|()| Done::Well)
}
