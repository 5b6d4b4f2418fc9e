//! `locktender.yaml`, and freezes.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Sourced,
    read::{Fields, Reader, dns_label, read_document},
    read_analysis::server,
};
use crate::core::{names::AppName, problem::Problem, yaml::Node};

/// What `locktender.yaml` says of a release repository. Everything has a default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where applications, policies and freezes lie.
    pub paths: Paths,
    /// The watched branch; `None` leaves it to the command line.
    pub branch: Option<String>,
    /// The least time between two pushes of records of going forward.
    pub push_interval: Duration,
    /// Who the controller's commits are by.
    pub identity: Identity,
    /// How many rollouts may be under way at once, over all applications; `None` is no limit.
    pub concurrent: Option<u32>,
    /// The address of the Prometheus that metrics ask which name none.
    pub prometheus: Option<String>,
}

/// Directories, from the repository's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// One directory an application.
    pub apps: String,
    /// One file a policy.
    pub policies: String,
    /// One file a freeze.
    pub freezes: String,
}

/// Who a commit is by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The e-mail address.
    pub email: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: Paths { apps: "apps".into(), policies: "policies".into(), freezes: "freezes".into() },
            branch: None,
            push_interval: Duration::from_secs(3),
            identity: Identity { name: "Locktender".into(), email: "locktender@localhost".into() },
            concurrent: None,
            prometheus: None,
        }
    }
}

/// A time in which nothing advances. Going back is never stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// The file's name without `.yaml`.
    pub name: String,
    /// When it starts; `None` is from the commit on.
    pub from: Option<Timestamp>,
    /// When it ends; `None` is when the file goes.
    pub until: Option<Timestamp>,
    /// Which applications; empty is all.
    pub applications: Vec<AppName>,
    /// Why, in the person's words.
    pub reason: Option<String>,
}

impl Freeze {
    /// Returns whether it holds `app` at `now`.
    pub fn applies(&self, app: &AppName, now: Timestamp) -> bool {
        let started = self.from.is_none_or(|from| from <= now);
        let ended = self.until.is_some_and(|until| until <= now);
        started && !ended && (self.applications.is_empty() || self.applications.contains(app))
    }
}

/// The fields of `locktender.yaml`.
pub(super) const SETTINGS: &[&str] =
    &["paths", "branch", "ledger", "rollouts", "identity", "metrics", "approvers", "clusters"];
/// The fields of its `rollouts`.
pub(super) const ROLLOUTS: &[&str] = &["concurrent"];
/// The largest limit that means anything.
pub(super) const MOST_CONCURRENT: u32 = 1_000_000;
/// The fields of a freeze's `spec`.
pub(super) const FREEZE: &[&str] = &["from", "until", "applications", "reason"];

/// Reads `locktender.yaml`.
///
/// # Errors
///
/// Everything that is wrong with the file.
pub fn read_settings(file: &str, bytes: &[u8]) -> Result<Settings, Vec<Problem>> {
    let read: Sourced<Settings> = read_document(file, bytes, |reader, document| {
        let fields = reader.fields(document, SETTINGS)?;
        let mut settings = Settings::default();
        reader.later(&fields, "approvers", "everybody who can push decides in this version");
        reader.later(&fields, "clusters", "there is one cluster in this version");
        if let Some(node) = fields.get("branch") {
            settings.branch = reader.checked(node, branch_name).map(str::to_owned);
        }
        if let Some(fields) = fields.get("paths").and_then(|node| reader.fields(node, &["apps", "policies", "freezes"]))
        {
            paths(reader, &fields, &mut settings.paths);
        }
        if let Some(fields) = fields.get("ledger").and_then(|node| reader.fields(node, &["branch", "pushInterval"])) {
            reader.later(&fields, "branch", "records are on the watched branch in this version");
            let interval = fields.get("pushInterval").and_then(|node| reader.duration(node));
            settings.push_interval = interval.unwrap_or(settings.push_interval);
        }
        if let Some(fields) = fields.get("rollouts").and_then(|node| reader.fields(node, ROLLOUTS)) {
            settings.concurrent = fields.get("concurrent").and_then(|node| reader.integer(node, 1..=MOST_CONCURRENT));
        }
        if let Some(fields) = fields.get("identity").and_then(|node| reader.fields(node, &["name", "email"])) {
            for (name, slot) in [("name", &mut settings.identity.name), ("email", &mut settings.identity.email)] {
                if let Some(text) = fields.get(name).and_then(|node| reader.checked(node, identity)) {
                    text.clone_into(slot);
                }
            }
        }
        let metrics = fields.get("metrics").and_then(|node| reader.fields(node, &["prometheus"]));
        let prometheus = metrics.and_then(|fields| reader.fields(fields.get("prometheus")?, &["url"]));
        if let Some(node) = prometheus.and_then(|fields| reader.required(&fields, "url")) {
            settings.prometheus = reader.checked(node, server).map(str::to_owned);
        }
        Some(settings)
    })?;
    Ok(read.value)
}

