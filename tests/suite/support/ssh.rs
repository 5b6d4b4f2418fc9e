//! A real `sshd` on loopback, run for each connection as by inetd: no port of its own, no privileges, keys made for it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

/// A server that lets in who has the key `user`. Ends with the test's runtime.
pub struct SshServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Where the repositories are.
    base: PathBuf,
}

struct Shared {
    directory: TempDir,
    connections: AtomicUsize,
    hangs: AtomicBool,
    /// The host key that is shown.
    host_key: Mutex<&'static str>,
}

/// Makes a key in the file `name`; its public half is in `name.pub`.
pub fn keygen(directory: &Path, name: &str, kind: &str, passphrase: &str) {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", name])
        .current_dir(directory)
        .output()
        .expect("ssh-keygen");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl SshServer {
    /// Serves the repositories below `base`, pushes included.
    pub async fn start(base: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["host", "other-host", "user", "stranger"] {
            keygen(directory.path(), name, "ed25519", "");
        }
        let path = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "AuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nAcceptEnv GIT_PROTOCOL\n\
             PidFile none\nLogLevel ERROR\nPrintMotd no\n",
            path("user.pub")
        );
        std::fs::write(path("sshd_config"), config).expect("sshd_config");
        // As root it insists on this directory, which its service makes elsewhere. Others need none.
        let _ = std::fs::DirBuilder::new().mode(0o755).create("/run/sshd");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            directory,
            connections: AtomicUsize::new(0),
            hangs: AtomicBool::new(false),
            host_key: Mutex::new("host"),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, base: base.to_owned() }
    }

    /// The URL of the repository `release.git`, for whoever runs this test.
    pub fn url(&self) -> String {
        format!("ssh://{}@{}{}/release.git", user(), self.address, self.base.display())
    }

    /// Where it listens.
    pub fn host_and_port(&self) -> (String, u16) {
        (self.address.ip().to_string(), self.address.port())
    }

    /// A file that was made for it: `user`, `stranger`, `host.pub`.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.shared.directory.path().join(name)).expect(name)
    }

    /// Where such a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.shared.directory.path().join(name)
    }

    /// The line of `known_hosts` that pins `key`, `host.pub` say, for this server.
    pub fn known_hosts(&self, key: &str) -> String {
        format!("[{}]:{} {}", self.address.ip(), self.address.port(), self.read(key))
    }

    /// Shows another host key from now on.
    pub fn change_host_key(&self) {
        *self.shared.host_key.lock().expect("no poison") = "other-host";
    }

    /// Takes connections and says nothing from now on, or no longer.
    pub fn hang(&self, hangs: bool) {
        self.shared.hangs.store(hangs, Ordering::SeqCst);
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let mut silent = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let stream = stream.into_std().expect("a socket");
        if shared.hangs.load(Ordering::SeqCst) {
            silent.push(stream);
            continue;
        }
        stream.set_nonblocking(false).expect("a blocking socket");
        let input = OwnedFd::from(stream);
        let output = input.try_clone().expect("a socket twice");
        let key = *shared.host_key.lock().expect("no poison");
        let child = tokio::process::Command::new("/usr/sbin/sshd")
            .arg("-i")
            .arg("-f")
            .arg(shared.directory.path().join("sshd_config"))
            .arg("-h")
            .arg(shared.directory.path().join(key))
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("sshd: Debian's openssh-server has it");
        tokio::spawn(async move { child.wait().await });
    }
}

/// Who runs this test: nobody else may be logged in without privileges.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}
