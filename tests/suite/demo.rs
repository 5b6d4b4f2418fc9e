//! `locktender demo`, as a person runs it: the built binary, its own sandbox, repository and controller.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use tempfile::TempDir;

/// A demo that runs.
struct Demo {
    process: Child,
    lines: Receiver<String>,
    told: Vec<String>,
    /// Everything temporary of it, and nothing else.
    temporary: TempDir,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_locktender"))
            .arg("demo")
            .args(args)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = follow(process.stdout.take().unwrap());
        Self { process, lines, told: Vec::new(), temporary }
    }

    /// Reads on until a line that contains `text`.
    fn until(&mut self, text: &str) {
        while !self.told.last().is_some_and(|line| line.contains(text)) {
            match self.lines.recv_timeout(Duration::from_secs(120)) {
                Ok(line) => self.told.push(line),
                Err(_) => panic!("it never says {text:?}:\n{}", self.told.join("\n")),
            }
        }
    }

    /// The commands of the gate that was shown last.
    fn commands(&self) -> String {
        let first = self.told.iter().rposition(|line| line.trim_start().starts_with("cd '")).unwrap();
        let commands = self.told[first..].iter().take_while(|line| !line.is_empty());
        commands.map(|line| line.trim()).collect::<Vec<_>>().join("\n")
    }

    fn press_enter(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Returns the exit code and everything that was printed.
    fn end(mut self) -> (Option<i32>, Vec<String>, TempDir) {
        self.told.extend(self.lines.iter());
        (self.process.wait().unwrap().code(), self.told, self.temporary)
    }
}

