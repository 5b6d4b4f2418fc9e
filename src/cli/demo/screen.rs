//! What the demo prints: a story that stays, and below it, on a terminal, a few lines that are live.

use std::{
    fmt::Write as _,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::OwoColorize as _;

use crate::{
    cli::{output, print::report::live_dots},
    core::rollout::report::{Activity, Report},
};

/// Prints.
pub struct Screen {
    bar: Option<ProgressBar>,
    shown: String,
    started: Instant,
}

impl Screen {
    /// Live on a terminal, plain lines otherwise.
    pub fn new() -> Self {
        Self { bar: None, shown: String::new(), started: Instant::now() }
    }

    /// Prints a line that stays.
    pub fn say(&mut self, line: &str) {
        self.still();
        output::data(&format!("{line}\n"));
    }

    /// Prints a heading.
    pub fn heading(&mut self, number: usize, of: usize, title: &str) {
        let count = format!("{number}/{of}");
        self.say(&format!("\n{} {}", count.dimmed(), title.bold()));
    }

    /// Shows where the application is: in place of what was shown before on a terminal, else as a line when it changed.
    pub fn live(&mut self, report: &Report) {
        let text = progress(report);
        // Between two plans there is nothing to draw.
        if text == self.shown || report.units.is_empty() {
            return;
        }
        self.shown.clone_from(&text);
        if std::io::stdout().is_terminal() {
            let bar = self.bar.get_or_insert_with(spinner);
            bar.set_message(text);
        } else {
            let seconds = self.started.elapsed().as_secs();
            output::data(&format!("  {:02}:{:02}  {text}\n", seconds / 60, seconds % 60));
        }
    }

    /// Leaves the live lines as they are now: what follows is printed below them.
    pub fn still(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            output::data(&format!("  {}\n", self.shown));
        }
        self.shown.clear();
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    if let Ok(style) = ProgressStyle::with_template("  {msg}  {spinner} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Says in one line where the application is: `0002 beta  dca ●○○○  dcb ●○○○○○  2 of 10 at 2.0`.
fn progress(report: &Report) -> String {
    let rollout = report.rollout.as_ref().map(|id| format!("{id}  ")).unwrap_or_default();
    let what = match (report.activity, &report.stage) {
        (Activity::Progressing | Activity::Waiting, Some(stage)) => stage.to_string(),
        (activity, _) => format!("{activity:?}").to_lowercase(),
    };
    let mut text = format!("{rollout}{what:<8}");
    let units: Vec<_> = report.units.values().flatten().collect();
    let _ = write!(text, "  {}", live_dots(&units));
    let done: u32 = units.iter().map(|(_, pods)| pods.done).sum();
    let total: u32 = units.iter().map(|(_, pods)| pods.total).sum();
    // Going back, pods count when they are at stable again; at rest they count as what is stable, whatever was tried last.
    let version = match report.activity {
        Activity::Aborting => report.from.as_ref(),
        Activity::Progressing | Activity::Waiting => report.to.as_ref(),
        _ => None,
    };
    match version {
        _ if total == 0 => {}
        Some(version) => drop(write!(text, "  {done} of {total} at {version}")),
        None => drop(write!(text, "  {done} of {total}")),
    }
    text
}
