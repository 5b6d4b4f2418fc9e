//! One command, one connection, one answer.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::core::{
    ask::Unanswered,
    traffic::haproxy::{Asked, Runtime, State, is_name, parse},
};

/// The longest answer that is read, in bytes: some ten thousand servers.
const MOST: u64 = 4 << 20;

/// Asks for the servers of a backend.
///
/// # Errors
///
/// Where the socket cannot be reached, or HAProxy says something else.
pub async fn state(asked: &Asked) -> Result<State, Unanswered> {
    if !is_name(&asked.backend) {
        return Err(Unanswered::Garbage(format!("`{}` is no name of a backend", asked.backend)));
    }
    let [servers, connections] = asked.questions();
    let servers = say(&asked.runtime, &servers).await?;
    let connections = say(&asked.runtime, &connections).await?;
    parse(&servers, &connections).map_err(Unanswered::Garbage)
}

/// Sends a line and returns all that is answered.
pub(super) async fn say(runtime: &Runtime, line: &str) -> Result<String, Unanswered> {
    let said = match runtime {
        Runtime::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => converse(stream, line).await,
            Err(error) => Err(error),
        },
        Runtime::Tcp(address) => match TcpStream::connect(address).await {
            Ok(stream) => converse(stream, line).await,
            Err(error) => Err(error),
        },
    };
    let said = said.map_err(|error| Unanswered::Unreachable(format!("{runtime}: {error}")))?;
    if said.len() as u64 > MOST {
        return Err(Unanswered::TooLong(usize::try_from(MOST).unwrap_or(usize::MAX)));
    }
    // Even success is an empty line: nothing at all is a connection that broke.
    if said.is_empty() {
        return Err(Unanswered::Unreachable(format!("{runtime}: it closed the connection without an answer")));
    }
    String::from_utf8(said).map_err(|_| Unanswered::Garbage("it is no text".to_owned()))
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, line: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    // A master keeps the connection for as long as there may come another line.
    stream.shutdown().await?;
    let mut said = Vec::new();
    stream.take(MOST + 1).read_to_end(&mut said).await?;
    Ok(said)
}
