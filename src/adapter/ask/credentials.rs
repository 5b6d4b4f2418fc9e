//! What those who measure are shown, by the address that is asked: one directory for each of them.
//!
//! A policy names addresses, and whoever writes one may name any. So it is the operator who says for which address each of
//! these is, in the file `url` beside it, and nobody else is ever shown it.
//!
//! | file | what it is |
//! |---|---|
//! | `url` | the address that it is for, and everything below: `https://prometheus.monitoring:9090/tenants/shop` |
//! | `bearerToken` | `Authorization: Bearer` |
//! | `username`, `password` | basic authentication |
//! | `ca.crt` | the only authorities to believe, instead of the machine's |
//! | `tls.crt`, `tls.key` | a client's certificate |

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Certificate, ClientBuilder, Identity, Url, header::HeaderValue};

use crate::{
    adapter::mounted::{Mounted, one_line, pair},
    core::ask::Unanswered,
};

/// The files that have a meaning.
const FILES: [&str; 7] = ["url", "bearerToken", "username", "password", "ca.crt", "tls.crt", "tls.key"];

/// What is shown to whoever is below an address. Never printed.
#[derive(Default)]
pub(super) struct Credentials {
    /// The name of their directory: what people are told of them.
    pub name: String,
    /// The value of `Authorization`.
    pub authorization: Option<HeaderValue>,
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    /// What must not come back in an answer.
    secrets: Vec<String>,
}

impl Credentials {
    /// Reads those that are for this address, of all that are below `root`: where several are, of the longest `url`.
    ///
    /// # Errors
    ///
    /// They cannot be used as they are, or it cannot be told for which address some are: nobody is asked then.
    pub async fn of(root: &Path, asked: &Url) -> Result<Option<Self>, Unanswered> {
        let (root, asked) = (root.to_owned(), asked.clone());
        let found = tokio::task::spawn_blocking(move || find(&root, &asked)).await;
        found.unwrap_or_else(|error| Err(error.to_string())).map_err(Unanswered::Credentials)
    }

    /// Returns whether they change whom a connection believes, or who it says that it is.
    pub fn concern_tls(&self) -> bool {
        self.identity.is_some() || !self.authorities.is_empty()
    }

    /// Lets a client's connections believe, and show, what these say.
    pub fn tls(&self, client: ClientBuilder) -> ClientBuilder {
        let client = match self.authorities.as_slice() {
            [] => client,
            authorities => client.tls_certs_only(authorities.iter().cloned()),
        };
        match &self.identity {
            Some(identity) => client.identity(identity.clone()),
            None => client,
        }
    }

    /// Takes what was shown out of an answer: what is measured goes into records, which everybody reads.
    pub fn redact(&self, body: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8_lossy(&body);
        if !self.secrets.iter().any(|secret| text.contains(secret.as_str())) {
            return body;
        }
        self.secrets.iter().fold(text.into_owned(), |text, secret| text.replace(secret.as_str(), "***")).into_bytes()
    }
}

/// A directory, and the address that it is for.
struct Bound {
    name: String,
    mounted: Mounted,
    below: Url,
}

fn find(root: &Path, asked: &Url) -> Result<Option<Credentials>, String> {
    let mut bound = Vec::new();
    for directory in directories(root)? {
        bound.extend(Bound::read(&directory)?.filter(|bound| is_below(asked, &bound.below)));
    }
    bound.sort_by_key(|bound| Reverse(bound.below.path().trim_end_matches('/').len()));
    let mut bound = bound.into_iter();
    let Some(first) = bound.next() else { return Ok(None) };
    match bound.next().filter(|other| path(&other.below) == path(&first.below)) {
        Some(other) => Err(format!("`{}` and `{}` are both for {}", first.name, other.name, first.below)),
        None => first.credentials().map(Some),
    }
}

/// Returns the directories below `root`, by name.
fn directories(root: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", root.display());
    let entries = std::fs::read_dir(root).map_err(cannot)?.collect::<Result<Vec<_>, _>>().map_err(cannot)?;
    let mut directories = Vec::new();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            // The kubelet's own begin so.
            if !name.starts_with("..") {
                directories.push(entry.path());
            }
        } else if FILES.contains(&name.as_str()) {
            return Err(format!("`{name}` lies in {}, and not in a directory below it", root.display()));
        }
    }
    directories.sort();
    Ok(directories)
}

