//! From positioned YAML to checked values: every wrong field is one problem, and all are found in one pass.

use std::{ops::RangeInclusive, time::Duration};

use super::{API_VERSION, HumanDuration, IntOrPercent, Percent};
use crate::core::{
    problem::Problem,
    yaml::{Data, Entry, Limits, Node, Span, parse},
};

/// A checked value with the document that it was read from, so that what is found later still has a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Sourced<T> {
    /// The path from the repository's root.
    pub file: String,
    /// What was read.
    pub value: T,
    document: Node,
}

impl<T> Sourced<T> {
    /// Builds a problem with the value that a path of keys and indexes names.
    pub fn problem(&self, path: &[&str], message: impl Into<String>) -> Problem {
        let node = path.iter().try_fold(&self.document, |node, step| {
            node.get(step).or_else(|| step.parse::<usize>().ok().and_then(|index| node.items().get(index)))
        });
        let span = node.map_or_else(|| self.document.place(path), |node| node.span);
        Problem::at(&self.file, span.into(), message)
    }

    /// Builds a problem with the key that a path of keys names.
    pub fn problem_with_key(&self, path: &[&str], message: impl Into<String>) -> Problem {
        Problem::at(&self.file, self.document.place(path).into(), message)
    }
}

/// Collects what is wrong with one file.
pub(super) struct Reader<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

/// Reads the one document of a file and has `read` make a value of it. `read` may use any default where it found
/// something wrong: with a problem its value is dropped.
pub(super) fn read_document<T>(
    file: &str,
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
) -> Result<Sourced<T>, Vec<Problem>> {
    let mut documents = parse(file, bytes, &Limits::SETTINGS).map_err(|problem| vec![problem])?.into_iter();
    let Some(document) = documents.next() else {
        return Err(vec![Problem::in_file(file, "it is empty")]);
    };
    if let Some(second) = documents.next() {
        return Err(vec![Problem::at(file, second.span.into(), "there is a second document").label("one file, one")]);
    }
    let mut reader = Reader { file, problems: Vec::new() };
    let value = read(&mut reader, &document);
    match value {
        Some(value) if reader.problems.is_empty() => Ok(Sourced { file: file.to_owned(), value, document }),
        _ => Err(reader.problems),
    }
}

