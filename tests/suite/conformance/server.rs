//! The server that is asked, and what it said.

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures::AsyncBufReadExt as _;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use locktender::sandbox::server::{Sandbox, SandboxOptions};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::support::cluster;

/// The version whose answers `golden/` has, and the sandbox gives.
const NEWEST: &str = "1.36";

/// How long something may take that the server does by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// `Warning` headers.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The value at a path like `/metadata/uid`, as text.
    pub fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// An API server with a namespace for one test, and the transcript of what it said.
pub struct Server {
    client: kube::Client,
    /// The namespace. Where a path or a body has `NS`, it is meant.
    pub namespace: String,
    text: String,
    /// Whether `managedFields` are told.
    owners: bool,
    wordless: bool,
    pub kubeconfig: PathBuf,
    sandbox: Option<(Sandbox, tempfile::TempDir)>,
}

impl Server {
    /// Makes a namespace of its own.
    pub async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (file, sandbox) = match cluster::real() {
            Some(kubeconfig) => (kubeconfig, None),
            None => {
                let directory = tempfile::tempdir().unwrap();
                let kubeconfig = directory.path().join("kubeconfig");
                // No nodes: nobody runs pods, as on the other.
                let options = SandboxOptions {
                    kubeconfig: Some(kubeconfig.clone()),
                    units: Vec::new(),
                    ..SandboxOptions::default()
                };
                (kubeconfig, Some((Sandbox::start(options).await.unwrap(), directory)))
            }
        };
        let kubeconfig = Kubeconfig::read_from(&file).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        // What is refused for now is an answer, too.
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("conformance-{}-{number}", std::process::id());
        let mut server =
            Self { client, namespace, text: String::new(), owners: false, wordless: false, kubeconfig: file, sandbox };
        let made = server
            .ask(
                "POST",
                "/api/v1/namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "NS"}}),
            )
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
        // A real one makes it after the namespace.
        server.until("/api/v1/namespaces/NS/serviceaccounts/default", |answer| answer.status == 200).await;
        server
    }

    /// Tells `managedFields` from now on.
    pub fn tell_owners(&mut self) {
        self.owners = true;
    }

    /// Sends a request with a body of the usual type; `Value::Null` is none.
    pub async fn ask(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let content = match (method, path.contains("fieldManager=")) {
            ("PATCH", true) => "application/apply-patch+yaml",
            ("PATCH", false) => "application/merge-patch+json",
            _ => "application/json",
        };
        self.send(method, path, content, body).await
    }

    /// Sends a patch of some type.
    pub async fn ask_patch(&mut self, kind: &str, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, kind, body).await
    }

    async fn send(&self, method: &str, path: &str, content: &str, body: Value) -> Answer {
        let place = |text: &str| text.replace("NS", &self.namespace);
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(place(path))
            .header(header::ACCEPT, self.accept(path))
            .header(header::USER_AGENT, "conformance");
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            request = request.header(header::CONTENT_TYPE, content);
            place(&body.to_string()).into_bytes()
        };
        let response = self.client.send(request.body(bytes.into()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let warnings = response.headers().get_all(header::WARNING).iter();
        let warnings = warnings.map(|warning| warning.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        let body = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_ref()));
        Answer { status, body, warnings }
    }

    fn accept(&self, path: &str) -> &'static str {
        if path.contains("includeObject=") {
            "application/json;as=Table;v=v1;g=meta.k8s.io"
        } else {
            "application/json"
        }
    }

    /// Sends a request and tells what was answered.
    pub async fn see(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let answer = self.ask(method, path, body).await;
        self.tell(&format!("{method} {path}"), &answer, &[""]);
        answer
    }

    /// Sends a request and tells some of the answer, by paths like `/spec/replicas`; all of it where it is refused.
    pub async fn see_part(&mut self, method: &str, path: &str, body: Value, parts: &[&str]) -> Answer {
        let answer = self.ask(method, path, body).await;
        let parts = if answer.status < 300 { parts } else { &[""] };
        self.tell(&format!("{method} {path}"), &answer, parts);
        answer
    }

    /// Sends a patch of some type and tells some of the answer.
    pub async fn see_patch(&mut self, kind: &str, path: &str, body: Value, parts: &[&str]) -> Answer {
        let answer = self.send("PATCH", path, kind, body).await;
        let parts = if answer.status < 300 { parts } else { &[""] };
        self.tell(&format!("PATCH {path} as {kind}"), &answer, parts);
        answer
    }

    /// Asks for something until it is as wanted.
    pub async fn until(&mut self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let began = tokio::time::Instant::now();
        loop {
            let answer = self.ask("GET", path, Value::Null).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "never: {path}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Watch {
        let request = Request::get(path.replace("NS", &self.namespace)).body(Vec::new()).unwrap();
        let stream = self.client.request_stream(request).await.unwrap();
        Watch { lines: Box::pin(stream) }
    }

    /// Writes down text.
    pub fn tell_text(&mut self, text: &str) {
        self.text += text;
    }

    /// Writes down what happens.
    pub fn note(&mut self, what: &str) {
        let _ = writeln!(self.text, "! {what}");
    }

    /// Writes down parts of an answer.
    pub fn tell(&mut self, what: &str, answer: &Answer, parts: &[&str]) {
        let _ = writeln!(self.text, "> {what}\n{}", answer.status);
        for warning in &answer.warnings {
            let _ = writeln!(self.text, "warning: {warning}");
        }
        for part in parts {
            let value = answer.body.pointer(part).cloned().unwrap_or_default();
            self.tell_value(part, value);
        }
    }

    /// Writes down a value.
    pub fn tell_value(&mut self, name: &str, mut value: Value) {
        normalise(&mut value, self.owners);
        if value["kind"] == "Status" {
            self.refusal(&mut value);
        }
        let text = match &value {
            Value::Object(_) => serde_json::to_string_pretty(&value).unwrap(),
            _ => value.to_string(),
        };
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let _ = writeln!(self.text, "{name}{text}");
    }

    /// Leaves out of a refusal what says the same twice: the message of one that lists its causes, causes that stand
    /// there again, empty details; and the words where they are not the sandbox's aim.
    fn refusal(&self, status: &mut Value) {
        let members = status.as_object_mut().unwrap();
        let causes = members.get_mut("details").and_then(|details| details.get_mut("causes")?.as_array_mut());
        if let Some(causes) = causes {
            causes.sort_by_key(Value::to_string);
            causes.dedup();
        }
        let listed = members.get("details").is_some_and(|details| details.get("causes").is_some());
        if listed && members["reason"] == "Invalid" || self.wordless {
            members.remove("message");
        }
        members.retain(|_, member| member.as_object().is_none_or(|members| !members.is_empty()));
    }

    /// Tells no words of refusals from now on, only what a client goes by.
    pub fn leave_words_out(&mut self) {
        self.wordless = true;
    }

    /// The server's version, as in `1.33`, where it is older than the one that the others' answers are from.
    pub async fn older(&self) -> Option<String> {
        let said = self.send("GET", "/version", "", Value::Null).await;
        let version = format!("{}.{}", said.text("/major"), said.text("/minor").trim_end_matches('+'));
        (self.sandbox.is_none() && version != NEWEST).then_some(version)
    }

    /// The same, where an older server says something else in this test: then it has a transcript of its own.
    pub async fn another_version(&self, text: &str) -> Option<String> {
        let version = self.older().await?;
        let thread = std::thread::current();
        let test = thread.name().unwrap().rsplit("::").next().unwrap().to_owned();
        let golden = |suffix: &str| {
            let file = format!("tests/suite/conformance/golden/{test}{suffix}.snap");
            std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).ok()
        };
        let updates = std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always");
        let differs = || golden("").is_none_or(|golden| !golden.ends_with(&format!("---\n{}\n", text.trim_end())));
        (golden(&format!("@{version}")).is_some() || updates && differs()).then_some(version)
    }

    /// The transcript, without what differs from run to run.
    pub fn text(&self) -> String {
        let text = self.text.replace(&self.namespace, "NS");
        let replaced = [
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>"),
            (r"10\.96\.\d+\.\d+", "<ip>"),
            // Up to 1.33 Go's own words are told, with where things are in its memory.
            (r"\(0x[0-9a-f]+\)", "(<address>)"),
            // Go and Rust write the members of an object in different orders.
            (r#"(Invalid|Unsupported) value: [\[{].*[\]}]: "#, "$1 value: <object>: "),
            (r"(made-)[bcdfghjklmnpqrstvwxz2456789]{5}\b", "${1}<random>"),
        ];
        replaced
            .into_iter()
            .fold(text, |text, (from, to)| Regex::new(from).unwrap().replace_all(&text, to).into_owned())
    }
}

