//! GET, bounded in what is read and followed.

use std::{error::Error as _, path::PathBuf, sync::OnceLock};

use reqwest::{Client, ClientBuilder, Response, Url, header::AUTHORIZATION, redirect::Policy};

use super::credentials::Credentials;
use crate::core::ask::{MOST_OF_A_PAGE, Said, Unanswered};

/// A client that is made when it is first needed.
#[derive(Default)]
pub(super) struct Http {
    client: OnceLock<Result<Client, String>>,
    /// Where the credentials of those who measure are; `None`: there are none.
    credentials: Option<PathBuf>,
}

/// What was answered.
pub(super) struct Page {
    /// `200`.
    pub status: u16,
    /// At most [`MOST_OF_A_PAGE`] bytes, without what was shown for it.
    pub body: Vec<u8>,
    /// The name of the credentials that were shown.
    shown: Option<String>,
}

impl Http {
    pub(super) fn with_credentials(directory: Option<PathBuf>) -> Self {
        Self { credentials: directory, ..Self::default() }
    }

    /// Asks a pod, directly: whatever proxy this process has for the world is not on the way.
    pub(super) async fn probe(&self, url: &str) -> Result<Said, Unanswered> {
        let page = self.get(&address(url, &[])?, &Credentials::default()).await?;
        Ok(Said::Page { status: page.status, body: String::from_utf8_lossy(&page.body).into_owned() })
    }

    /// Asks somebody who measures, and shows what the operator said that they are to be shown.
    pub(super) async fn measured(&self, url: &str, arguments: &[(&str, String)]) -> Result<Page, Unanswered> {
        let url = address(url, arguments)?;
        let credentials = match &self.credentials {
            Some(directory) => Credentials::of(directory, &url).await?,
            None => None,
        };
        let Some(credentials) = credentials else { return self.get(&url, &Credentials::default()).await };
        let page = self.get(&url, &credentials).await?;
        Ok(Page { body: credentials.redact(page.body), shown: Some(credentials.name), ..page })
    }

    async fn get(&self, url: &Url, credentials: &Credentials) -> Result<Page, Unanswered> {
        let request = match credentials.concern_tls() {
            false => self.client()?.get(url.clone()),
            // Read again at every question, so they may be others at the next one.
            true => client(|client| credentials.tls(client)).map_err(Unanswered::Credentials)?.get(url.clone()),
        };
        let request = match &credentials.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        };
        let response = request.send().await.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        Ok(Page { status, body: body(response, MOST_OF_A_PAGE).await?, shown: None })
    }

    fn client(&self) -> Result<&Client, Unanswered> {
        let made = self.client.get_or_init(|| client(|client| client));
        made.as_ref().map_err(|why| Unanswered::Unreachable(why.clone()))
    }
}

impl Page {
    /// Says that this is no measurement, with the beginning of a message: a whole page is of no use in a record.
    pub(super) fn refused(&self, message: &str) -> Unanswered {
        let message: String = message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        let message = match (self.status, &self.shown) {
            (401 | 403, Some(name)) => format!("the credentials `{name}` are refused: {message}"),
            (401 | 403, None) => format!("no credentials are for this address: {message}"),
            _ => message,
        };
        Unanswered::Refused { status: self.status, message }
    }
}

fn address(url: &str, arguments: &[(&str, String)]) -> Result<Url, Unanswered> {
    let url = match arguments {
        [] => Url::parse(url),
        arguments => Url::parse_with_params(url, arguments),
    };
    url.map_err(|error| Unanswered::Unreachable(format!("no address: {error}")))
}

fn client(more: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    // Only the first call in a process counts; another provider, set before, is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A connection of its own for each question: a kept one says nothing about whether a new one is answered.
    let client = Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0);
    more(client).build().map_err(|error| chain(&error))
}

/// Reads a body to its end, and gives up as soon as it is longer than `most`.
async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, Unanswered> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > most {
            return Err(Unanswered::TooLong(most));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: &reqwest::Error) -> Unanswered {
    Unanswered::Unreachable(chain(error))
}

/// Tells the causes: the outermost error repeats the address, which whoever asked knows.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}
