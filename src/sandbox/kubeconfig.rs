//! The kubeconfig by which clients reach the sandbox.

use std::{io, path::Path};

/// Returns a kubeconfig for a server at `url` (`http://127.0.0.1:8001`) that wants `token`.
///
/// The token is in the server's address as well: over plain HTTP `kubectl` sends it nowhere else.
pub fn render(url: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: locktender-sandbox\n  \
         cluster: {{server: \"{url}/{token}\"}}\n\
         users:\n\
         - name: locktender-sandbox\n  \
         user: {{token: \"{token}\"}}\n\
         contexts:\n\
         - name: locktender-sandbox\n  \
         context: {{cluster: locktender-sandbox, user: locktender-sandbox, namespace: default}}\n\
         current-context: locktender-sandbox\n"
    )
}

/// Writes a kubeconfig that only its owner can read.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn write(path: &Path, url: &str, token: &str) -> io::Result<()> {
    use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(render(url, token).as_bytes())
}