impl Reader<'_> {
    /// Notes a problem and returns it, for a label or help.
    pub(super) fn problem(&mut self, span: Span, message: impl Into<String>) -> &mut Problem {
        self.problems.push(Problem::at(self.file, span.into(), message));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn labelled(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.problem(span, message).label = Some(label.into());
    }

    /// Checks `apiVersion`, `kind` and `metadata.name`, which must be `name`, and returns `spec`.
    pub(super) fn envelope<'n>(&mut self, document: &'n Node, kind: &str, name: &str, from: &str) -> Option<&'n Node> {
        let fields = self.fields(document, &["apiVersion", "kind", "metadata", "spec"])?;
        self.constant(&fields, "apiVersion", API_VERSION);
        self.constant(&fields, "kind", kind);
        if let Some(metadata) = self.required(&fields, "metadata")
            && let Some(metadata) = self.fields(metadata, &["name", "labels", "annotations"])
            && let Some(node) = self.required(&metadata, "name")
            && let Some(text) = self.text(node)
            && text != name
        {
            self.labelled(
                node.span,
                format!("the name is `{text}`, but the {from} is `{name}`"),
                "they must be the same",
            );
        }
        self.required(&fields, "spec")
    }

    fn constant(&mut self, fields: &Fields<'_>, name: &str, expected: &str) {
        if let Some(node) = self.required(fields, name)
            && let Some(text) = self.text(node)
            && text != expected
        {
            self.labelled(node.span, format!("`{name}` is `{text}`"), format!("write `{expected}`"));
        }
    }

    /// Takes a map whose keys are all in `known`.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, known: &'static [&'static str]) -> Option<Fields<'n>> {
        let entries = self.map(node)?;
        for entry in entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let label = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.labelled(entry.key_span, format!("unknown field `{}`", entry.key), label);
        }
        Some(Fields { span: node.span, entries })
    }

    /// Takes a map with any keys.
    pub(super) fn map<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        match &node.data {
            Data::Map(entries) => Some(entries),
            _ => self.wrong_type(node, "a map"),
        }
    }

    /// Takes a field that must be there.
    pub(super) fn required<'n>(&mut self, fields: &Fields<'n>, name: &str) -> Option<&'n Node> {
        let node = fields.get(name);
        if node.is_none() {
            self.problem(fields.span, format!("`{name}` is missing"));
        }
        node
    }

    /// Refuses a field that has a meaning, but none in this version.
    pub(super) fn later(&mut self, fields: &Fields<'_>, name: &str, label: &str) {
        if let Some(entry) = fields.entry(name) {
            self.labelled(entry.key_span, format!("`{name}` comes later"), label);
        }
    }

    fn wrong_type<T>(&mut self, node: &Node, wanted: &str) -> Option<T> {
        let label = if node.is_null() { "write a value, or leave the field out" } else { "" };
        let problem = self.problem(node.span, format!("expected {wanted}, found {}", node.type_name()));
        problem.label = (!label.is_empty()).then(|| label.to_owned());
        None
    }

    /// Takes a list.
    pub(super) fn list<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.data {
            Data::List(items) => Some(items),
            _ => self.wrong_type(node, "a list"),
        }
    }

    /// Takes a text that is not empty.
    pub(super) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.data {
            Data::Text(text) if text.is_empty() => {
                self.labelled(node.span, "this is empty", "write a value, or leave the field out");
                None
            }
            Data::Text(text) => Some(text),
            Data::Bool(_) | Data::Number(_) => {
                self.labelled(node.span, format!("expected a text, found {}", node.type_name()), "put it in quotes");
                None
            }
            _ => self.wrong_type(node, "a text"),
        }
    }

    /// Takes a text that `check` finds nothing wrong with.
    pub(super) fn checked<'n>(&mut self, node: &'n Node, check: fn(&str) -> Result<(), String>) -> Option<&'n str> {
        let text = self.text(node)?;
        match check(text) {
            Ok(()) => Some(text),
            Err(message) => {
                self.problem(node.span, message);
                None
            }
        }
    }

    /// Takes a boolean.
    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.data {
            Data::Bool(value) => Some(value),
            _ => self.wrong_type(node, "`true` or `false`"),
        }
    }

    /// Takes one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, choices: &[(&'static str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        // `no`, `off` and the like are booleans: no choice has such a name.
        let text = match &node.data {
            Data::Text(text) => text,
            _ => return self.wrong_type(node, &format!("one of {}", words().collect::<Vec<_>>().join(", "))),
        };
        let found = choices.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            let label = match nearest(text, words()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of {}", words().collect::<Vec<_>>().join(", ")),
            };
            self.labelled(node.span, format!("unknown value `{text}`"), label);
        }
        found
    }

    /// Takes a whole number in a range.
    pub(super) fn integer(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<u32> {
        let number = match &node.data {
            Data::Number(number) => number,
            Data::Text(text) if text.parse::<u32>().is_ok() => {
                self.labelled(node.span, "expected a number, found a text", "write it without quotes");
                return None;
            }
            _ => return self.wrong_type(node, "a number"),
        };
        let value = number.as_u64().and_then(|value| u32::try_from(value).ok()).filter(|value| range.contains(value));
        if value.is_none() {
            let label = format!("a whole number from {} to {}", range.start(), range.end());
            self.labelled(node.span, format!("{number} is out of range"), label);
        }
        value
    }

    /// Takes whole seconds in a range.
    pub(super) fn seconds(&mut self, node: &Node, range: RangeInclusive<u32>) -> Option<Duration> {
        if let Some(text) = node.text().filter(|text| HumanDuration::parse(text).is_ok()) {
            self.labelled(node.span, format!("`{text}` is a duration"), "this field takes whole seconds");
            return None;
        }
        self.integer(node, range).map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// Takes a duration with its unit.
    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = match &node.data {
            Data::Number(number) => &number.to_string(),
            _ => self.text(node)?,
        };
        match HumanDuration::parse(text) {
            Ok(duration) => Some(duration.get()),
            Err(message) => {
                self.problem(node.span, message);
                None
            }
        }
    }

    /// Takes a percentage, `25%`, from `least` to 100.
    pub(super) fn percent(&mut self, node: &Node, least: u8) -> Option<Percent> {
        let wrong = match &node.data {
            Data::Text(text) => match percentage(text) {
                Ok(percent) if percent.get() >= least => return Some(percent),
                Ok(_) => format!("at least {least}%"),
                Err(label) => label,
            },
            Data::Number(number) => format!("write `{number}%`"),
            _ => return self.wrong_type(node, "a percentage"),
        };
        let shown = match &node.data {
            Data::Text(text) => format!("`{text}`"),
            _ => "a bare number".to_owned(),
        };
        self.labelled(node.span, format!("{shown} is no percentage that fits here"), wrong);
        None
    }

    /// Takes a count or a percentage, each at least `least`.
    pub(super) fn int_or_percent(&mut self, node: &Node, least: u8) -> Option<IntOrPercent> {
        match &node.data {
            Data::Text(text) if text.contains('%') => self.percent(node, least).map(IntOrPercent::Percent),
            Data::Number(_) => self.integer(node, u32::from(least)..=MOST_PODS).map(IntOrPercent::Count),
            Data::Text(text) => {
                let label = "write a count like `4`, or a percentage like `25%`";
                self.labelled(node.span, format!("`{text}` is neither a count nor a percentage"), label);
                None
            }
            _ => self.wrong_type(node, "a count or a percentage"),
        }
    }
}

