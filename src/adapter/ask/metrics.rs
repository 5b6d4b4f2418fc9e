//! Measurements: from Prometheus' HTTP API, and from any endpoint that answers with JSON.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::http::Http;
use crate::core::{
    analysis::{JsonPath, Range},
    ask::{Found, Query, Reading, Said, Unanswered},
};

impl Http {
    /// Measures, of both versions at once where they are compared.
    pub(super) async fn metric(&self, query: &Query) -> Result<Said, Unanswered> {
        let (result, baseline) = match query {
            Query::Prometheus { address, query, baseline, range } => {
                self.both(query, baseline.as_deref(), |query| self.prometheus(address, query, *range)).await?
            }
            Query::Web { url, baseline, path } => {
                self.both(url, baseline.as_deref(), |url| self.web(url, path)).await?
            }
        };
        Ok(Said::Reading(Reading { result, baseline }))
    }

    async fn both<'q, F>(
        &self,
        new: &'q str,
        stable: Option<&'q str>,
        one: impl Fn(&'q str) -> F,
    ) -> Result<(Found, Option<Found>), Unanswered>
    where
        F: Future<Output = Result<Found, Unanswered>>,
    {
        match stable {
            None => Ok((one(new).await?, None)),
            Some(stable) => {
                let (new, stable) = tokio::try_join!(one(new), one(stable))?;
                Ok((new, Some(stable)))
            }
        }
    }

    async fn prometheus(&self, address: &str, query: &str, range: Option<Range>) -> Result<Found, Unanswered> {
        let mut arguments = vec![("query", query.to_owned())];
        let path = match range {
            None => "query",
            Some(range) => {
                let now = Timestamp::now();
                let start = now - SignedDuration::try_from(range.window).unwrap_or(SignedDuration::ZERO);
                arguments.push(("start", start.to_string()));
                arguments.push(("end", now.to_string()));
                arguments.push(("step", range.step.as_secs().to_string()));
                "query_range"
            }
        };
        let page = self.measured(&format!("{address}/api/v1/{path}"), &arguments).await?;
        match serde_json::from_slice::<Response>(&page.body) {
            Ok(response) if page.status == 200 => series(response),
            // The server's own errors come as JSON, those of a proxy before it as anything.
            Ok(response) => Err(page.refused(&response.error.unwrap_or_default())),
            Err(error) if page.status == 200 => Err(Unanswered::Garbage(error.to_string())),
            Err(_) => Err(page.refused(&String::from_utf8_lossy(&page.body))),
        }
    }

    async fn web(&self, url: &str, path: &JsonPath) -> Result<Found, Unanswered> {
        let page = self.measured(url, &[]).await?;
        if !(200..300).contains(&page.status) {
            return Err(page.refused(&String::from_utf8_lossy(&page.body)));
        }
        let value: Value =
            serde_json::from_slice(&page.body).map_err(|error| Unanswered::Garbage(error.to_string()))?;
        Ok(Found::Json(path.find(&value).cloned().unwrap_or_default()))
    }
}

/// What Prometheus answers; fields that are not named here are nobody's concern.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "camelCase")]
enum Data {
    Vector(Vec<Instant>),
    Matrix(Vec<Points>),
    Scalar(Point),
    String(IgnoredAny),
}

/// Seconds, and the number as a text: JSON has no NaN.
type Point = (f64, String);

#[derive(Deserialize)]
struct Instant {
    value: Point,
}

#[derive(Deserialize)]
struct Points {
    values: Vec<Point>,
}

fn series(response: Response) -> Result<Found, Unanswered> {
    let garbage = |why: &str| Unanswered::Garbage(why.to_owned());
    if response.status != "success" {
        return Err(garbage(&response.error.unwrap_or(response.status)));
    }
    let all: Vec<Vec<Point>> = match response.data.ok_or_else(|| garbage("there are no data"))? {
        Data::Vector(all) => all.into_iter().map(|one| vec![one.value]).collect(),
        Data::Matrix(all) => all.into_iter().map(|one| one.values).collect(),
        Data::Scalar(point) => vec![vec![point]],
        Data::String(_) => return Err(garbage("the query gives a text")),
    };
    let clock = all.iter().flatten().map(|(at, _)| *at).reduce(f64::max);
    let clock = clock.and_then(|at| SignedDuration::try_from_secs_f64(at).ok());
    let clock = clock.and_then(|at| Timestamp::from_duration(at).ok());
    let number = |(_, text): &Point| match text.as_str() {
        "NaN" => Ok(f64::NAN),
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        text => text.parse::<f64>().map_err(|_| Unanswered::Garbage(format!("`{text}` is no number"))),
    };
    let series = all.iter().map(|points| points.iter().map(number).collect::<Result<Vec<f64>, _>>());
    Ok(Found::Series { series: series.collect::<Result<_, _>>()?, warnings: response.warnings, clock })
}
