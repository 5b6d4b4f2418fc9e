//! Metrics of servers that ask who is there: over real HTTPS, with what the operator put into a directory for them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{path::Path, time::Duration};

use locktender::{
    adapter::ask::Outside,
    core::{
        analysis::JsonPath,
        ask::{Ask as _, Found, Metric, Probe, Query, Question, Reading, Said, Unanswered},
    },
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{measures::Server, tls::Authority};

/// The directory that an operator fills.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str) -> &Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    async fn measures(&self, url: &str) -> Result<Value, Unanswered> {
        measures(Some(self.0.path()), url).await
    }
}

async fn measures(directory: Option<&Path>, url: &str) -> Result<Value, Unanswered> {
    let query = Query::Web { url: url.to_owned(), baseline: None, path: JsonPath::parse("$").unwrap() };
    match asks(directory, query).await? {
        Found::Json(value) => Ok(value),
        other => panic!("{other:?}"),
    }
}

async fn asks(directory: Option<&Path>, query: Query) -> Result<Found, Unanswered> {
    let outside = Outside::with_credentials(directory.map(Path::to_owned));
    // A busy machine may take its time.
    match outside.ask(&Question::Metric(Metric { query, timeout: Duration::from_secs(60) })).await? {
        Said::Reading(Reading { result, .. }) => Ok(result),
        other => panic!("{other:?}"),
    }
}

const TOLD: &str = r#"{"rate":1.0,"told":"#;

#[tokio::test]
async fn a_token_goes_to_its_address_and_an_answer_does_not_repeat_it() {
    let server = Server::start(None).await;
    server.ask_for("Bearer t0ken");
    let url = format!("http://{}/shop/rates", server.address);
    let directory = Directory::new();
    directory.write("shop/url", &format!("http://{}/shop\n", server.address)).write("shop/bearerToken", "t0ken\n");
    assert_eq!(directory.measures(&url).await.unwrap().to_string(), format!("{TOLD}\"Bearer ***\"}}"));
    let address = format!("http://{}/shop", server.address);
    let query = Query::Prometheus { address, query: "up".to_owned(), baseline: None, range: None };
    let found = asks(Some(directory.0.path()), query).await.unwrap();
    assert!(matches!(found, Found::Series { series, .. } if series == [[0.5]]));
    server.seen();

    // Whoever writes a policy may name any address: it is shown to none but its own.
    for beside in ["/", "/shoplifter", "/shop/../other", "/shop/%2e%2e/other", "/shop/..%2fother"] {
        let refused = directory.measures(&format!("http://{}{beside}", server.address)).await;
        let Err(Unanswered::Refused { status: 401, message }) = refused else { panic!("{beside}: {refused:?}") };
        assert_eq!(message, "no credentials are for this address: who is ``?");
    }
    assert!(server.seen().iter().all(|(_, sent)| sent.is_none()));
    let stranger = Server::start(None).await;
    let answer = directory.measures(&format!("http://{}/shop/rates", stranger.address)).await.unwrap();
    assert_eq!((answer["told"].as_str(), stranger.seen()[0].1.as_deref()), (Some(""), None));
    // A pod is no server of metrics, wherever it is.
    let probe = Probe { of: "a pod".to_owned(), url, timeout: Duration::from_secs(60) };
    let outside = Outside::with_credentials(Some(directory.0.path().to_owned()));
    let said = outside.ask(&Question::Probe(probe)).await.unwrap();
    assert!(matches!(said, Said::Page { status: 401, .. }), "{said:?}");
}

#[tokio::test]
async fn what_is_refused_is_an_error_that_names_the_credentials_and_others_are_read_at_once() {
    let server = Server::start(None).await;
    server.ask_for("Basic YWRhOnMzY3JldA==");
    let url = format!("http://{}/rates", server.address);
    let directory = Directory::new();
    directory.write("shop/url", &format!("http://{}", server.address));
    directory.write("shop/username", "ada").write("shop/password", "0ld");
    let refused = directory.measures(&url).await.unwrap_err().to_string();
    assert_eq!(refused, "it answers 401: the credentials `shop` are refused: who is `Basic ***`?");
    directory.write("shop/password", "s3cret\n");
    assert_eq!(directory.measures(&url).await.unwrap().to_string(), format!("{TOLD}\"Basic ***\"}}"));

    // Nobody is asked while it cannot be told what is to be shown.
    server.seen();
    for (name, content) in [("shop/password", "two\nlines"), ("other/bearerToken", "t"), ("shop/url", "nonsense")] {
        directory.write(name, content);
        let error = directory.measures(&url).await.unwrap_err();
        assert!(matches!(&error, Unanswered::Credentials(why) if why.starts_with('`')), "{error}");
    }
    let nowhere = measures(Some(Path::new("/nowhere")), &url).await;
    assert!(matches!(nowhere, Err(Unanswered::Credentials(_))), "{nowhere:?}");
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn a_redirect_takes_nothing_along() {
    let (server, other) = (Server::start(None).await, Server::start(None).await);
    server.redirect_to(format!("http://{}/rates", other.address));
    let directory = Directory::new();
    directory.write("shop/url", &format!("http://{}", server.address)).write("shop/bearerToken", "t0ken");
    let refused = directory.measures(&format!("http://{}/rates", server.address)).await;
    assert!(matches!(refused, Err(Unanswered::Refused { status: 307, .. })), "{refused:?}");
    assert_eq!((server.seen().len(), other.seen()), (1, Vec::new()));
}

#[tokio::test]
async fn a_private_authority_is_believed_for_its_address_alone_and_a_certificate_shown() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = Server::start(Some(authority.server(true))).await;
    let url = format!("https://{}/rates", server.address);
    let directory = Directory::new();
    let unreachable = |said: &Result<Value, Unanswered>| matches!(said, Err(Unanswered::Unreachable(_)));
    directory.write("shop/url", &format!("https://{}", server.address)).write("shop/bearerToken", "t0ken");
    let unknown = directory.measures(&url).await;
    assert!(unreachable(&unknown), "the machine knows no such authority: {unknown:?}");
    directory.write("shop/ca.crt", &authority.certificate());
    let nobody = directory.measures(&url).await;
    assert!(unreachable(&nobody), "it wants a certificate: {nobody:?}");
    for (whose, is_taken) in [(&stranger, false), (&authority, true)] {
        let identity = whose.identity("locktender");
        directory.write("shop/tls.crt", &identity.certificate).write("shop/tls.key", &identity.key);
        let said = directory.measures(&url).await;
        assert_eq!(said.is_ok(), is_taken, "{said:?}");
    }
    assert_eq!(server.seen(), [("/rates".to_owned(), Some("Bearer t0ken".to_owned()))]);
    directory.write("shop/ca.crt", &stranger.certificate());
    assert!(unreachable(&directory.measures(&url).await), "instead of the machine's and of any other");
    assert_eq!(server.seen(), [], "who is not believed is told nothing");
}
