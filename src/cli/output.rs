//! Where commands print: data on standard output, everything else on standard error. Colours only where they are seen.

use std::io::Write as _;

use serde::Serialize;

use super::error::Error;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

/// The option of every command that reads.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputArgs {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

impl OutputArgs {
    /// Prints a value: as it is for programs, or what `table` makes of it for people.
    ///
    /// # Errors
    ///
    /// The value cannot be written in that format.
    pub fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Error> {
        let wrong = |error: &dyn std::error::Error| Error::because("cannot print the answer", error);
        match self.output {
            Format::Table => data(&table(value)),
            Format::Json => {
                let text = serde_json::to_string_pretty(value).map_err(|error| wrong(&error))?;
                data(&format!("{text}\n"));
            }
            Format::Yaml => data(&serde_yaml::to_string(value).map_err(|error| wrong(&error))?),
        }
        Ok(())
    }
}

/// Prints data. A reader that has gone away is no error.
pub fn data(text: &str) {
    let mut out = anstream::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says something that is no data.
pub fn say(text: &str) {
    let mut out = anstream::stderr();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Lays rows out in columns, two spaces apart, without spaces at the ends of lines.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints what moves the cursor, as it is.
pub fn raw(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