fn paths(reader: &mut Reader<'_>, fields: &Fields<'_>, paths: &mut Paths) {
    let mut taken: Vec<String> = vec!["rollouts".to_owned()];
    for (name, slot) in [("apps", &mut paths.apps), ("policies", &mut paths.policies), ("freezes", &mut paths.freezes)]
    {
        let node = fields.get(name);
        if let Some(text) = node.and_then(|node| reader.checked(node, directory)) {
            text.trim_end_matches('/').clone_into(slot);
        }
        let inside = |other: &String| format!("{slot}/").starts_with(&format!("{other}/"));
        let around = |other: &String| format!("{other}/").starts_with(&format!("{slot}/"));
        if let Some(other) = taken.iter().find(|other| inside(other) || around(other)) {
            let span = node.map_or(fields.span, |node| node.span);
            reader.problem(span, format!("`{slot}` and `{other}` lie in each other"));
        }
        taken.push(slot.clone());
    }
}

fn directory(text: &str) -> Result<(), String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let fits = path.split('/').all(|part| !matches!(part, "" | "." | ".." | ".git"));
    if fits { Ok(()) } else { Err(format!("`{text}` is no directory from the repository's root")) }
}

/// Checks a branch's name as `git check-ref-format` does.
fn branch_name(text: &str) -> Result<(), String> {
    let wrong_character = |character: char| character.is_control() || " ~^:?*[\\\x7f".contains(character);
    let wrong_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let wrong = text.starts_with('-')
        || text.ends_with('.')
        || text == "@"
        || text.len() > 200
        || text.contains("..")
        || text.contains("@{")
        || text.contains(wrong_character)
        || text.split('/').any(wrong_part);
    if wrong { Err(format!("`{}` is no branch's name", text.escape_debug())) } else { Ok(()) }
}

fn identity(text: &str) -> Result<(), String> {
    let wrong = text.contains(['<', '>', '\n', '\r']) || text.chars().any(char::is_control);
    if wrong { Err("a name or address in a commit has no `<`, `>` or line break".to_owned()) } else { Ok(()) }
}

/// Reads `freezes/<name>.yaml`. An empty file stops everything for as long as it is there.
///
/// # Errors
///
/// Everything that is wrong with the file. The caller must treat a freeze that does not read as one that applies.
pub fn read_freeze(file: &str, bytes: &[u8]) -> Result<Freeze, Vec<Problem>> {
    let base = file.rsplit('/').next().unwrap_or(file);
    let name = base.strip_suffix(".yaml").unwrap_or(base);
    let all = Freeze { name: name.to_owned(), from: None, until: None, applications: Vec::new(), reason: None };
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(all);
    }
    let read: Sourced<Freeze> = read_document(file, bytes, |reader, document| {
        let spec = reader.envelope(document, "Freeze", name, "file")?;
        let fields = reader.fields(spec, FREEZE)?;
        let from = fields.get("from").and_then(|node| time(reader, node));
        let until = fields.get("until").and_then(|node| time(reader, node));
        if let (Some(from), Some(until), Some(node)) = (from, until, fields.get("until"))
            && until <= from
        {
            reader.problem(node.span, "it ends before it starts");
        }
        let applications = fields.get("applications").and_then(|node| reader.list(node)).unwrap_or_default();
        let applications: Vec<AppName> =
            applications.iter().filter_map(|node| reader.checked(node, dns_label)).map(AppName::new).collect();
        let reason = fields.get("reason").and_then(|node| reader.text(node)).map(str::to_owned);
        Some(Freeze { from, until, applications, reason, ..all })
    })?;
    Ok(read.value)
}

