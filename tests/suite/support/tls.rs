//! An authority, and certificates that it signs: made with the `openssl` program, as an operator would.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// An authority that nobody believes without being told to.
pub struct Authority {
    directory: TempDir,
}

/// A certificate and its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

fn openssl(directory: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Authority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let subject = ["-subj", "/CN=Locktender test authority", "-days", "2"];
        let args = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt"];
        openssl(directory.path(), &[&args[..], &KEY, &subject].concat());
        Self { directory }
    }

    /// The authority's own certificate, as PEM.
    pub fn certificate(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("ca.crt")).expect("ca.crt")
    }

    /// Signs a certificate for `host`, an address or a name.
    pub fn identity(&self, host: &str) -> Identity {
        let kind = if host.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
        let (subject, names) = (format!("/CN={host}"), format!("subjectAltName={kind}:{host}\n"));
        let directory = self.directory.path();
        std::fs::write(directory.join("names"), names).expect("names");
        let request = ["req", "-keyout", "one.key", "-out", "one.csr", "-subj", &subject];
        openssl(directory, &[&request[..], &KEY].concat());
        let sign = ["x509", "-req", "-in", "one.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-out", "one.crt"];
        openssl(directory, &[&sign[..], &["-CAcreateserial", "-days", "2", "-extfile", "names"]].concat());
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect(name);
        Identity { certificate: read("one.crt"), key: read("one.key") }
    }

    /// What a server on 127.0.0.1 needs; one that asks for certificates of this authority if `clients` must have one.
    pub fn server(&self, clients: bool) -> Arc<ServerConfig> {
        let own = self.identity("127.0.0.1");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if clients {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.certificate().as_bytes()).expect("PEM")).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM");
        Arc::new(builder.with_single_cert(chain, key).expect("a certificate"))
    }
}

/// A listener whose connections speak TLS.
pub struct TlsListener {
    pub tcp: TcpListener,
    pub config: Arc<ServerConfig>,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.expect("a connection");
            match TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).into_fallible().await {
                Ok(stream) => return (stream, address),
                Err((_, mut stream)) => {
                    // Who is not believed was told why, and must be able to read it: closing at once would cut it off.
                    tokio::spawn(async move {
                        let _ = stream.shutdown().await;
                        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
