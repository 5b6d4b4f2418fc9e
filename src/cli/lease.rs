//! Which leader lease a controller asks for.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::Path,
    time::Duration,
};

use crate::{
    cli::error::Error,
    core::{lease::Terms, policy::HumanDuration},
};

/// Where a pod finds the namespace that it runs in.
const NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The leader lease: of several controllers only the one that holds it acts.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Several controllers, of which one acts")]
pub(super) struct LeaseArgs {
    /// Whether only the controller that holds the leader lease acts. auto: in a pod, and wherever one of the options
    /// below is given
    #[arg(long, value_name = "WHEN", default_value = "auto", env = "LOCKTENDER_LEASE")]
    lease: When,
    /// The Lease's namespace. Default: the pod's own
    #[arg(long, value_name = "NAMESPACE", env = "LOCKTENDER_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// The Lease's name. Default: locktender-, and a hash of the repository's URL and branch
    #[arg(long, value_name = "NAME", env = "LOCKTENDER_LEASE_NAME")]
    lease_name: Option<String>,
    /// After how long another takes the lease of one that is gone. Default: 15s
    #[arg(long, value_name = "DURATION", value_parser = duration, env = "LOCKTENDER_LEASE_DURATION")]
    lease_duration: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum When {
    /// In a pod, and where the lease is described.
    Auto,
    /// Always.
    On,
    /// Never: this is the only controller of the repository.
    Off,
}

impl LeaseArgs {
    /// Returns what to ask for; `None` where this controller acts alone. `key` tells repositories apart, `identity`
    /// processes.
    ///
    /// # Errors
    ///
    /// A lease is asked for, and nothing says in which namespace.
    pub(super) fn terms(&self, key: &str, identity: &str) -> Result<Option<Terms>, Error> {
        let own = std::fs::read_to_string(NAMESPACE).ok().map(|text| text.trim().to_owned());
        let described = self.lease_namespace.is_some() || self.lease_name.is_some() || self.lease_duration.is_some();
        let wanted = match self.lease {
            When::On => true,
            When::Off => false,
            When::Auto => described || own.is_some(),
        };
        if !wanted {
            return Ok(None);
        }
        let Some(namespace) = self.lease_namespace.clone().or(own) else {
            return Err(Error::usage("nothing says in which namespace the leader lease is")
                .hint("`--lease-namespace` names one, or `--lease off` does without"));
        };
        Ok(Some(Terms {
            namespace,
            name: self.lease_name.clone().unwrap_or_else(|| format!("locktender-{key}")),
            identity: identity.to_owned(),
            duration: self.lease_duration.unwrap_or(Duration::from_secs(15)),
        }))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = HumanDuration::parse(text)?.get();
    if duration.subsec_nanos() > 0 || duration < Duration::from_secs(2) {
        return Err("a lease lasts for whole seconds, at least two".to_owned());
    }
    Ok(duration)
}

/// Returns a name that no other process has, and that says which machine or pod this is.
pub(super) fn identity_of_process() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let host = match host.trim() {
        "" => "locktender",
        host => host,
    };
    // Another for every process: the state is seeded by the system's randomness.
    format!("{host}_{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(lease: When) -> LeaseArgs {
        LeaseArgs { lease, lease_namespace: None, lease_name: None, lease_duration: None }
    }

    #[test]
    fn outside_of_a_pod_a_controller_acts_alone_unless_asked_otherwise() {
        assert_eq!(args(When::Auto).terms("key", "me").unwrap(), None);
        let named = LeaseArgs { lease_namespace: Some("ops".into()), ..args(When::Auto) };
        let terms = named.terms("key", "me").unwrap().unwrap();
        assert_eq!((terms.namespace.as_str(), terms.name.as_str()), ("ops", "locktender-key"));
        assert_eq!(LeaseArgs { lease: When::Off, ..named }.terms("key", "me").unwrap(), None);
        assert!(args(When::On).terms("key", "me").is_err(), "it says that a namespace is missing");
    }

    #[test]
    fn every_process_is_somebody_else() {
        assert_ne!(identity_of_process(), identity_of_process());
    }

    #[test]
    fn a_lease_lasts_whole_seconds() {
        assert_eq!(duration("15s"), Ok(Duration::from_secs(15)));
        for wrong in ["1s", "2500ms", "15", "never"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