/// More pods than any cluster has.
pub(super) const MOST_PODS: u32 = 1_000_000;

/// Reads `25%`.
fn percentage(text: &str) -> Result<Percent, String> {
    let Some(digits) = text.strip_suffix('%') else { return Err(format!("write `{text}%`")) };
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
        let percent = digits.parse::<u8>().ok().and_then(Percent::new);
        return percent.ok_or_else(|| "at most 100%".to_owned());
    }
    let trimmed = digits.trim();
    if trimmed != digits && trimmed.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("write `{trimmed}%`, without a space"));
    }
    Err("a whole number from 0 to 100, and `%`".to_owned())
}

/// The members of a map whose keys were checked.
pub(super) struct Fields<'n> {
    pub(super) span: Span,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// Returns how many members there are, unknown ones too.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn entry(&self, name: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == name)
    }
}

/// Returns the known name that is nearest to what was written, where one is near enough to be meant.
pub fn nearest<'n>(written: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = written.to_lowercase();
    let near = known.into_iter().map(|name| (distance(&lower, &name.to_lowercase()), name)).min_by_key(|(d, _)| *d);
    let (distance, name) = near?;
    (distance <= (name.chars().count() / 3).max(1)).then_some(name)
}

/// Returns how many characters must be put in, left out, replaced or swapped with the next (Damerau, restricted).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

/// Checks an RFC 1123 label, which names of applications and policies are: they become labels and parts of names.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
    let fits =
        text.len() <= 63 && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().next_back());
    if fits {
        Ok(())
    } else {
        Err(format!("`{text}` is no name: at most 63 lower-case letters, digits and `-`, no `-` first or last"))
    }
}

/// Checks an RFC 1123 subdomain, which names of most objects are.
pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() <= 253 && text.split('.').all(|part| dns_label(part).is_ok()) {
        Ok(())
    } else {
        Err(format!(
            "`{text}` is no name: lower-case letters, digits, `-` and `.`, each part begins and ends with one of the former"
        ))
    }
}

/// Checks the value of a label, which a unit is.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits =
        text.len() <= 63 && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().next_back());
    if fits { Ok(()) } else { Err(format!("`{text}` cannot be a label's value")) }
}

/// Checks the name of a label or finalizer: an optional domain and `/`, then a name.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    let domain_fits = domain.is_none_or(|domain| dns_subdomain(domain).is_ok());
    if domain_fits && label_value(name).is_ok() {
        Ok(())
    } else {
        Err(format!("`{text}` is no qualified name: write it like `slb.example.com/protected`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_56_the_nearest_name_is_the_one_that_was_meant() {
        let known = ["maxUnavailable", "batchSize", "confirm", "beta"];
        let table = [
            ("maxUnavailble", Some("maxUnavailable")),
            ("batchsize", Some("batchSize")),
            ("bacthSize", Some("batchSize")),
            ("confirms", Some("confirm")),
            ("steps", None),
            ("", None),
        ];
        for (written, expected) in table {
            assert_eq!(nearest(written, known), expected, "{written}");
        }
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn fault_58_percentages_that_do_not_fit_say_what_to_write() {
        let table = [
            ("25%", Ok(25)),
            ("0%", Ok(0)),
            ("100%", Ok(100)),
            ("101%", Err("at most 100%")),
            ("99999999999999999999%", Err("at most 100%")),
            ("25 %", Err("write `25%`, without a space")),
            ("-5%", Err("a whole number from 0 to 100, and `%`")),
            ("2.5%", Err("a whole number from 0 to 100, and `%`")),
            ("NaN%", Err("a whole number from 0 to 100, and `%`")),
            ("%", Err("a whole number from 0 to 100, and `%`")),
            ("25", Err("write `25%`")),
        ];
        for (text, expected) in table {
            assert_eq!(percentage(text).map(Percent::get), expected.map_err(str::to_owned), "{text}");
        }
    }
}
