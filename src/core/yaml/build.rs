//! From the parser's events to nodes, within limits.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError};

use super::{
    Data, Entry, Node, Span,
    scalar::{self, Tag},
};
use crate::core::problem::Problem;

/// How much is read before giving up: every limit answers in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole file.
    pub bytes: usize,
    /// How deep maps and lists may be nested.
    pub depth: usize,
    /// Documents in one file.
    pub documents: usize,
    /// Values that aliases and merge keys may stand for, in the whole file.
    pub aliased: usize,
}

impl Limits {
    /// For manifests, rendered ones too.
    pub const MANIFESTS: Self = Self { bytes: 16 << 20, depth: 64, documents: 10_000, aliased: 50_000 };
    /// For the small files that people write for Locktender itself.
    pub const SETTINGS: Self = Self { bytes: 256 << 10, depth: 16, documents: 10, aliased: 1_000 };
}

/// Reads all documents of a file; empty ones are left out.
///
/// # Errors
///
/// The first thing that is wrong, with its place.
pub fn parse(file: &str, bytes: &[u8], limits: &Limits) -> Result<Vec<Node>, Problem> {
    let text = decode(file, bytes, limits)?;
    let mut options = granit_parser::options! {
        flow_nesting_limit: limits.depth + 1,
        block_nesting_limit: limits.depth + 1,
    };
    options.set_emit_comments(false);
    let mut builder =
        Builder { file, limits, stack: Vec::new(), anchors: HashMap::new(), aliased: 0, done: Vec::new() };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| scan_problem(file, text, &error))?;
        let place = Span {
            line: number(span.start.line()),
            column: number(span.start.col() + 1),
            length: number(span.len()).max(1),
        };
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                builder.anchors.clear();
                if documents > limits.documents {
                    let message = format!("there are more than {} documents in one file", limits.documents);
                    return Err(Problem::at(file, place.into(), message));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map_or(Tag::None, |tag| match tag.core_suffix() {
                    Some(suffix) => Tag::from_core(suffix),
                    None => Tag::Other,
                });
                let plain = style == ScalarStyle::Plain;
                let is_merge = plain && tag == Tag::None && text == "<<";
                let data = scalar::resolve(&text, plain, tag)
                    .map_err(|message| Problem::at(file, place.into(), message).label("a text goes into quotes"))?;
                builder.scalar(Node { span: place, data }, anchor, is_merge)?;
            }
            Event::SequenceStart(_, anchor, _) => builder.open(place, anchor, Part::List(Vec::new()))?,
            Event::MappingStart(_, anchor, _) => builder.open(place, anchor, Part::map())?,
            Event::SequenceEnd | Event::MappingEnd => builder.close()?,
            Event::Alias(anchor) => builder.alias(place, anchor)?,
            _ => {}
        }
    }
    Ok(builder.done)
}

/// Lines, columns and lengths fit: the file's size is limited.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Returns the text without a byte order mark, or says which byte is none.
fn decode<'a>(file: &str, bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Problem> {
    if bytes.len() > limits.bytes {
        let message = format!("it has {} bytes, more than the {} that are read", bytes.len(), limits.bytes);
        return Err(Problem::in_file(file, message));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(Problem::in_file(file, "it is UTF-16").help("save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("byte 0x{:02x} is no UTF-8", bytes.get(at).copied().unwrap_or_default());
        Problem::at(file, position(&bytes[..at]), message).help("save it as UTF-8")
    })?;
    match text.find('\0') {
        Some(at) => Err(Problem::at(file, position(&bytes[..at]), "there is a NUL character")),
        None => Ok(text),
    }
}

/// Returns line and column of the character after `before`.
fn position(before: &[u8]) -> (u32, u32, u32) {
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (number(line), number(column), 1)
}

