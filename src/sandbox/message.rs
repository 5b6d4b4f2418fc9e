//! HTTP/1.1 by hand: as much of it as pods and the gateway read.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

const LONGEST_LINE: u64 = 16 << 10;
const MOST_HEADERS: usize = 100;
/// The longest body that is taken.
pub const LONGEST_BODY: u64 = 4 << 20;

/// The first line and the headers of a request or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `GET / HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub first: String,
    /// Names as they were sent, with their values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; `None` where the connection ended before it began.
    ///
    /// # Errors
    ///
    /// Where the connection breaks.
    pub async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut first = String::new();
        if (&mut *stream).take(LONGEST_LINE).read_line(&mut first).await? == 0 {
            return Ok(None);
        }
        let mut head = Self { first: first.trim_end().to_owned(), headers: Vec::new() };
        for _ in 0..MOST_HEADERS {
            let mut line = String::new();
            (&mut *stream).take(LONGEST_LINE).read_line(&mut line).await?;
            let line = line.trim();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                head.headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Ok(Some(head))
    }

    /// Returns a word of the first line: of a request the method, the target and the version; "" where there is none.
    pub fn word(&self, at: usize) -> &str {
        self.first.split_whitespace().nth(at).unwrap_or_default()
    }

    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Returns how long the body is, where the head says so.
    ///
    /// # Errors
    ///
    /// Where it is no number, or too long.
    pub fn length(&self) -> io::Result<Option<u64>> {
        let Some(text) = self.header("content-length") else { return Ok(None) };
        match text.parse() {
            Ok(length) if length <= LONGEST_BODY => Ok(Some(length)),
            Ok(_) => Err(wrong("the body is too long")),
            Err(_) => Err(wrong("no length")),
        }
    }

    /// Returns whether nothing follows on the connection after this message; a body in pieces is not read here.
    pub fn closes(&self, version: &str) -> bool {
        version == "HTTP/1.0"
            || self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || self.header("transfer-encoding").is_some()
    }
}

/// Says what is wrong with a message.
pub fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
