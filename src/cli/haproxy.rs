//! `haproxy`: the configuration of a HAProxy that is Locktender's alone, looked at before it is taken.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    error::{Done, Error, Outcome},
    output,
};
use crate::{
    adapter::traffic::haproxy::{Instance, TakeError, place, state},
    core::traffic::haproxy::{Asked, Config, Runtime},
};

/// Writes the configuration of a HAProxy of your own: one way in, one backend, and the servers that it has now
///
/// HAProxy looks at it first, and where it finds anything wrong the file stays as it is. With `--master` the HAProxy that runs (as
/// `haproxy -W -S SOCKET,level,admin -f FILE`) goes on with it: a new worker takes new connections, and the old one finishes
/// those it has. Servers and weights that it was told over its Runtime API stand in the file then, and outlive a start.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  locktender haproxy --backend checkout --runtime unix:/run/haproxy/admin.sock --bind 0.0.0.0:80 --file /etc/haproxy/checkout.cfg
  locktender haproxy … --master unix:/run/haproxy/master.sock

Exit codes: 0 the file is in place, and taken with --master, 1 it is not, 2 wrong usage.")]
pub(super) struct Args {
    /// The backend, as the policy's `traffic.haproxy.backend` names it
    #[arg(long, value_name = "NAME")]
    backend: String,
    /// The Runtime API's socket, as the policy names it: `unix:/path` or `host:port`
    #[arg(long, value_name = "SOCKET")]
    runtime: Runtime,
    /// Where requests come in
    #[arg(long, value_name = "ADDRESS")]
    bind: SocketAddr,
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The master's socket of the HAProxy that runs with that file
    #[arg(long, value_name = "SOCKET")]
    master: Option<Runtime>,
    /// The program
    #[arg(long, value_name = "FILE", default_value = "haproxy")]
    program: PathBuf,
}

pub(super) async fn run(args: Args) -> Outcome {
    let Args { backend, runtime, bind, file, master, program } = args;
    let asked = Asked { runtime, backend };
    let members = match (state(&asked).await, &master) {
        (Ok(state), _) => state.members(),
        // It is written for a HAProxy that is to be started.
        (Err(_), None) => Vec::new(),
        (Err(why), Some(_)) => {
            return Err(Error::because(&format!("cannot ask {} for its servers", asked.runtime), &why));
        }
    };
    let servers = members.len();
    let config = Config { bind, asked, members };
    let text = config.text().map_err(|why| Error::because("cannot write the configuration", &why))?;
    let called = file.display().to_string();
    let done = match master {
        None => place(&program, &file, &text).await,
        Some(master) => Instance { program, file, master: master.clone() }.take(&text).await,
    };
    done.map_err(|why| match why {
        TakeError::Refused(_) => Error::because(&format!("{called} stays as it is"), &why),
        TakeError::File { .. } | TakeError::Program { .. } | TakeError::Reload(_) => {
            Error::because("HAProxy has not taken it", &why)
        }
    })?;
    output::say(&format!("{called} is in place, with {servers} servers\n"));
    Ok(Done::Well)
}