impl Bound {
    /// Reads for whom a directory's files are; `None` where it has none of them, as where a Secret is not there yet.
    fn read(directory: &Path) -> Result<Option<Self>, String> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let told = |why: String| format!("`{name}`: {why}");
        let mounted = Mounted::open(directory).map_err(told)?;
        let Some(url) = one_line("url", mounted.bytes("url").map_err(told)?).map_err(told)? else {
            for file in FILES {
                if mounted.bytes(file).map_err(told)?.is_some() {
                    return Err(told("no file `url` says which address it is for".to_owned()));
                }
            }
            return Ok(None);
        };
        let below = Url::parse(&url).ok().filter(|url| {
            let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
            matches!(url.scheme(), "http" | "https") && is_plain && url.fragment().is_none()
        });
        // What is in it may be anything, a password too: it is not shown.
        let why = "its `url` is none like `https://prometheus.monitoring:9090`";
        let below = below.ok_or_else(|| told(why.to_owned()))?;
        Ok(Some(Self { name, mounted, below }))
    }

    fn credentials(self) -> Result<Credentials, String> {
        let Self { name, mounted, .. } = self;
        let told = |why: String| format!("`{name}`: {why}");
        let bytes = |file: &str| mounted.bytes(file).map_err(told);
        let line = |file: &str| one_line(file, bytes(file)?).map_err(told);
        let (bearer, user, password) = (line("bearerToken")?, line("username")?, line("password")?);
        let (authorization, mut secrets) = match (bearer, user, password) {
            (None, None, None) => (None, Vec::new()),
            (Some(token), None, None) => (Some(format!("Bearer {token}")), vec![token]),
            (None, Some(user), Some(password)) => {
                let both = STANDARD.encode(format!("{user}:{password}"));
                (Some(format!("Basic {both}")), vec![both, password])
            }
            (Some(_), ..) => return Err(told("there is a `bearerToken` and a login: which counts?".to_owned())),
            (None, Some(_), None) => return Err(told("there is a `username` without a `password`".to_owned())),
            (None, None, Some(_)) => return Err(told("there is a `password` without a `username`".to_owned())),
        };
        let header = authorization.map(|text| {
            let mut value = HeaderValue::try_from(text).map_err(|_| "is none that a header can have")?;
            value.set_sensitive(true);
            Ok::<_, &str>(value)
        });
        let authorization = header.transpose().map_err(|why| told(format!("what is to be shown {why}")))?;
        // In JSON some characters are written otherwise.
        let escaped =
            |secret: &String| serde_json::to_string(secret).map(|text| text.trim_matches('"').to_owned()).ok();
        let escaped: Vec<String> = secrets.iter().filter_map(escaped).filter(|one| !secrets.contains(one)).collect();
        secrets.extend(escaped);
        let authorities = match bytes("ca.crt")? {
            None => Vec::new(),
            Some(pem) => match Certificate::from_pem_bundle(&pem) {
                Ok(authorities) if !authorities.is_empty() => authorities,
                _ => return Err(told("`ca.crt` has no certificate".to_owned())),
            },
        };
        let pair = pair(bytes("tls.crt")?, bytes("tls.key")?).map_err(|why| told(why.to_owned()))?;
        let identity = pair.map(|(certificate, key)| Identity::from_pem(&[key, b"\n".to_vec(), certificate].concat()));
        let why = "`tls.crt` and `tls.key` are no certificate and its key".to_owned();
        let identity = identity.transpose().map_err(|_| told(why))?;
        Ok(Credentials { name, authorization, authorities, identity, secrets })
    }
}

fn path(url: &Url) -> &str {
    url.path().trim_end_matches('/')
}

