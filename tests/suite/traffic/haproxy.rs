//! Debian's HAProxy, in front of listeners that stand for pods.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use locktender::{
    adapter::{
        ask::Outside,
        traffic::haproxy::{Instance, Proxies, TakeError, state},
    },
    core::{
        ask::{self, Ask, Proxy, Question, Unanswered},
        policy::Percent,
        traffic::{
            Answer,
            haproxy::{
                Asked, Command, Config, Member, Runtime, Server, State, Tell, TellError, Telling, Wanted, answer,
                commands, verify, weights,
            },
        },
    },
    sandbox::message::Head,
};
use serde_json::json;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Child,
    sync::Semaphore,
    task::JoinHandle,
};

use super::load::{Connection, Load, count};

/// A listener that stands for a pod.
struct Pod {
    name: String,
    version: String,
    address: SocketAddr,
    /// A request for `/slow` is answered once it gets one of these.
    permits: Arc<Semaphore>,
    task: JoinHandle<()>,
}

fn telling(asked: &Asked, wanted: &Wanted, seen: State) -> Telling {
    let commands = commands(wanted, &seen);
    Telling { asked: asked.clone(), seen, commands, why: String::new() }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pod {
    async fn start(name: &str, version: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let permits = Arc::new(Semaphore::new(0));
        let (gate, body) = (permits.clone(), json!({"version": version, "name": name}).to_string());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(stream, gate.clone(), body.clone()));
            }
        });
        Self { name: format!("pod:{name}"), version: version.to_owned(), address, permits, task }
    }
}

async fn converse(stream: TcpStream, gate: Arc<Semaphore>, body: String) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = Head::read(&mut stream).await {
        if request.word(1) == "/slow" {
            gate.acquire().await.unwrap().forget();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A HAProxy of a test's own.
pub struct Haproxy {
    pub config: Config,
    instance: Instance,
    child: Child,
    _directory: tempfile::TempDir,
}

fn program() -> PathBuf {
    // Debian puts it where people do not look.
    let places = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"];
    places.iter().map(PathBuf::from).find(|path| path.exists()).expect("haproxy, as .ci/run installs it")
}

impl Haproxy {
    /// Starts one without servers.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| Runtime::Unix(directory.path().join(name).display().to_string());
        let bind = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let asked = Asked { runtime: at("runtime.sock"), backend: "checkout".to_owned() };
        let config = Config { bind, asked, members: Vec::new() };
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, config.text().unwrap()).unwrap();
        let instance = Instance { program: program(), file, master: at("master.sock") };
        let child = spawn(&instance, directory.path());
        let haproxy = Self { config, instance, child, _directory: directory };
        haproxy.listens().await;
        haproxy
    }

    async fn listens(&self) {
        self.until("it listens", async |haproxy| state(&haproxy.config.asked).await.is_ok()).await;
    }

    /// Starts it anew: it knows what stands in its file, and no more.
    pub async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.until("the old one is gone", async |haproxy| TcpStream::connect(haproxy.config.bind).await.is_err()).await;
        self.child = spawn(&self.instance, self._directory.path());
        self.listens().await;
    }

    /// Asks until something holds.
    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let waiting = async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// What it says of its servers.
    pub async fn state(&self) -> State {
        state(&self.config.asked).await.unwrap()
    }

    /// Lets it answer scrapers, and returns where.
    pub async fn exposes_metrics(&self) -> SocketAddr {
        let bind = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let exporter =
            format!("\nfrontend metrics\n    bind {bind}\n    http-request use-service prometheus-exporter\n");
        self.instance.take(&(self.config.text().unwrap() + &exporter)).await.unwrap();
        bind
    }

    /// Asks, and tells what follows, once.
    async fn reconcile(&self, wanted: &Wanted) -> Answer {
        let _ = Proxies::default().tell(&telling(&self.config.asked, wanted, self.state().await)).await;
        verify(wanted, &self.state().await)
    }

    /// Tells it until it is as wanted.
    pub async fn settle(&self, wanted: &Wanted) {
        self.until("it is as wanted", async |haproxy| haproxy.reconcile(wanted).await == Answer::Yes).await;
    }
}