/// Takes out what admission plugins fill in, which the sandbox does not have.
fn without_admission(pod: &mut Map<String, Value>) {
    for name in ["priority", "preemptionPolicy", "serviceAccount", "serviceAccountName"] {
        pod.remove(name);
    }
    if pod.get("tolerations").is_some_and(|tolerations| *tolerations == json!([])) {
        pod.remove("tolerations");
    }
}

/// Takes out what differs from run to run, or on purpose: `docs/sandbox.md` has a table.
fn normalise(value: &mut Value, owners: bool) {
    match value {
        Value::Object(members) => {
            if !owners {
                members.remove("managedFields");
            }
            for (name, member) in members.iter_mut() {
                match (name.as_str(), &mut *member) {
                    ("resourceVersion" | "continue", Value::String(text)) if !text.is_empty() => {
                        *text = "<version>".to_owned();
                    }
                    _ => normalise(member, owners),
                }
            }
            if members.contains_key("schedulerName") {
                without_admission(members);
            }
        }
        Value::Array(items) => {
            // Controllers come in their own time.
            items.retain(|item| item["tolerationSeconds"] != 300 && item["manager"] != "kube-controller-manager");
            items.iter_mut().for_each(|item| normalise(item, owners));
        }
        _ => {}
    }
}

/// A watch.
pub struct Watch {
    lines: std::pin::Pin<Box<dyn futures::AsyncBufRead + Send>>,
}

impl Watch {
    /// The next event, as type and object; `None` where the watch has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.lines.read_line(&mut line)).await.expect("an event in time");
        if read.unwrap() == 0 {
            return None;
        }
        let event: Value = serde_json::from_str(&line).unwrap();
        Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()))
    }
}
