//! The fuzz targets of `fuzz/`, as ordinary tests: over the corpus, and over what some thousands of mutations make of it.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../fuzz/targets.rs"]
mod targets;

use std::{fs, path::Path};

use rstest::rstest;

/// As many of each file of the corpus.
const MUTATIONS: u32 = 400;

/// What mutations put in: what means something to one of the readers.
const WORDS: [&[u8]; 24] = [
    b"---\n",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!binary ",
    b"|\n",
    b">-\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"#",
    b"%",
    b"\t",
    b"\r\n",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"0x1F",
    b"1e999",
    b"../",
];

/// Numbers from a seed: the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(12)).min(bytes.len());
        match self.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..end, WORDS[self.below(WORDS.len())].iter().copied())),
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            3 => {
                let from = self.below(bytes.len() + 1);
                let piece = bytes[from..(from + self.below(40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
}

#[rstest]
#[case::yaml("yaml", targets::yaml)]
#[case::files("files", targets::files)]
#[case::journal("journal", targets::journal)]
#[case::plan("plan", targets::plan)]
#[case::url("url", targets::url)]
fn whatever_is_written_is_answered(#[case] name: &str, #[case] target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in files {
        let seed = fs::read(&file).unwrap();
        target(&seed);
        for number in 0..MUTATIONS {
            let mut chance = Chance(u64::from(number));
            let mut bytes = seed.clone();
            for _ in 0..=chance.below(4) {
                chance.mutate(&mut bytes);
            }
            let answered = std::panic::catch_unwind(|| target(&bytes));
            assert!(answered.is_ok(), "{} mutated by {number}:\n{}", file.display(), String::from_utf8_lossy(&bytes));
        }
    }
}