fn spawn(instance: &Instance, directory: &Path) -> Child {
    let Runtime::Unix(master) = &instance.master else { unreachable!() };
    let log = std::fs::File::create(directory.join("haproxy.log")).unwrap();
    let mut command = tokio::process::Command::new(&instance.program);
    command.arg("-W").arg("-S").arg(format!("{master},level,admin")).arg("-f").arg(&instance.file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn().unwrap()
}

/// Pods of both versions with weights that make a share of the second.
fn split(pods: &[Pod], percent: u8) -> Wanted {
    let sides = ["1", "2"].map(|version| pods.iter().filter(|pod| pod.version == version).count() as u32);
    let (new, old) = weights(Percent::new(percent).unwrap(), sides[1], sides[0]);
    let member = |pod: &Pod| {
        let weight = if pod.version == "2" { new } else { old };
        Member { name: pod.name.clone(), address: pod.address, weight }
    };
    Wanted { members: pods.iter().map(member).collect() }
}

async fn pods() -> Vec<Pod> {
    vec![
        Pod::start("a", "1").await,
        Pod::start("b", "1").await,
        Pod::start("c", "2").await,
        Pod::start("d", "2").await,
        Pod::start("e", "2").await,
    ]
}

/// A server as HAProxy tells of it, and the member that it should be.
fn told(weight: u32) -> (Server, Wanted) {
    let address = "127.0.0.1:8080".parse().unwrap();
    let (name, used) = ("pod:a".to_owned(), 0);
    let member = Member { name: name.clone(), address, weight: 20 };
    let address = Some(address);
    let server = Server { name, address, weight, runs: true, stopped: false, drains: false, used };
    (server, Wanted { members: vec![member] })
}

#[test]
fn a_yes_is_what_was_read_back_and_never_what_was_sent() {
    let verified = |change: fn(&mut Server)| {
        let (mut server, wanted) = told(20);
        change(&mut server);
        verify(&wanted, &State { servers: vec![server], told: false })
    };
    let not_yet = |why: &str| Answer::NotYet(why.to_owned());
    assert_eq!(verified(|_| {}), Answer::Yes);
    assert_eq!(verified(|server| server.weight = 80), not_yet("pod:a has weight 80, not 20"));
    assert_eq!(verified(|server| server.stopped = true), not_yet("pod:a takes no requests"));
    assert_eq!(verified(|server| server.drains = true), not_yet("pod:a takes no requests"));
    assert_eq!(verified(|server| server.runs = false), not_yet("HAProxy finds pod:a down"));
    assert_eq!(verified(|server| server.address = None), not_yet("pod:a is another pod's address"));
    assert_eq!(verified(|server| server.name = "pod:b".to_owned()), not_yet("HAProxy does not know pod:a"));
}

#[test]
fn a_server_goes_in_steps_and_one_that_is_not_ours_stays() {
    let (server, _) = told(20);
    let nobody = Wanted { members: Vec::new() };
    let next = |server: &Server| commands(&nobody, &State { servers: vec![server.clone()], told: false });
    let drains = Server { drains: true, ..server.clone() };
    assert_eq!(next(&server), [Command::Drain("pod:a".to_owned())]);
    assert_eq!(next(&Server { used: 2, ..drains.clone() }), [Command::Drain("pod:a".to_owned())]);
    assert_eq!(next(&drains), [Command::Maintenance("pod:a".to_owned())]);
    assert_eq!(next(&Server { stopped: true, ..drains }), [Command::Delete("pod:a".to_owned())]);
    assert_eq!(next(&Server { name: "sorry".to_owned(), ..server }), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_what_a_load_sees_and_no_request_fails_on_the_way() {
    let (haproxy, pods) = (Haproxy::start().await, pods().await);
    haproxy.settle(&split(&pods, 0)).await;
    let load = Load::start(haproxy.config.bind, 2, 2);
    for percent in [0, 20, 60, 100, 40] {
        haproxy.settle(&split(&pods, percent)).await;
        let seen = count(haproxy.config.bind, 500, &[]).await;
        let expected = 5 * usize::from(percent);
        assert!(seen.of("2").abs_diff(expected) <= 40, "{percent} %: {seen:?}");
        assert!(percent > 0 || seen.of("2") == 0, "{seen:?}");
        assert!(percent < 100 || seen.of("1") == 0, "{seen:?}");
    }
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_once_it_has_answered_what_it_had() {
    let (haproxy, pods) = (Haproxy::start().await, pods().await);
    haproxy.settle(&split(&pods[..1], 0)).await;
    let address = haproxy.config.bind;
    let mut kept = Connection::open(address).await.unwrap();
    assert_eq!(kept.get("/", &[]).await.unwrap().version(), "1");
    let slow = tokio::spawn(async move { Connection::open(address).await.unwrap().get("/slow", &[]).await });
    haproxy.until("the slow request is there", async |haproxy| haproxy.state().await.servers[0].used == 1).await;

    let wanted = split(&pods[2..], 100);
    let waits = Answer::NotYet("pod:a still answers 1 requests".to_owned());
    haproxy.until("it drains", async |haproxy| haproxy.reconcile(&wanted).await == waits).await;
    let load = Load::start(address, 1, 1);
    assert_eq!(count(address, 50, &[]).await.of("2"), 50);
    // Who kept a connection to HAProxy is answered by the new version, too.
    assert_eq!(kept.get("/", &[]).await.unwrap().version(), "2");
    assert_eq!(haproxy.reconcile(&wanted).await, waits);
    assert!(!slow.is_finished());

    pods[0].permits.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap().version(), "1");
    haproxy.settle(&wanted).await;
    haproxy
        .until("it is forgotten", async |haproxy| {
            haproxy.reconcile(&wanted).await;
            haproxy.state().await.servers.len() == 3
        })
        .await;
    let seen = load.stop().await;
    assert_eq!((seen.failed, seen.versions.contains_key("1")), (Vec::new(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restart_loses_is_noticed_and_told_again() {
    let (mut haproxy, pods) = (Haproxy::start().await, pods().await);
    let wanted = split(&pods, 20);
    haproxy.settle(&wanted).await;
    haproxy.restart().await;
    assert_eq!(verify(&wanted, &haproxy.state().await), Answer::NotYet("HAProxy does not know pod:a".to_owned()));
    haproxy.settle(&wanted).await;
    assert!(count(haproxy.config.bind, 200, &[]).await.of("2").abs_diff(40) <= 10);

    // Written into the configuration with other weights, the servers are there, and have those.
    let config = Config { members: split(&pods, 60).members, ..haproxy.config.clone() };
    haproxy.instance.take(&config.text().unwrap()).await.unwrap();
    haproxy.listens().await;
    let said = verify(&wanted, &haproxy.state().await);
    assert_eq!(said, Answer::NotYet("pod:a has weight 1, not 6".to_owned()));
    haproxy.settle(&wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_is_dead_and_an_error_that_looks_like_an_answer_are_no_yes() {
    let (mut haproxy, pods) = (Haproxy::start().await, pods().await);
    let wanted = split(&pods, 20);
    haproxy.settle(&wanted).await;
    let hear = async |asked: &Asked| {
        let question = Question::Proxy(Proxy { asked: asked.clone(), timeout: Duration::from_secs(5) });
        let result = Outside::default().ask(&question).await;
        answer(&wanted, Some(&ask::Answer { at: Timestamp::UNIX_EPOCH, result }))
    };
    let asked = haproxy.config.asked.clone();
    assert_eq!(hear(&asked).await, Answer::Yes);
    let elsewhere = Asked { backend: "payment".to_owned(), ..asked.clone() };
    let Answer::CannotTell(why) = hear(&elsewhere).await else { panic!() };
    assert!(why.contains("Can't find backend"), "{why}");
    let refused = Proxies::default().tell(&telling(&elsewhere, &wanted, State::default())).await;
    let Err(TellError::Unanswered(Unanswered::Garbage(why))) = refused else { panic!("{refused:?}") };
    assert!(why.contains("Can't find backend"), "{why}");
    let stale = Proxies::default().tell(&telling(&asked, &wanted, State::default())).await;
    assert!(matches!(stale, Err(TellError::Stale(_))), "decided on servers that are not so any more: {stale:?}");
    haproxy.child.kill().await.unwrap();
    haproxy.until("it is dead", async |haproxy| TcpStream::connect(haproxy.config.bind).await.is_err()).await;
    assert!(matches!(hear(&asked).await, Answer::CannotTell(_)));
    assert_eq!(answer(&wanted, None), Answer::NotYet("HAProxy was not asked yet".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_is_looked_at_before_it_is_taken_and_taken_without_a_lost_request() {
    let (haproxy, pods) = (Haproxy::start().await, pods().await);
    let with = |pods: &[Pod], percent| {
        Config { members: split(pods, percent).members, ..haproxy.config.clone() }.text().unwrap()
    };
    let first = with(&pods[..2], 0);
    haproxy.instance.take(&first).await.unwrap();
    haproxy.listens().await;
    let load = Load::start(haproxy.config.bind, 2, 2);
    assert_eq!(count(haproxy.config.bind, 20, &[]).await.of("1"), 20);

    let refused = haproxy.instance.take(&first.replace("balance roundrobin", "balance nonsense")).await.unwrap_err();
    let TakeError::Refused(why) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("balance only supports"), "{why}");
    assert_eq!(std::fs::read_to_string(&haproxy.instance.file).unwrap(), first);
    assert_eq!(count(haproxy.config.bind, 20, &[]).await.of("1"), 20);

    for percent in [100, 0, 100] {
        haproxy.instance.take(&with(&pods, percent)).await.unwrap();
        let all = if percent == 100 { "2" } else { "1" };
        assert_eq!(count(haproxy.config.bind, 20, &[]).await.of(all), 20);
    }
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
}

/// The command by which a person writes a configuration, and what it said.
async fn written(haproxy: &Haproxy, asked: &Asked, master: bool) -> (Option<i32>, String) {
    let (bind, instance) = (haproxy.config.bind, &haproxy.instance);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_locktender"));
    command.args(["haproxy", "--backend", &asked.backend]).arg("--runtime").arg(asked.runtime.to_string());
    command
        .arg("--bind")
        .arg(bind.to_string())
        .arg("--file")
        .arg(&instance.file)
        .arg("--program")
        .arg(&instance.program);
    if master {
        command.arg("--master").arg(instance.master.to_string());
    }
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_writes_down_the_servers_that_it_has_and_they_outlive_a_start() {
    let (mut haproxy, pods) = (Haproxy::start().await, pods().await);
    haproxy.settle(&split(&pods, 100)).await;
    let load = Load::start(haproxy.config.bind, 2, 2);
    let (code, said) = written(&haproxy, &haproxy.config.asked, true).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("haproxy.cfg is in place, with 5 servers\n"), "{said}");
    assert_eq!(count(haproxy.config.bind, 20, &[]).await.of("2"), 20);
    let seen = load.stop().await;
    assert_eq!(seen.failed, Vec::<String>::new());
    haproxy.restart().await;
    assert_eq!(verify(&split(&pods, 100), &haproxy.state().await), Answer::Yes);

    let before = std::fs::read_to_string(&haproxy.instance.file).unwrap();
    // A longer path than a socket can have: HAProxy finds it wrong.
    let runtime = Runtime::Unix(format!("/run/{}", "s".repeat(200)));
    let (code, said) = written(&haproxy, &Asked { runtime, ..haproxy.config.asked.clone() }, false).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("haproxy.cfg stays as it is: HAProxy refuses the configuration: "), "{said}");
    let (code, said) =
        written(&haproxy, &Asked { backend: "another".to_owned(), ..haproxy.config.asked.clone() }, true).await;
    assert_eq!(code, Some(1), "it has no such backend: {said}");
    assert_eq!(std::fs::read_to_string(&haproxy.instance.file).unwrap(), before);
}