fn follow(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn alone_it_ends_with_a_table_in_which_everything_is_as_promised() {
    let mut demo = Demo::start(&["--yes"]);
    demo.until("same pods");
    let (code, told, temporary) = demo.end();
    let from = told.iter().position(|line| line.contains("same pods")).unwrap();
    let table: Vec<String> = told[from..].iter().map(|line| words(line)).collect();
    assert_eq!(
        table[..12],
        [
            "dca dcb at 1.9 at 2.0 same pods",
            "✓ install: beta 1 1 2 0 -",
            "✓ install: batch-1 3 3 6 0 -",
            "✓ install: batch-2 4 6 10 0 -",
            "✓ 2.0: beta 1 1 8 2 10 of 10",
            "✓ beta confirmed 3 3 4 6 10 of 10",
            "✓ confirm reverted 1 1 8 2 10 of 10",
            "✓ confirmed again 3 3 4 6 10 of 10",
            "✓ aborted 0 0 10 0 10 of 10",
            "",
            "✓ the install's batches 2, 4, 4",
            "✓ pods that the abort took back 6 of the 6 at 2.0; 4 were not touched",
        ],
        "{}",
        told.join("\n")
    );
    assert_eq!(table[12], "✓ the cluster now 10 pods answer 1.9");
    assert!(table[13].starts_with("✓ Git is as before the merge"), "{}", table[13]);
    assert!(table[14].ends_with("4 confirms accepted, 1 step back, 1 aborted"), "{}", table[14]);
    assert!(table[15].starts_with("✓ `locktender audit verify` ok: "), "{}", table[15]);
    let confirms: BTreeSet<&str> = told
        .iter()
        .filter_map(|line| line.trim().strip_prefix("by Ada <ada@demo.example>: checkout: go on after "))
        .collect();
    assert_eq!(confirms.len(), 4, "each confirm is another commit, the one that was given again as well: {confirms:?}");
    assert!(told.iter().any(|line| line.contains("✓ all of it is as promised")));
    assert_eq!(code, Some(0));
    assert!(is_empty(temporary.path()), "it leaves nothing behind");
}

/// Runs a demo alone to its end, and returns its closing table, the words of each line one space apart.
fn closing_table(args: &[&str], header: &str) -> (Vec<String>, String) {
    let mut demo = Demo::start(&[&["--yes", "--strategy"], args].concat());
    demo.until(header);
    let (code, told, temporary) = demo.end();
    assert_eq!(code, Some(0), "{}", told.join("\n"));
    assert!(is_empty(temporary.path()), "it leaves nothing behind");
    let from = told.iter().position(|line| line.contains(header)).unwrap();
    (told[from..].iter().map(|line| words(line)).collect(), told.join("\n"))
}

#[test]
fn a_canary_grows_under_load_and_one_that_answers_errors_goes_back_by_itself() {
    let (table, told) = closing_table(&["canary"], "by v1  by v2");
    assert!(told.contains("calls `reviews` by the sandbox's gateway for ever"), "{told}");
    for (row, start) in table[1..4].iter().zip(["✓ v2: weight-20 2 ", "✓ v2: weight-40 4 ", "✓ v2: weight-60 6 "])
    {
        assert!(row.starts_with(start), "{told}");
    }
    assert!(table[5].starts_with("✓ requests that failed while v2 came 0 of "), "{told}");
    assert!(table[6].starts_with("✓ v3 went back by itself ") && table[6].ends_with(" requests reached it, 0 since"));
    assert!(table[7].starts_with("✓ the evidence in its record success-rate is bad in "), "{told}");
    assert_eq!(table[8], "✓ the cluster now 10 of 10 pods answer v2");
    assert!(table[9].starts_with("✓ Git is as before the merge") && table[9].ends_with("after 0003 was aborted"));
    assert!(table[11].starts_with("✓ `locktender audit verify` ok: "), "{told}");
}

#[test]
fn a_switch_by_haproxy_loses_no_request_and_what_is_not_well_gets_none_or_is_switched_back() {
    a_switch_loses_no_request(&["blue-green"], "HAProxy");
}

#[test]
fn a_switch_of_the_service_alone_is_told_the_same() {
    a_switch_loses_no_request(&["blue-green", "--router", "service"], "the Service");
}

#[test]
fn batches_take_no_router() {
    let (code, told, temporary) = Demo::start(&["--yes", "--router", "gateway"]).end();
    assert_eq!((code, told), (Some(2), Vec::new()));
    assert!(is_empty(temporary.path()));
}

fn a_switch_loses_no_request(args: &[&str], router: &str) {
    let (table, told) = closing_table(args, "new connections reached");
    assert!(told.contains(&format!("calls `checkout` by {router} for ever")), "{told}");
    assert!(table[1].starts_with("✓ 2.0 is switched to ") && table[1].ends_with(" 0 1.9, then 2.0"), "{told}");
    assert!(table[2].starts_with("✓ 2.1 is never switched to ") && table[2].ends_with(" 0 2.0"), "{told}");
    assert!(
        table[3].starts_with("✓ 2.2 is switched back ") && table[3].ends_with(" 2.0, then 2.2, then 2.0"),
        "{told}"
    );
    assert!(table[5].starts_with("✓ looked at before the switch 4 pods of 2.0"), "{told}");
    assert!(table[6].starts_with("✓ 2.2 had requests for "), "{told}");
    assert_eq!(table[7], "✓ the cluster now 4 of 4 pods answer 2.0");
    assert!(table[10].starts_with("✓ `locktender audit verify` ok: "), "{told}");
}

#[test]
fn a_gate_opens_by_enter_by_commands_typed_elsewhere_and_at_the_end_of_input_and_ctrl_c_leaves_nothing_behind() {
    let mut demo = Demo::start(&[]);
    demo.until("Enter runs them ...");
    let status = Command::new("sh").arg("-ec").arg(demo.commands()).status().unwrap();
    assert!(status.success());
    demo.until("checkout: go on after beta (Ada)");
    demo.until("Enter runs them ...");
    assert!(demo.commands().contains("batch-1.yaml"), "{}", demo.commands());
    demo.press_enter();
    demo.until("checkout: go on after batch-1 (Ada)");
    demo.until("2/7");
    // Nobody can press Enter any more.
    drop(demo.process.stdin.take());
    demo.until("Standard input has ended: the demo goes on alone.");
    demo.until("checkout 2.0 (Ada)");
    let interrupt = Command::new("kill").arg("-INT").arg(demo.process.id().to_string()).status().unwrap();
    assert!(interrupt.success());
    let (code, told, temporary) = demo.end();
    assert_eq!(code, Some(1), "{}", told.join("\n"));
    assert!(is_empty(temporary.path()), "it leaves nothing behind");
}
