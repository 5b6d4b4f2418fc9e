//! `sandbox`: the embedded cluster alone, or its kubelet alone.

mod kubelet;

use std::{net::SocketAddr, path::PathBuf};

use super::{
    error::{Done, Error, Outcome},
    output,
    run::stopped,
};
use crate::sandbox::{
    nodes::parse_units,
    server::{Sandbox, SandboxOptions},
};

type Units = Vec<(String, usize)>;

/// Runs a small Kubernetes cluster on this machine, to try things with
///
/// An API server, the workload controllers and a kubelet in one process: kubectl works with it, pods answer HTTP on
/// loopback addresses with their version, name and unit. Nothing is kept when it ends.
///
/// A Gateway of the class locktender-sandbox listens on a loopback address, which its status names, and moves requests
/// as HTTPRoutes say: by weight, path, header, with copies.
///
/// Faults: image tags that end in -bad-image, -crash, -never-ready, -slow or -5xx behave so. The ConfigMap
/// locktender-sandbox-faults in kube-system sets others while it runs. Its keys name faults: bad-image, crash,
/// never-ready, slow, 5xx, unhealthy, die; node-down, kubelet-stopped, scheduler-stopped, load-balancer-dead. What
/// follows a dot in a key only tells entries apart. Values say for what: image=…, pod=…, node=…, namespace=…
/// (`*` stands for anything; slow takes for=30s, die takes at=TIME), names of nodes, or true.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  locktender sandbox --kubeconfig /tmp/sandbox.yaml
  kubectl --kubeconfig /tmp/sandbox.yaml get nodes -L topology.kubernetes.io/zone
  kubectl --kubeconfig /tmp/sandbox.yaml -n kube-system create configmap locktender-sandbox-faults \\
      --from-literal=crash.one='image=*/checkout:2.*' --from-literal=node-down=dca-1

Exit codes: 0 it was told to stop, 1 failed, 2 wrong usage."
)]
pub(super) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Where the kubeconfig is written
    #[arg(long, value_name = "FILE", env = "LOCKTENDER_SANDBOX_KUBECONFIG", required = true)]
    kubeconfig: Option<PathBuf>,
    /// Units and how many nodes each has
    #[arg(long, value_name = "UNIT=NODES,…", default_value = "dca=3,dcb=3", value_parser = units)]
    units: Units,
    /// Where the API server listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many pods a node holds
    #[arg(long, value_name = "PODS", default_value_t = 110)]
    capacity: u32,
    /// Where UIDs and generated names come from: the same seed gives the same ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The file to which every request is added, one JSON document a line, in the shape of Kubernetes' audit log
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    Kubelet(kubelet::Args),
}

fn units(text: &str) -> Result<Units, String> {
    parse_units(text)
}

pub(super) async fn run(args: Args) -> Outcome {
    if let Some(Part::Kubelet(args)) = args.part {
        return kubelet::run(args).await;
    }
    let Some(kubeconfig) = args.kubeconfig else {
        return Err(Error::usage("`--kubeconfig` is missing").hint("it says where the kubeconfig is written"));
    };
    if !args.listen.ip().is_loopback() {
        return Err(Error::usage(format!("`{}` is not on loopback", args.listen))
            .hint("the sandbox is for this machine alone: 127.0.0.1:0 takes a free port"));
    }
    let options = SandboxOptions {
        units: args.units.clone(),
        kubeconfig: Some(kubeconfig.clone()),
        listen: args.listen,
        capacity: args.capacity,
        seed: args.seed,
        audit_log: args.audit_log.clone(),
        gateway_api: true,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::start(options).await.map_err(|error| Error::because("cannot start the sandbox", &error))?;
    let nodes: Vec<String> = args.units.iter().map(|(unit, count)| format!("{count} in {unit}")).collect();
    let file = kubeconfig.display();
    output::data(&format!(
        "a cluster of {} nodes ({}) at {}\n\n  kubectl --kubeconfig {file} get nodes\n  \
         locktender run --repo PATH --kubeconfig {file}\n\n",
        args.units.iter().map(|(_, count)| count).sum::<usize>(),
        nodes.join(", "),
        sandbox.url,
    ));
    output::say("ends with Ctrl-C; nothing is kept\n");
    let stop = stopped().await;
    sandbox.shutdown().await;
    stop.map(|()| Done::Well)
}
