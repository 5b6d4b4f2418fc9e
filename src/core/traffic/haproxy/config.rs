//! A whole configuration, for a HAProxy that is Locktender's alone.

use std::{fmt::Write as _, net::SocketAddr};

use super::{Asked, Member, Runtime, is_name};

/// A HAProxy with one way in and one backend.
///
/// Servers and weights stand in it, too: a HAProxy that starts anew begins with those that were last written. What is
/// changed meanwhile is told over the Runtime API, and outlives no start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where requests come in.
    pub bind: SocketAddr,
    /// The backend, and the socket by which it is told.
    pub asked: Asked,
    /// The servers.
    pub members: Vec<Member>,
}

/// Why no configuration can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A name or a path that could say something else in the file.
    #[error("`{0}` may not stand in a configuration")]
    Name(String),
}

impl Config {
    /// Returns the file's text.
    ///
    /// # Errors
    ///
    /// Where a name or a path could be read as more than one word.
    pub fn text(&self) -> Result<String, ConfigError> {
        let socket = match &self.asked.runtime {
            Runtime::Unix(path) => format!("unix@{path}"),
            Runtime::Tcp(address) => format!("ipv4@{address}"),
        };
        let names = self.members.iter().map(|member| &member.name).chain([&self.asked.backend]);
        if let Some(name) = names.into_iter().find(|name| !is_name(name)) {
            return Err(ConfigError::Name(name.clone()));
        }
        if socket.contains(|letter: char| letter.is_whitespace() || letter.is_control() || "\"'\\#$".contains(letter)) {
            return Err(ConfigError::Name(socket));
        }
        let backend = &self.asked.backend;
        let mut text = format!(
            "global
    stats socket {socket} mode 600 level admin expose-fd listeners
    stats timeout 10s

defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s

frontend {backend}-in
    bind {}
    default_backend {backend}

backend {backend}
    balance roundrobin
",
            self.bind
        );
        for Member { name, address, weight } in &self.members {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    server {name} {address} weight {weight}");
        }
        Ok(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_written_can_end_its_line() {
        let config = |backend: &str, path: &str| Config {
            bind: "127.0.0.1:80".parse().unwrap(),
            asked: Asked { runtime: Runtime::Unix(path.to_owned()), backend: backend.to_owned() },
            members: Vec::new(),
        };
        assert!(config("checkout", "/run/haproxy.sock").text().unwrap().contains("backend checkout\n"));
        assert!(config("checkout\nglobal", "/run/haproxy.sock").text().is_err());
        assert!(config("checkout", "/run/haproxy sock").text().is_err());
        assert!(config("checkout", "/run/\"haproxy").text().is_err());
    }
}
