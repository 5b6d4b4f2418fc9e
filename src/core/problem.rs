//! What is wrong with a person's file, and where: a value, never a panic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong with a file that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The path from the repository's root.
    pub file: String,
    /// Counts from 1; 0 where the problem is with the file as a whole.
    pub line: u32,
    /// Counts characters from 1.
    pub column: u32,
    /// How many characters of the line are meant, at least 1.
    pub length: u32,
    /// What is wrong, in lower case, without the file's name.
    pub message: String,
    /// What is said under the marked characters: the nearest known name, or what to write.
    pub label: Option<String>,
    /// One more line for what the label has no room for.
    pub help: Option<String>,
}

impl Problem {
    /// Builds a problem with a file as a whole.
    pub fn in_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, length: 1, message: message.into(), label: None, help: None }
    }

    /// Builds a problem at a place in a file; line and column count from 1.
    pub fn at(file: &str, (line, column, length): (u32, u32, u32), message: impl Into<String>) -> Self {
        Self { line, column, length: length.max(1), ..Self::in_file(file, message) }
    }

    /// Adds what is said under the marked characters.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a line of help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the problem as a person reads it, with the line it is about where `source` (the file's text) has it:
    ///
    /// ```text
    /// policies/two-data-centers.yaml:9:7: error: unknown field `batchsize`
    ///    |
    ///  9 |       batchsize: 4
    ///    |       ^^^^^^^^^ did you mean `batchSize`?
    /// ```
    pub fn render(&self, source: Option<&str>) -> String {
        let mut text = self.to_string();
        match source.filter(|_| self.line > 0).and_then(|source| source.lines().nth(self.line as usize - 1)) {
            Some(line) => self.mark(line, &mut text),
            None => text.extend(self.label.iter().map(|label| format!("\n  {label}"))),
        }
        text.extend(self.help.iter().map(|help| format!("\n  help: {help}")));
        text
    }

    /// Appends the line and the marks under it. Long lines are cut around the place, control characters replaced.
    fn mark(&self, line: &str, text: &mut String) {
        const WIDTH: usize = 100;
        let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let start = (self.column as usize).saturating_sub(1).min(characters.len());
        let from = start.saturating_sub(WIDTH / 2);
        let from = if characters.len() <= WIDTH { 0 } else { from };
        let shown: String = characters.iter().skip(from).take(WIDTH).collect();
        let shown = shown.trim_end();
        let room = shown.chars().count().saturating_sub(start - from).max(1);
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let marks = "^".repeat((self.length as usize).clamp(1, room));
        let label = self.label.iter().map(|label| format!(" {label}")).collect::<String>();
        let before = " ".repeat(start - from);
        text.push_str(&format!("\n {gutter} |\n {number} | {shown}\n {gutter} | {before}{marks}{label}"));
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: error: {}", self.file, self.message)
        } else {
            write!(f, "{}:{}:{}: error: {}", self.file, self.line, self.column, self.message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_points_at_its_characters() {
        let source = "spec:\n  strategy:\n    batched:\n      batchsize: 4\n";
        let problem = Problem::at("policies/two.yaml", (4, 7, 9), "unknown field `batchsize`")
            .label("did you mean `batchSize`?")
            .help("see `locktender schema`");
        let expected = "policies/two.yaml:4:7: error: unknown field `batchsize`
   |
 4 |       batchsize: 4
   |       ^^^^^^^^^ did you mean `batchSize`?
  help: see `locktender schema`";
        assert_eq!(problem.render(Some(source)), expected);
    }

    #[test]
    fn without_its_source_the_label_still_shows() {
        let problem = Problem::in_file("a.yaml", "it is empty").label("write a `kind`");
        assert_eq!(problem.render(None), "a.yaml: error: it is empty\n  write a `kind`");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let source = format!("a: {}X{}", "b".repeat(5_000), "c".repeat(5_000));
        let text = Problem::at("a.yaml", (1, 5_004, 40_000), "too long").render(Some(&source));
        assert!(text.len() < 500, "{text}");
        let line = text.lines().nth(2).and_then(|line| line.find('X'));
        assert_eq!(line, text.lines().nth(3).and_then(|line| line.find('^')));
    }
}