fn time(reader: &mut Reader<'_>, node: &Node) -> Option<Timestamp> {
    let text = reader.text(node)?;
    let time = text.parse().ok();
    if time.is_none() {
        reader.problem(node.span, format!("`{text}` is no time")).label =
            Some("write it like `2026-12-24T12:00:00Z`".to_owned());
    }
    time
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_for_everything() {
        let read = read_settings(
            "locktender.yaml",
            b"ledger: {pushInterval: 500ms}\npaths: {apps: releases/apps}\nrollouts: {concurrent: 5}\n",
        );
        let expected = Settings {
            push_interval: Duration::from_millis(500),
            paths: Paths { apps: "releases/apps".into(), ..Settings::default().paths },
            concurrent: Some(5),
            ..Settings::default()
        };
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn fault_58_a_limit_of_nothing_is_refused_where_it_is_written() {
        for (text, at) in [("0", "1:24"), ("-1", "1:24"), ("1.5", "1:24"), ("\"5\"", "1:24"), ("9999999999", "1:24")] {
            let problems = read_settings("locktender.yaml", format!("rollouts: {{concurrent: {text}}}\n").as_bytes());
            let problem = problems.unwrap_err().remove(0).to_string();
            assert!(problem.starts_with(&format!("locktender.yaml:{at}: error: ")), "{problem}");
        }
        let unknown =
            read_settings("locktender.yaml", b"rollouts: {concurent: 5}\n").unwrap_err().remove(0).to_string();
        assert!(unknown.contains("concurent") && unknown.contains("1:12"), "{unknown}");
    }

    #[test]
    fn fault_44_branches_and_directories_that_are_none_are_refused() {
        for name in ["-x", "a..b", "a.lock", "a b", "a//b", "/a", "a\\nb", "@", "a@{b", ".a"] {
            let text = format!("branch: \"{name}\"\n");
            assert!(read_settings("locktender.yaml", text.as_bytes()).is_err(), "{name}");
        }
        for path in ["/apps", "../apps", "a/../b", ".", "rollouts", "policies", ".git", "policies/x"] {
            let text = format!("paths: {{apps: \"{path}\"}}\n");
            assert!(read_settings("locktender.yaml", text.as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_freeze_holds_in_its_time() {
        let text = "apiVersion: locktender.dev/v1alpha1
kind: Freeze
metadata: {name: holidays}
spec: {from: 2026-12-24T00:00:00Z, until: 2026-12-27T00:00:00Z, applications: [checkout]}
";
        let freeze = read_freeze("freezes/holidays.yaml", text.as_bytes()).unwrap();
        let at = |time: &str| time.parse::<Timestamp>().unwrap();
        assert!(!freeze.applies(&"checkout".into(), at("2026-12-23T23:59:59Z")));
        assert!(freeze.applies(&"checkout".into(), at("2026-12-24T00:00:00Z")));
        assert!(!freeze.applies(&"search".into(), at("2026-12-25T00:00:00Z")));
        assert!(!freeze.applies(&"checkout".into(), at("2026-12-27T00:00:00Z")));
        let all = read_freeze("freezes/now.yaml", b"").unwrap();
        assert!(all.applies(&"search".into(), at("2026-12-25T00:00:00Z")));
    }
}