/// Returns whether an address is another's, or below it: the same scheme, host and port, and the path as far as that goes.
fn is_below(asked: &Url, address: &Url) -> bool {
    let origin = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    if origin(asked) != origin(address) {
        return false;
    }
    match (path(address), asked.path()) {
        ("", _) => true,
        // A server may read an escaped `/` or `..` as such, and answer from beside it.
        (_, asked) if asked.contains('%') => false,
        (path, asked) => asked.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn below(asked: &str, address: &str) -> bool {
        is_below(&Url::parse(asked).unwrap(), &Url::parse(address).unwrap())
    }

    #[test]
    fn an_address_is_its_scheme_host_and_port_and_whole_names_of_its_path() {
        let address = "https://Prometheus.Monitoring/tenants/shop/";
        for asked in [
            "https://prometheus.monitoring/tenants/shop",
            "https://prometheus.monitoring:443/tenants/shop/api/v1/query?query=up",
            "https://prometheus.monitoring/tenants/./shop/x",
        ] {
            assert!(below(asked, address), "{asked}");
        }
        for asked in [
            "http://prometheus.monitoring/tenants/shop",
            "https://prometheus.monitoring:8443/tenants/shop",
            "https://prometheus.monitoring.evil.example/tenants/shop",
            "https://evil.example/prometheus.monitoring/tenants/shop",
            "https://prometheus.monitoring/tenants",
            "https://prometheus.monitoring/tenants/shoplifter",
            "https://prometheus.monitoring/tenants/shop/../other",
            "https://prometheus.monitoring/tenants/shop/%2e%2e/other",
            "https://prometheus.monitoring/tenants/shop/..%2fother",
            "https://prometheus.monitoring/tenants/shop/..\\other",
        ] {
            assert!(!below(asked, address), "{asked}");
        }
        assert!(below("https://prometheus.monitoring/a%2fb", "https://prometheus.monitoring"));
    }

    fn found(files: &[(&str, &str)], asked: &str) -> Result<Option<Credentials>, String> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        find(root.path(), &Url::parse(asked).unwrap())
    }

    #[test]
    fn the_longest_address_counts_and_two_of_one_are_an_error() {
        let files = [
            ("all/url", "https://mimir:9090\n"),
            ("all/bearerToken", "t-all\n"),
            ("empty/notes", "a Secret that has nothing yet"),
            ("shop/url", "https://mimir:9090/shop"),
            ("shop/username", "shop"),
            ("shop/password", "s3cret"),
        ];
        let of = |asked: &str| found(&files, asked).unwrap().map(|found| found.name);
        assert_eq!(of("https://mimir:9090/api"), Some("all".to_owned()));
        assert_eq!(of("https://mimir:9090/shop/api"), Some("shop".to_owned()));
        assert_eq!(of("https://mimir/shop/api"), None);
        let again = [&files[..], &[("twice/url", "https://mimir:9090/shop/")]].concat();
        let why = found(&again, "https://mimir:9090/shop/api").err().unwrap();
        assert!(why.contains("`shop` and `twice` are both for"), "{why}");
        assert!(found(&again, "https://mimir:9090/api").is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_told_without_showing_it() {
        let bad: [&[(&str, &str)]; 9] = [
            &[("a/bearerToken", "hunter2")],
            &[("bearerToken", "hunter2")],
            &[("a/url", "hunter2")],
            &[("a/url", "https://ada:hunter2@mimir")],
            &[("a/url", "https://mimir"), ("a/bearerToken", "hunter2\nhunter2")],
            &[("a/url", "https://mimir"), ("a/bearerToken", "hunter2"), ("a/password", "hunter2")],
            &[("a/url", "https://mimir"), ("a/username", "hunter2")],
            &[("a/url", "https://mimir"), ("a/ca.crt", "hunter2")],
            &[("a/url", "https://mimir"), ("a/tls.crt", "hunter2"), ("a/tls.key", "hunter2")],
        ];
        for files in bad {
            let why = found(files, "https://mimir/").err().unwrap();
            assert!(!why.contains("hunter2"), "{why}");
        }
        assert!(find(Path::new("/nowhere"), &Url::parse("https://mimir").unwrap()).is_err());
    }

    #[test]
    fn an_answer_that_repeats_them_does_not() {
        let files = [("a/url", "https://mimir"), ("a/username", "ada"), ("a/password", "s\"cret")];
        let credentials = found(&files, "https://mimir/").unwrap().unwrap();
        let redacted = |body: &str| String::from_utf8(credentials.redact(body.as_bytes().to_vec())).unwrap();
        assert_eq!(redacted(r#"{"said": "s\"cret"}"#), r#"{"said": "***"}"#);
        assert_eq!(redacted("Basic YWRhOnNcImNyZXQ="), "Basic YWRhOnNcImNyZXQ=", "of another password");
        let both = STANDARD.encode("ada:s\"cret");
        assert_eq!(redacted(&format!("Basic {both} s\"cret")), "Basic *** ***");
        assert_eq!(redacted("0.5"), "0.5");
    }
}
