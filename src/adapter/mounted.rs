//! A directory with the files of a Secret, as the kubelet mounts one: what is secret comes to this process in no other way.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

/// No file of a Secret is larger, in bytes: so Kubernetes says.
const LARGEST: u64 = 1 << 20;

/// What is mounted, as it is at one moment.
///
/// The kubelet writes a Secret's files into a directory of their own and turns the link `..data` to it: what is read through
/// one of these is of one state, so that nothing of the new Secret is used beside something of the old one.
pub(super) struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    /// Opens a directory.
    ///
    /// # Errors
    ///
    /// It is not there, or may not be read.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let data = directory.join("..data");
        let directory = if data.is_dir() { data.canonicalize() } else { directory.canonicalize() };
        let opened = directory.and_then(|directory| std::fs::read_dir(&directory).map(|_| Self { directory }));
        opened.map_err(|error| error.to_string())
    }

    /// Reads a file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read, is larger than a Secret may be, or all of them were replaced meanwhile. Names the file.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.read(name).map_err(|why| format!("`{name}` {why}"))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let file = match File::open(self.directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return if self.directory.exists() {
                    Ok(None)
                } else {
                    Err("was replaced while it was read".to_owned())
                };
            }
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let mut content = Vec::new();
        let read = file.take(LARGEST + 1).read_to_end(&mut content);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if content.len() as u64 > LARGEST { Err("is too large".to_owned()) } else { Ok(Some(content)) }
    }
}

/// Takes what a file has for a text of one line, without the line end that editors and `echo` add.
///
/// # Errors
///
/// It is none. Names the file, and shows nothing of it.
pub(super) fn one_line(name: &str, content: Option<Vec<u8>>) -> Result<Option<String>, String> {
    let Some(content) = content else { return Ok(None) };
    let text = String::from_utf8(content).map_err(|_| format!("`{name}` is not text"))?;
    let text = text.trim_end_matches(['\n', '\r']);
    match text {
        "" => Err(format!("`{name}` is empty")),
        text if text.chars().any(char::is_control) => {
            Err(format!("`{name}` has more than one line, or control characters"))
        }
        text => Ok(Some(text.to_owned())),
    }
}

/// A client's certificate and its key, as PEM.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Puts a client's certificate and its key together.
///
/// # Errors
///
/// One is there without the other.
pub(super) fn pair(certificate: Option<Vec<u8>>, key: Option<Vec<u8>>) -> Result<Option<Pair>, &'static str> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err("there is a `tls.crt` without its `tls.key`"),
        (None, Some(_)) => Err("there is a `tls.key` without its `tls.crt`"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_replaced_is_read_before_or_after_and_never_in_part() {
        let root = tempfile::tempdir().unwrap();
        for state in ["old", "new"] {
            std::fs::create_dir(root.path().join(state)).unwrap();
            for name in ["url", "bearerToken"] {
                std::fs::write(root.path().join(state).join(name), state).unwrap();
            }
        }
        let turn = |state: &str| {
            let fresh = root.path().join("..data_tmp");
            symlink(state, &fresh).unwrap();
            std::fs::rename(fresh, root.path().join("..data")).unwrap();
        };
        turn("old");
        symlink("..data/url", root.path().join("url")).unwrap();
        let before = Mounted::open(root.path()).unwrap();
        assert_eq!(before.bytes("url"), Ok(Some(b"old".to_vec())));
        turn("new");
        assert_eq!(before.bytes("bearerToken"), Ok(Some(b"old".to_vec())));
        assert_eq!(before.bytes("password"), Ok(None));
        assert_eq!(Mounted::open(root.path()).unwrap().bytes("bearerToken"), Ok(Some(b"new".to_vec())));
        std::fs::remove_dir_all(root.path().join("old")).unwrap();
        assert!(before.bytes("bearerToken").unwrap_err().contains("was replaced"));
        assert!(Mounted::open(&root.path().join("nowhere")).is_err());
    }
}
