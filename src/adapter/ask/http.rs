//! GET, bounded in what is read and followed.

use std::{error::Error as _, sync::OnceLock};

use reqwest::{Client, Response, redirect::Policy};

use crate::core::ask::{MOST_OF_A_PAGE, Said, Unanswered};

/// A client that is made when it is first needed.
#[derive(Default)]
pub(super) struct Http {
    client: OnceLock<Result<Client, String>>,
}

impl Http {
    /// Asks a pod, directly: whatever proxy this process has for the world is not on the way.
    pub(super) async fn probe(&self, url: &str) -> Result<Said, Unanswered> {
        let (status, body) = self.get(url, &[]).await?;
        Ok(Said::Page { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Asks an endpoint, and returns the status and the body.
    pub(super) async fn get(&self, url: &str, arguments: &[(&str, String)]) -> Result<(u16, Vec<u8>), Unanswered> {
        let url = reqwest::Url::parse_with_params(url, arguments);
        let url = url.map_err(|error| Unanswered::Unreachable(format!("no address: {error}")))?;
        let response = self.client()?.get(url).send().await.map_err(|error| unreachable(&error))?;
        let status = response.status().as_u16();
        Ok((status, body(response, MOST_OF_A_PAGE).await?))
    }

    fn client(&self) -> Result<&Client, Unanswered> {
        let make = || {
            // Only the first call in a process counts; another provider, set before, is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
            // A connection of its own for each question: a kept one says nothing about whether a new one is answered.
            let client = Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(0);
            client.build().map_err(|error| chain(&error))
        };
        self.client.get_or_init(make).as_ref().map_err(|why| Unanswered::Unreachable(why.clone()))
    }
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
