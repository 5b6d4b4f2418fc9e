//! The pure parts: deciding for a thousand pods, folding and reading a journal of ten thousand records; each beside the
//! least that anybody could do with the same data, and printed as a ratio to it.
//!
//! `LOCKTENDER_BENCH_PODS` (1000) and `LOCKTENDER_BENCH_RECORDS` (10000) set the sizes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod fixture;

use std::{hint::black_box, path::Path, time::Duration};

use criterion::{BatchSize, Criterion};
use locktender::core::{ledger::journal, names::Digest, rollout::state::State};

use self::fixture::Big;

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Returns the mean that criterion measured, in nanoseconds.
fn mean(output: &Path, group: &str, function: &str) -> Option<f64> {
    let text = std::fs::read(output.join(group).join(function).join("new/estimates.json")).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?["mean"]["point_estimate"].as_f64()
}

fn main() {
    let output = tempfile::tempdir().unwrap();
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(output.path())
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));

    let pods = u32::try_from(size("LOCKTENDER_BENCH_PODS", 1000)).unwrap();
    let at_rest = Big::installed(pods);
    let releasing = Big::installed(pods).releasing(pods);
    let actions = releasing.decide().actions.len();
    let mut group = criterion.benchmark_group("decide");
    group.bench_function("clone-the-pods", |bencher| {
        bencher.iter(|| black_box(at_rest.view.of_app(&at_rest.app, "Pod").cloned().collect::<Vec<_>>()));
    });
    group.bench_function("at-rest", |bencher| bencher.iter(|| black_box(at_rest.decide())));
    group.bench_function("releasing", |bencher| bencher.iter(|| black_box(releasing.decide())));
    group.finish();

    let count = size("LOCKTENDER_BENCH_RECORDS", 10_000);
    let (plan, records) = fixture::journal(count);
    let text = journal::write(&records);
    let mut group = criterion.benchmark_group("journal");
    group.bench_function("clone-the-records", |bencher| bencher.iter(|| black_box(records.clone())));
    group.bench_function("fold", |bencher| {
        let owned = || (plan.clone(), records.clone());
        bencher.iter_batched(owned, |(plan, records)| black_box(State::fold(plan, records)), BatchSize::LargeInput);
    });
    group.bench_function("hash-the-text", |bencher| bencher.iter(|| black_box(Digest::of(text.as_bytes()))));
    group.bench_function("read-and-verify", |bencher| bencher.iter(|| black_box(journal::read(&text).unwrap())));
    group.finish();

    println!();
    let rows = [
        (format!("decide for {pods} pods at rest"), "decide", "at-rest", "clone-the-pods"),
        (format!("decide for {pods} pods, {actions} writes to begin"), "decide", "releasing", "clone-the-pods"),
        (format!("fold {count} records"), "journal", "fold", "clone-the-records"),
        (format!("read and verify {count} records"), "journal", "read-and-verify", "hash-the-text"),
    ];
    for (what, group, ours, least) in rows {
        // A filter on the command line leaves some out.
        if let (Some(ours), Some(bare)) = (mean(output.path(), group, ours), mean(output.path(), group, least)) {
            println!("{what:<50} {:>9.2} ms   {:>6.1} × {least} ({:.2} ms)", ours / 1e6, ours / bare, bare / 1e6);
        }
    }
}
