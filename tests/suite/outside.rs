//! Questions to the outside, asked of real listeners: whatever they do, an answer is bounded in time and size.
#![allow(clippy::unwrap_used)]

use std::{future::Future, net::SocketAddr, time::Duration};

use locktender::{
    adapter::ask::Outside,
    core::{
        analysis::JsonPath,
        ask::{Ask as _, Found, MOST_OF_A_PAGE, Metric, Probe, Query, Question, Reading, Said, Unanswered},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Serves every connection with `answer`, once its request was read.
async fn listener<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            tokio::spawn(answer(stream));
        }
    });
    address
}

/// Answers every request with these bytes, and closes.
async fn says(bytes: &'static str) -> SocketAddr {
    listener(move |mut stream| async move {
        let _ = stream.write_all(bytes.as_bytes()).await;
    })
    .await
}

async fn probe(address: SocketAddr) -> Result<Said, Unanswered> {
    let question = Question::Probe(Probe {
        of: "a pod".to_owned(),
        url: format!("http://{address}/health"),
        timeout: Duration::from_secs(2),
    });
    Outside::default().ask(&question).await
}

/// Asks an endpoint for the measurement at `$.rate`.
async fn measure(address: SocketAddr) -> Result<Said, Unanswered> {
    let path = JsonPath::parse("$.rate").unwrap();
    let query = Query::Web { url: format!("http://{address}/rates"), baseline: None, path };
    let question = Question::Metric(Metric { query, timeout: Duration::from_secs(2) });
    Outside::default().ask(&question).await
}

fn json(value: serde_json::Value) -> Result<Said, Unanswered> {
    Ok(Said::Reading(Reading { result: Found::Json(value), baseline: None }))
}

#[tokio::test]
async fn an_endpoint_is_read_at_its_path_and_what_is_no_measurement_is_told() {
    let answer = |status: &'static str, body: &'static str| {
        listener(move |mut stream| async move {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes()).await;
        })
    };
    assert_eq!(measure(answer("200 OK", "{\"rate\": 0.5}").await).await, json(serde_json::json!(0.5)));
    assert_eq!(measure(answer("200 OK", "{\"other\": 1}").await).await, json(serde_json::Value::Null));
    let nonsense = measure(answer("200 OK", "<html>").await).await;
    assert!(matches!(nonsense, Err(Unanswered::Garbage(_))), "{nonsense:?}");
    for status in ["503 Service Unavailable", "404 Not Found", "302 Found"] {
        let refused = measure(answer(status, "{\"rate\": 0.5}").await).await;
        assert!(matches!(refused, Err(Unanswered::Refused { .. })), "{status}: {refused:?}");
    }
}

fn page(status: u16, body: &str) -> Result<Said, Unanswered> {
    Ok(Said::Page { status, body: body.to_owned() })
}

#[tokio::test]
async fn a_page_is_its_status_and_body() {
    let well = says("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"healthy\": true}").await;
    assert_eq!(probe(well).await, page(200, "{\"healthy\": true}"));
    let ill = says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(probe(ill).await, page(503, ""));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let other = says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let redirects = listener(move |mut stream| async move {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/\r\nContent-Length: 0\r\n\r\n");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    assert_eq!(probe(redirects).await, page(302, ""));
}

#[tokio::test]
async fn fault_73_whoever_never_answers_is_waited_for_only_so_long() {
    let silent = listener(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    assert_eq!(probe(silent).await, Err(Unanswered::Timeout(Duration::from_secs(2))));
    let dribbles = listener(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(probe(dribbles).await, Err(Unanswered::Timeout(Duration::from_secs(2))));
    assert_eq!(measure(dribbles).await, Err(Unanswered::Timeout(Duration::from_secs(2))));
}

#[tokio::test]
async fn fault_73_a_hundred_megabytes_are_not_read() {
    let endless = listener(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n").await;
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    assert_eq!(probe(endless).await, Err(Unanswered::TooLong(MOST_OF_A_PAGE)));
    assert_eq!(measure(endless).await, Err(Unanswered::TooLong(MOST_OF_A_PAGE)));
}

#[tokio::test]
async fn garbage_a_broken_answer_and_nobody_are_told_as_such() {
    let unreachable = |said: &Result<Said, Unanswered>| matches!(said, Err(Unanswered::Unreachable(_)));
    let garbage = probe(says("\u{0}\u{1}SSH-2.0-what\r\n").await).await;
    assert!(unreachable(&garbage), "{garbage:?}");
    let broken = probe(says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await).await;
    assert!(unreachable(&broken), "{broken:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = probe(nobody).await;
    assert!(format!("{refused:?}").contains("Connection refused"), "{refused:?}");
}