fn scan_problem(file: &str, text: &str, error: &ScanError) -> Problem {
    let mark = error.marker();
    let line = text.lines().nth(mark.line().saturating_sub(1)).unwrap_or_default();
    let blank = line.len() - line.trim_start().len();
    let tab = line[..blank].chars().position(|character| character == '\t');
    let mut place = (number(mark.line()), number(mark.col() + 1), 1);
    let message = match (error.kind(), tab) {
        (ErrorKind::RecursionLimitExceeded, _) => "maps and lists are nested too deeply".to_owned(),
        (_, Some(column)) => {
            place.1 = number(column + 1);
            "a tab cannot indent".to_owned()
        }
        _ => error.info(),
    };
    let problem = Problem::at(file, place, message);
    if tab.is_some() { problem.label("write spaces") } else { problem }
}

/// A map or list that is not complete yet.
struct Frame {
    span: Span,
    anchor: usize,
    part: Part,
}

enum Part {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Span, bool)>, names: Names, merged: HashSet<String> },
}

impl Part {
    fn map() -> Self {
        Self::Map { entries: Vec::new(), key: None, names: Names::default(), merged: HashSet::new() }
    }
}

/// The keys of one map, hashed only when there are many.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    const FEW: usize = 16;

    fn is_new(&mut self, entries: &[Entry], key: &str) -> bool {
        if entries.len() < Self::FEW {
            return entries.iter().all(|entry| entry.key != key);
        }
        if self.0.is_empty() {
            self.0.extend(entries.iter().map(|entry| entry.key.clone()));
        }
        self.0.insert(key.to_owned())
    }
}

struct Builder<'a> {
    file: &'a str,
    limits: &'a Limits,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    done: Vec<Node>,
}

impl Builder<'_> {
    fn problem(&self, span: Span, message: impl Into<String>) -> Problem {
        Problem::at(self.file, span.into(), message)
    }

    fn open(&mut self, span: Span, anchor: usize, part: Part) -> Result<(), Problem> {
        if let Some(Frame { part: Part::Map { key: None, .. }, .. }) = self.stack.last() {
            return Err(self.problem(span, "a key must be a text, not a list or a map"));
        }
        if self.stack.len() >= self.limits.depth {
            return Err(self.problem(span, "maps and lists are nested too deeply"));
        }
        self.stack.push(Frame { span, anchor, part });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(Frame { span, anchor, part }) = self.stack.pop() else { return Ok(()) };
        let data = match part {
            Part::List(items) => Data::List(items),
            Part::Map { entries, .. } => Data::Map(entries),
        };
        self.value(Node { span, data }, anchor)
    }

    fn scalar(&mut self, node: Node, anchor: usize, is_merge: bool) -> Result<(), Problem> {
        let wants_key = matches!(self.stack.last(), Some(Frame { part: Part::Map { key: None, .. }, .. }));
        if !wants_key {
            return self.value(node, anchor);
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let span = node.span;
        let name = scalar::key(node.data).map_err(|message| self.problem(span, message))?;
        if let Some(Frame { part: Part::Map { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some((name, span, is_merge));
        }
        Ok(())
    }

    fn alias(&mut self, span: Span, anchor: usize) -> Result<(), Problem> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.problem(span, "this stands inside what it refers to"));
        };
        self.aliased += count(node, self.limits.aliased);
        if self.aliased > self.limits.aliased {
            return Err(self.problem(span, format!("aliases stand for more than {} values", self.limits.aliased)));
        }
        // What is wrong with an alias's value is shown where the alias is used.
        let node = Node { span, data: node.data.clone() };
        self.scalar(node, 0, false)
    }

    /// Puts a complete value where it belongs.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.aliased += count(&node, self.limits.aliased);
            if self.aliased > self.limits.aliased {
                return Err(self.problem(node.span, format!("anchors hold more than {} values", self.limits.aliased)));
            }
            self.anchors.insert(anchor, node.clone());
        }
        let file = self.file;
        let Some(frame) = self.stack.last_mut() else {
            if !node.is_null() {
                self.done.push(node);
            }
            return Ok(());
        };
        match &mut frame.part {
            Part::List(items) => items.push(node),
            Part::Map { entries, key, names, merged } => {
                let Some((name, key_span, is_merge)) = key.take() else { return Ok(()) };
                if is_merge {
                    return merge(file, key_span, node, entries, merged);
                }
                if merged.remove(&name) {
                    // What is written beats what is merged.
                    entries.retain(|entry| entry.key != name);
                    names.0.remove(&name);
                }
                if !names.is_new(entries, &name) {
                    let first = entries.iter().find(|entry| entry.key == name).map_or(0, |entry| entry.key_span.line);
                    return Err(Problem::at(file, key_span.into(), format!("`{name}` is here twice"))
                        .label(format!("line {first} has it already")));
                }
                entries.push(Entry { key: name, key_span, value: node });
            }
        }
        Ok(())
    }
}

