//! The ready metrics, asked of a real Prometheus: over series as the programs name them that expose them, and over those
//! of Debian's HAProxy.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use locktender::{
    adapter::ask::Outside,
    core::{
        analysis::{Exposed, Finding, Side, Verdict, finding, ready},
        ask::{Answer, Ask as _},
        traffic::{
            Router,
            haproxy::{Member, Wanted},
        },
    },
    sandbox::message::Head,
};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    prometheus::Prometheus,
    traffic::{haproxy::Haproxy, load::ask},
};

/// Answers every request with what a function says: a status, and a body.
struct Server {
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(says: impl Fn() -> (u16, String) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, says.clone()));
            }
        });
        Self { address, task }
    }
}

async fn converse(stream: TcpStream, says: impl Fn() -> (u16, String)) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(_)) = Head::read(&mut stream).await {
        let (status, body) = says();
        let head =
            format!("HTTP/1.1 {status} Said\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What a version is like.
const VERSIONS: [(&str, &[u16]); 4] = [("good", &[200, 404]), ("bad", &[500]), ("half", &[200, 503]), ("idle", &[])];

/// Everything that is exposed, of all versions, after so many requests.
fn exposed(count: u64) -> String {
    let mut text = String::new();
    for (version, codes) in VERSIONS {
        let is_slow = version == "bad";
        let (pod, server) =
            (format!("namespace=\"shop\",pod=\"{version}-x1\""), format!("server=\"pod:{version}-x1\""));
        // What nobody asks any more keeps what it had.
        let codes: Vec<(u16, u64)> = match codes {
            [] => vec![(200, 7)],
            codes => codes.iter().map(|code| (*code, count)).collect(),
        };
        let all: u64 = codes.iter().map(|(_, count)| count).sum();
        let quick = if is_slow { 0 } else { all };
        for (code, count) in &codes {
            writeln!(text, "http_requests_total{{{pod},code=\"{code}\"}} {count}").unwrap();
            let istio = format!("{pod},response_code=\"{code}\"");
            writeln!(text, "istio_requests_total{{reporter=\"destination\",{istio}}} {count}").unwrap();
            let nginx = format!("namespace=\"shop\",ingress=\"{version}\",status=\"{code}\"");
            writeln!(text, "nginx_ingress_controller_requests{{canary=\"shop-canary-80\",{nginx}}} {count}").unwrap();
        }
        // What is not the new version's: its callers' own numbers, what went to stable, another Ingress and backend.
        writeln!(text, "istio_requests_total{{reporter=\"source\",{pod},response_code=\"502\"}} {count}").unwrap();
        for other in [format!("canary=\"\",ingress=\"{version}\""), format!("canary=\"x\",ingress=\"{version}-too\"")] {
            let status = if version == "bad" { 200 } else { 500 };
            writeln!(
                text,
                "nginx_ingress_controller_requests{{namespace=\"shop\",{other},status=\"{status}\"}} {count}"
            )
            .unwrap();
        }
        for class in 1..=5_u16 {
            let of_it = codes.iter().filter(|(code, _)| code / 100 == class).map(|(_, count)| count).sum::<u64>();
            for (proxy, count) in [("shop", of_it), ("other", count)] {
                let haproxy = format!("proxy=\"{proxy}\",{server},code=\"{class}xx\"");
                writeln!(text, "haproxy_server_http_responses_total{{{haproxy}}} {count}").unwrap();
            }
        }
        let average = if is_slow { 0.9 } else { 0.02 };
        writeln!(text, "haproxy_server_response_time_average_seconds{{proxy=\"shop\",{server}}} {average}").unwrap();
        for (bound, below) in [("0.5", quick), ("1", all), ("+Inf", all)] {
            writeln!(text, "http_request_duration_seconds_bucket{{{pod},le=\"{bound}\"}} {below}").unwrap();
            let nginx = format!("canary=\"x\",namespace=\"shop\",ingress=\"{version}\",le=\"{bound}\"");
            writeln!(text, "nginx_ingress_controller_request_duration_seconds_bucket{{{nginx}}} {below}").unwrap();
        }
        for (bound, below) in [("500", quick), ("1000", all), ("+Inf", all)] {
            let istio = format!("reporter=\"destination\",{pod},le=\"{bound}\"");
            writeln!(text, "istio_request_duration_milliseconds_bucket{{{istio}}} {below}").unwrap();
        }
        // The bad one starts anew again and again.
        let started = if is_slow { count } else { 7 };
        writeln!(text, "process_start_time_seconds{{{pod}}} {started}").unwrap();
    }
    text
}

/// Asks a ready metric of a version, and judges the answer.
async fn measured(prometheus: &Prometheus, name: &str, exposed: Exposed, side: &Side) -> (Verdict, Finding) {
    let metric = ready(name, exposed).unwrap();
    let question = metric.question(side, side, Some(&prometheus.url())).unwrap();
    let answer = Answer { at: Timestamp::now(), result: Outside::default().ask(&question).await };
    let found = finding(&answer);
    (metric.rule.judge().of(&found).0, found)
}

fn side(pods: &str, router: Option<Router>) -> Side {
    let unit = String::new();
    let (app, namespace, digest) = ("shop".to_owned(), "shop".to_owned(), "0123".to_owned());
    Side { app, namespace, variant: "canary", digest, pods: pods.to_owned(), unit, router }
}

/// Asks until everything is as expected at once: a server scrapes when it can.
async fn until<T>(what: &str, as_expected: impl AsyncFn() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match as_expected().await {
            Ok(found) => return found,
            Err(why) => assert!(began.elapsed() < Duration::from_secs(120), "never: {what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn ready_metrics_judge_the_series_that_each_program_has() {
    let prometheus = Prometheus::start().await;
    let began = Instant::now();
    let count = move || u64::try_from(began.elapsed().as_millis() / 50).unwrap();
    let exporter = Server::start(move || (200, exposed(count()))).await;
    prometheus.scrapes(&exporter.address);
    let runtime = "unix:/run/haproxy.sock".parse::<locktender::core::traffic::haproxy::Runtime>().unwrap();
    let router = |exposed, version: &str| match exposed {
        Exposed::Nginx => Some(Router::Nginx { ingress: version.to_owned() }),
        Exposed::Haproxy => Some(Router::Haproxy { backend: "shop".to_owned(), runtime: runtime.clone() }),
        Exposed::Pods | Exposed::Istio => None,
    };
    let verdicts = [
        ("good", [Verdict::Pass, Verdict::Pass, Verdict::Pass]),
        ("bad", [Verdict::Fail, Verdict::Fail, Verdict::Fail]),
        ("half", [Verdict::Fail, Verdict::Pass, Verdict::Pass]),
        ("idle", [Verdict::Inconclusive, Verdict::Inconclusive, Verdict::Pass]),
        ("nobody", [Verdict::Inconclusive; 3]),
    ];
    until("each is judged as it is", async || {
        let mut wrong = Vec::new();
        for (_, exposed) in Exposed::ALL {
            for (version, expected) in verdicts {
                let side = side(&format!("({version})-[a-z0-9]+"), router(*exposed, version));
                for (name, expected) in ["success-rate", "latency", "restarts"].into_iter().zip(expected) {
                    if ready(name, *exposed).is_none() {
                        continue;
                    }
                    let (verdict, found) = measured(&prometheus, name, *exposed, &side).await;
                    let is_nothing = matches!(found, Finding::NoData(_));
                    if verdict != expected || is_nothing != (expected == Verdict::Inconclusive) {
                        wrong.push(format!("{name} of {exposed:?}, {version}: {found:?}"));
                    }
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    })
    .await;
    // None but errors is none, not nobody knows.
    for (_, exposed) in Exposed::ALL {
        let (_, found) =
            measured(&prometheus, "success-rate", *exposed, &side("(bad)-[a-z0-9]+", router(*exposed, "bad"))).await;
        assert_eq!(found, Finding::Measured { result: "[0.0]".to_owned(), baseline: None }, "{exposed:?}");
    }
}

#[tokio::test]
async fn of_haproxy_the_servers_are_those_that_it_was_told_of() {
    let haproxy = Haproxy::start().await;
    let (good, bad) = (Server::start(|| (200, String::new())).await, Server::start(|| (500, String::new())).await);
    let members = [("good-x1", &good, 1), ("bad-x1", &bad, 1), ("idle-x1", &good, 0)].map(|(name, server, weight)| {
        Member { name: format!("pod:{name}"), address: server.address.parse().unwrap(), weight }
    });
    let exporter = haproxy.exposes_metrics().await;
    haproxy.settle(&Wanted { members: members.to_vec() }).await;
    let prometheus = Prometheus::start().await;
    prometheus.scrapes(&exporter.to_string());
    let asked = &haproxy.config.asked;
    let router = || Some(Router::Haproxy { backend: asked.backend.clone(), runtime: asked.runtime.clone() });
    let expected = [("good", Verdict::Pass), ("bad", Verdict::Fail), ("idle", Verdict::Inconclusive)];
    until("each is judged as it is", async || {
        // A rate needs requests before a scrape and after it.
        for _ in 0..4 {
            ask(haproxy.config.bind, &[]).await.map_err(|error| error.to_string())?;
        }
        let mut wrong = Vec::new();
        for (version, expected) in expected {
            let side = side(&format!("({version})-[a-z0-9]+"), router());
            let (verdict, found) = measured(&prometheus, "success-rate", Exposed::Haproxy, &side).await;
            if verdict != expected {
                wrong.push(format!("success-rate of {version}: {found:?}"));
            }
            let (verdict, found) = measured(&prometheus, "latency", Exposed::Haproxy, &side).await;
            if (verdict == Verdict::Inconclusive) != (expected == Verdict::Inconclusive) {
                wrong.push(format!("latency of {version}: {found:?}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    })
    .await;
}
