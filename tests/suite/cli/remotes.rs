//! Remotes that people have: whole releases over HTTPS and SSH, and commands with the git configuration of who types
//! them.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::whole::{Running, World};
use super::{Shell, checkout, deployment};
use crate::support::git::{Clone, Remote};
use crate::support::git_servers::{HttpServer, basic};
use crate::support::ssh::SshServer;
use crate::support::tls::Authority;

/// Writes a file below `directory`, and returns where.
fn put(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Something that the remote does in the middle of a rollout.
struct Trouble<'a> {
    /// Begins it.
    begin: &'a dyn Fn(),
    /// What the controller's log says then.
    told: &'a str,
    /// What an operator does about it.
    mend: &'a dyn Fn(),
}

/// Installs 1.9 and releases 2.0, with trouble on the way: the controller by `url` and the credentials in `secret`, Ada by
/// her clone's origin.
fn releases(remote: &Remote, shell: &Shell, ada: &Clone, url: &str, trouble: &Trouble<'_>) {
    let file = |name: &str| shell.home.path().join(name).display().to_string();
    let (kubeconfig, mirror, secret) = (file("kubeconfig"), file("mirror"), file("secret"));
    let spawn = |args: &[&str], log: &str| {
        let mut command = shell.command(ada.path(), args);
        Running(command.stdout(Stdio::null()).stderr(File::create(log).unwrap()).spawn().unwrap())
    };
    let _sandbox = spawn(&["sandbox", "--kubeconfig", &kubeconfig], &file("sandbox.log"));
    while !Path::new(&kubeconfig).exists() {
        std::thread::yield_now();
    }
    let planned = shell.run(ada.path(), &["plan", "checkout"]);
    assert_eq!(planned.code, 0, "{}", planned.transcript());
    let run = ["run", "--repo", url, "--credentials", &secret, "--kubeconfig", &kubeconfig, "--mirror", &mirror];
    let log = file("controller.log");
    let _controller = spawn(&[&run[..], &["--push-interval", "50ms", "--poll", "500ms"]].concat(), &log);
    let world = World { shell, here: ada.path(), kubeconfig };
    let decide = |args: &[&str]| {
        let ran = shell.run(ada.path(), args);
        assert_eq!(ran.code, 0, "{}", ran.transcript());
    };
    world.waits_at("beta");
    decide(&["promote", "checkout"]);
    world.until("1.9 is installed", |status| status["activity"] == "stable" && status["stable"] == "1.9");

    // Ada's own pushes are not what is tested.
    let path = remote.url();
    loop {
        ada.git(&["pull", "--quiet", "--rebase", &path, "main"]);
        ada.write("apps/checkout/deployment.yaml", &deployment("2.0"));
        ada.commit("checkout 2.0");
        if ada.try_git(&["push", "--quiet", &path, "HEAD:main"]).is_ok() {
            break;
        }
    }
    world.until("2.0 waits", |status| status["activity"] == "waiting" && status["rollout"] == "checkout/0002");
    (trouble.begin)();
    let patience = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&log).unwrap().contains(trouble.told) {
        assert!(Instant::now() < patience, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::yield_now();
    }
    decide(&["confirm", "checkout", "-m", "error rate flat"]);
    let records = remote.read("rollouts/checkout/0002/journal.yaml").unwrap();
    (trouble.mend)();
    world.waits_at("batch-1");
    assert!(!records.contains("ConfirmAccepted"), "nothing went forward meanwhile: {records}");
    decide(&["promote", "checkout"]);
    world.until("2.0 is released", |status| status["activity"] == "stable" && status["stable"] == "2.0");
    let journal = remote.read("rollouts/checkout/0002/journal.yaml").unwrap();
    assert!(journal.contains("Completed"), "{journal}");
    let verified = shell.run(ada.path(), &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.transcript());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_41_a_release_over_https_whose_token_expires() {
    let (remote, ada) = checkout();
    let (shell, authority) = (Shell::new(), Authority::new());
    let server = HttpServer::start_tls(remote.base(), authority.server(false)).await;
    server.ask_for(basic("locktender", "t0ken"));
    server.ask_for(basic("ada", "hers"));
    let home = shell.home.path();
    put(home, "secret/username", "locktender\n");
    put(home, "secret/token", "t0ken\n");
    put(home, "secret/ca.crt", &authority.certificate());
    // Ada's are where git looks for them.
    let ca = put(home, "ca.crt", &authority.certificate());
    put(home, ".gitconfig", &format!("[credential]\n\thelper = store\n[http]\n\tsslCAInfo = {ca}\n"));
    let origin = server.url().replace("/release.git", "");
    put(home, ".git-credentials", &format!("{}\n", origin.replace("https://", "https://ada:hers@")));
    ada.git(&["remote", "set-url", "origin", &server.url()]);
    let old = basic("locktender", "t0ken");
    let trouble = Trouble {
        begin: &|| server.no_longer(&old),
        told: "the remote refuses access: fatal: Authentication failed",
        mend: &|| {
            server.ask_for(basic("locktender", "renewed"));
            put(home, "secret/token", "renewed\n");
        },
    };
    releases(&remote, &shell, &ada, &server.url(), &trouble);
    let refused = server.refused();
    // Looking for news and fetching it may have been under way at once, and again a minute later on a slow machine. The
    // remote was asked for news every half second.
    assert!(refused.len() <= 4, "no storm of tries: {refused:?}");
    assert!(refused.iter().all(|header| *header == old), "each used their own: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_47_a_release_over_ssh_whose_server_gets_another_key() {
    let (remote, ada) = checkout();
    let (shell, server) = (Shell::new(), SshServer::start(remote.base()).await);
    let home = shell.home.path();
    put(home, "secret/identity", &server.read("user"));
    put(home, "secret/known_hosts", &server.known_hosts("host.pub"));
    let both = server.known_hosts("host.pub") + &server.known_hosts("other-host.pub");
    let known = put(home, "known_hosts", &both);
    // Ada has a name for the server in her own configuration of ssh, and her clone says where that is.
    let (host, port) = server.host_and_port();
    let config = format!(
        "Host work\n HostName {host}\n Port {port}\n IdentityFile {}\n UserKnownHostsFile {known}\n",
        server.path("user").display()
    );
    let config = put(home, "ssh_config", &config);
    ada.git(&["config", "core.sshCommand", &format!("ssh -F {config}")]);
    ada.git(&["remote", "set-url", "origin", &format!("work:{}", remote.url())]);
    let trouble = Trouble {
        begin: &|| server.change_host_key(),
        told: "the remote is not trusted: ",
        mend: &|| drop(put(home, "secret/known_hosts", &server.known_hosts("other-host.pub"))),
    };
    releases(&remote, &shell, &ada, &server.url(), &trouble);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_may_be_with_an_agent() {
    let (remote, ada) = checkout();
    let (shell, server) = (Shell::new(), SshServer::start(remote.base()).await);
    let home = shell.home.path();
    put(home, "secret/known_hosts", &server.known_hosts("host.pub"));
    let secret = home.join("secret").display().to_string();
    let (url, socket) = (server.url(), home.join("agent"));
    let args = ["history", "--repo", &url, "--credentials", &secret];
    let without = shell.run(ada.path(), &args);
    assert!(without.stderr.contains("there is no `identity` for ssh://"), "{}", without.transcript());
    let mut agent = std::process::Command::new("ssh-agent");
    let agent = agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let _agent = Running(agent);
    while !socket.exists() {
        std::thread::yield_now();
    }
    let added = std::process::Command::new("ssh-add")
        .arg("-q")
        .arg(server.path("user"))
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .unwrap();
    assert!(added.success());
    let ran = shell.command(ada.path(), &args).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_without_credentials_is_told_and_not_asked() {
    let (remote, ada) = checkout();
    let (shell, server) = (Shell::new(), HttpServer::start(remote.base()).await);
    server.ask_for(basic("ada", "hers"));
    ada.git(&["remote", "set-url", "origin", &server.url()]);
    let ran = shell.run(ada.path(), &["history"]);
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    assert!(ran.stderr.contains("error: the remote refuses access"), "{}", ran.stderr);

    // What Ada told git once counts everywhere: here without a clone around.
    let home = shell.home.path();
    put(home, ".gitconfig", "[credential]\n\thelper = store\n");
    put(home, ".git-credentials", &format!("{}\n", server.url().replace("http://", "http://ada:hers@")));
    let ran = shell.run(home, &["history", "--repo", &server.url()]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    std::fs::remove_file(home.join(".gitconfig")).unwrap();

    // What tools put into the clone alone counts, too: a header, or a password in the URL.
    let origin = server.url().replace("/release.git", "");
    let header = format!("http.{origin}/.extraHeader");
    ada.git(&["config", &header, &format!("Authorization: {}", basic("ada", "hers"))]);
    let ran = shell.run(ada.path(), &["history"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    ada.git(&["config", "--unset", &header]);
    ada.git(&["remote", "set-url", "origin", &server.url().replace("http://", "http://ada:hers@")]);
    let ran = shell.run(ada.path(), &["history"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    ada.git(&["remote", "set-url", "origin", &server.url().replace("http://", "http://ada:wrong@")]);
    let ran = shell.run(ada.path(), &["history"]);
    assert_eq!(ran.code, 1, "{}", ran.transcript());
    assert!(!ran.stderr.contains("wrong"), "{}", ran.stderr);
}