/// Adds what a merge key names: a map, or a list of maps of which the first that has a key wins.
fn merge(
    file: &str,
    span: Span,
    node: Node,
    entries: &mut Vec<Entry>,
    merged: &mut HashSet<String>,
) -> Result<(), Problem> {
    let maps = match node.data {
        Data::Map(members) => vec![members],
        Data::List(items) if items.iter().all(|item| matches!(item.data, Data::Map(_))) => {
            items.into_iter().map(|item| if let Data::Map(members) = item.data { members } else { vec![] }).collect()
        }
        _ => return Err(Problem::at(file, span.into(), "`<<` takes a map, or a list of maps")),
    };
    let written: HashSet<String> =
        entries.iter().map(|entry| entry.key.clone()).filter(|key| !merged.contains(key)).collect();
    for member in maps.into_iter().flatten() {
        if merged.contains(&member.key) {
            continue;
        }
        if written.contains(&member.key) {
            let message = format!("`<<` comes after `{}`, which it would override", member.key);
            return Err(Problem::at(file, span.into(), message).label("write it first"));
        }
        merged.insert(member.key.clone());
        entries.push(member);
    }
    Ok(())
}

/// Counts the values in a node, and stops soon after `limit`.
fn count(node: &Node, limit: usize) -> usize {
    let mut total = 1;
    let children: Box<dyn Iterator<Item = &Node>> = match &node.data {
        Data::List(items) => Box::new(items.iter()),
        Data::Map(entries) => Box::new(entries.iter().map(|entry| &entry.value)),
        _ => return total,
    };
    for child in children {
        total += count(child, limit);
        if total > limit {
            break;
        }
    }
    total
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Vec<Node>, Problem> {
        parse("a.yaml", text.as_bytes(), &Limits::MANIFESTS)
    }

    fn refused(bytes: &[u8]) -> String {
        let started = Instant::now();
        let problem = parse("a.yaml", bytes, &Limits::MANIFESTS).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(2), "it took {:?}", started.elapsed());
        let label = problem.label.iter().map(|label| format!(" ({label})")).collect::<String>();
        format!("{problem}{label}")
    }

    #[test]
    fn places_are_those_of_keys_and_values() {
        let document = read("a: 1\nspec:\n  - name: é\n    \"b\": [x, yy]\n").unwrap().remove(0);
        assert_eq!(document.place(&["spec"]), Span { line: 2, column: 1, length: 4 });
        assert_eq!(document.place(&["spec", "0", "b"]), Span { line: 4, column: 5, length: 3 });
        let item = &document.get("spec").unwrap().items()[0];
        assert_eq!(item.get("b").unwrap().items()[1].span, Span { line: 4, column: 14, length: 2 });
        assert_eq!(document.to_value(), json!({"a": 1, "spec": [{"name": "é", "b": ["x", "yy"]}]}));
    }

    #[test]
    fn fault_55_a_byte_order_mark_and_windows_lines_change_nothing() {
        let plain = read("a: 1\nb:\n  c: x\n---\nd: 2\n").unwrap();
        let windows = read("\u{feff}a: 1\r\nb:\r\n  c: x\r\n---\r\nd: 2\r\n").unwrap();
        assert_eq!(plain, windows);
    }

    #[test]
    fn empty_documents_are_left_out() {
        assert_eq!(read("---\n---\n# nothing\n---\na: 1\n---\n").unwrap().len(), 1);
        assert_eq!(read("").unwrap(), vec![]);
    }

    #[test]
    fn fault_55_what_is_refused_says_where() {
        let table: [(&[u8], &str); 15] = [
            (b"a: 1\nb: 2\na: 3\n", "a.yaml:3:1: error: `a` is here twice (line 1 has it already)"),
            (b"yes: 1\ntrue: 2\n", "a.yaml:2:1: error: `true` is here twice (line 1 has it already)"),
            (b"a:\n\tb: 1\n", "a.yaml:2:1: error: a tab cannot indent (write spaces)"),
            (b"a: x\0y\n", "a.yaml:1:5: error: there is a NUL character"),
            (b"a: x\nb: \xff\n", "a.yaml:2:4: error: byte 0xff is no UTF-8"),
            (b"\xff\xfea\0", "a.yaml: error: it is UTF-16"),
            (b"a: .inf\n", "a.yaml:1:4: error: `.inf` is no number that Kubernetes can take (a text goes into quotes)"),
            (b"{a: 1}: 2\n", "a.yaml:1:1: error: a key must be a text, not a list or a map"),
            (b"? [a]\n: 3\n", "a.yaml:1:3: error: a key must be a text, not a list or a map"),
            (b"~: 1\n", "a.yaml:1:1: error: nothing cannot be a key: put it in quotes"),
            (
                b"x: &x {b: 1}\na: {b: 2, <<: *x}\n",
                "a.yaml:2:11: error: `<<` comes after `b`, which it would override (write it first)",
            ),
            (b"a: &a [*a]\n", "a.yaml:1:8: error: this stands inside what it refers to"),
            (b"a: *b\n", "a.yaml:1:4: error: while parsing node, found unknown anchor"),
            (b"a: [1, 2\n", ""),
            (b"a: \"x\n", ""),
        ];
        for (bytes, expected) in table {
            let got = refused(bytes);
            if expected.is_empty() {
                assert!(got.starts_with("a.yaml:"), "{got}");
            } else {
                assert_eq!(got, expected);
            }
        }
    }

    #[test]
    fn merge_keys_are_expanded_and_what_is_written_wins() {
        let document = read("x: &x {b: 1, c: 1}\na: {<<: *x, b: 2, d: 3}\n").unwrap().remove(0);
        assert_eq!(document.get("a").unwrap().to_value(), json!({"b": 2, "c": 1, "d": 3}));
        let listed = read("x: &x {b: 1}\na: {<<: [*x, {b: 3, e: 4}]}\n").unwrap().remove(0);
        assert_eq!(listed.get("a").unwrap().to_value(), json!({"b": 1, "e": 4}));
    }

    #[test]
    fn fault_54_bombs_are_refused_in_milliseconds() {
        let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            aliases += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(refused(aliases.as_bytes()).contains("stand for more than"), "aliases");
        assert!(refused("[".repeat(10_000).as_bytes()).contains("nested too deeply"), "flow depth");
        let block: String = (0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).take(300).collect();
        assert!(refused(block.as_bytes()).contains("nested too deeply"), "block depth");
        assert!(refused("- ".repeat(10_000).as_bytes()).contains("nested too deeply"), "compact depth");
        assert!(refused("---\na\n".repeat(1_000_000).as_bytes()).contains("documents in one file"), "documents");
        let large = vec![b'x'; 100 << 20];
        assert!(refused(&large).contains("more than the 16777216 that are read"), "bytes");
    }

    #[test]
    fn a_map_with_very_many_keys_is_read_in_linear_time() {
        let text: String = (0..50_000).map(|index| format!("k{index}: {index}\n")).collect();
        let started = Instant::now();
        assert_eq!(read(&text).unwrap()[0].entries().len(), 50_000);
        assert!(refused(format!("{text}k7: 1\n").as_bytes()).contains("`k7` is here twice"));
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}
