//! What HAProxy says of a backend's servers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{Member, OURS};

/// A backend's servers, as HAProxy itself has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// In HAProxy's order.
    pub servers: Vec<Server>,
    /// Whether it was read right after HAProxy was told something: what is not done by then needs time.
    pub told: bool,
}

impl State {
    /// Returns those of our servers that take requests, as they would stand in a configuration.
    pub fn members(&self) -> Vec<Member> {
        let ours = self.servers.iter().filter(|server| server.name.starts_with(OURS));
        let serving = ours.filter(|server| !server.stopped && !server.drains);
        let member = |server: &Server| {
            let name = server.name.clone();
            Some(Member { name, address: server.address?, weight: server.weight })
        };
        serving.filter_map(member).collect()
    }

    /// Returns whether the servers are the same as those, told the same: what they do meanwhile is no other state.
    pub fn is_told_as(&self, other: &Self) -> bool {
        let told = |state: &Self| -> Vec<Server> {
            state.servers.iter().map(|server| Server { runs: true, used: 0, ..server.clone() }).collect()
        };
        told(self) == told(other)
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Where it is; `None` for one that is looked up by name and was not found.
    pub address: Option<SocketAddr>,
    /// Its weight now.
    pub weight: u32,
    /// Whether HAProxy finds it running.
    pub runs: bool,
    /// Whether it was taken out for maintenance.
    pub stopped: bool,
    /// Whether it was told to take no new requests.
    pub drains: bool,
    /// How many connections answer requests now.
    pub used: u32,
}

/// `srv_op_state`: 0 stopped, 1 starting, 2 running, 3 stopping.
const RUNNING: u32 = 2;
/// `srv_admin_state`: taken out by a command, by another server's state, by the configuration, by name lookup.
const MAINTENANCE: u32 = 0x01 | 0x02 | 0x04 | 0x20 | 0x40;
/// `srv_admin_state`: told to drain, itself or by another server's state.
const DRAIN: u32 = 0x08 | 0x10;

/// Reads the answers to [`questions`](super::Asked::questions).
///
/// # Errors
///
/// What HAProxy says instead: there is no such backend, the socket's level is too low, a format that is not known.
pub fn parse(state: &str, connections: &str) -> Result<State, String> {
    let mut lines = state.lines();
    if lines.next().map(str::trim) != Some("1") {
        return Err(format!("HAProxy says: {}", state.trim()));
    }
    let used = used(connections)?;
    let mut servers = Vec::new();
    for row in rows(lines)? {
        let number = |name: &str| row.get(name).and_then(|text| text.parse::<u32>().ok());
        let all =
            row.get("srv_name").zip(number("srv_uweight")).zip(number("srv_op_state")).zip(number("srv_admin_state"));
        let Some((((name, weight), running), admin)) = all else {
            return Err("HAProxy tells servers without name, weight or state".to_owned());
        };
        let ip = row.get("srv_addr").and_then(|text| text.parse::<IpAddr>().ok());
        let port = number("srv_port").and_then(|port| u16::try_from(port).ok());
        servers.push(Server {
            name: (*name).to_owned(),
            address: ip.zip(port).map(SocketAddr::from),
            weight,
            runs: running == RUNNING,
            stopped: admin & MAINTENANCE != 0,
            drains: admin & DRAIN != 0,
            used: used.get(*name).copied().unwrap_or(0),
        });
    }
    Ok(State { servers, told: false })
}

/// Returns how many connections each server uses.
fn used(connections: &str) -> Result<BTreeMap<&str, u32>, String> {
    let mut used = BTreeMap::new();
    for row in rows(connections.lines())? {
        // `backend/server`; the backend's name has no slash.
        let name = row.get("bkname/svname").and_then(|text| text.split_once('/')).map(|(_, name)| name);
        let count = row.get("used_cur").and_then(|text| text.parse().ok());
        let Some((name, count)) = name.zip(count) else {
            return Err(format!("HAProxy tells connections in a way that is not known: {}", connections.trim()));
        };
        used.insert(name, count);
    }
    Ok(used)
}

/// Reads a table whose first line, after `#`, names its columns.
fn rows<'t>(lines: impl Iterator<Item = &'t str>) -> Result<Vec<BTreeMap<&'t str, &'t str>>, String> {
    let mut lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let Some(first) = lines.next() else { return Ok(Vec::new()) };
    let Some(names) = first.strip_prefix('#') else { return Err(format!("HAProxy says: {first}")) };
    let names: Vec<&str> = names.split_whitespace().filter(|name| *name != "-").collect();
    Ok(lines.map(|line| names.iter().copied().zip(columns(line)).collect()).collect())
}

/// Returns a line's columns without the `-` that parts two groups of them.
fn columns(line: &str) -> impl Iterator<Item = &str> {
    let parted = line.contains('/');
    line.split_whitespace().filter(move |text| !parted || *text != "-")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEAD: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
        srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
        bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
        srv_agent_addr srv_agent_port\n";

    #[test]
    fn states_are_read_by_the_names_of_their_columns() {
        let rows = "3 checkout 1 pod:a 127.0.0.1 2 0 80 1 5 1 0 0 14 0 0 0 - 8080 - 0 0 - - 0\n\
            3 checkout 2 pod:b 127.0.0.2 2 8 20 1 5 1 0 0 14 0 0 0 - 8080 - 0 0 - - 0\n\
            3 checkout 3 pod:c - 0 1 1 1 5 1 0 0 14 0 0 0 host 8080 - 0 0 - - 0\n";
        let connections = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb \
            idle_lim idle_cur idle_per_thr[2]\ncheckout/pod:a 3/1 127.0.0.1 8080 - 5000 3 9 9 0 2 -1 2 0 2\n";
        let state = parse(&format!("{HEAD}{rows}"), connections).unwrap();
        let told: Vec<_> =
            state.servers.iter().map(|one| (one.weight, one.runs, one.stopped, one.drains, one.used)).collect();
        assert_eq!(told, [(80, true, false, false, 3), (20, true, false, true, 0), (1, false, true, false, 0)]);
        assert_eq!(state.servers[0].address, Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(state.servers[2].address, None);
    }

    #[test]
    fn an_error_is_text_in_the_same_place() {
        assert_eq!(parse("Can't find backend.\n", "").unwrap_err(), "HAProxy says: Can't find backend.");
        assert_eq!(parse(HEAD, "Permission denied\n").unwrap_err(), "HAProxy says: Permission denied");
        assert_eq!(parse(HEAD, "").unwrap(), State::default());
    }
}
