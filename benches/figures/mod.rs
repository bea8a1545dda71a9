//! What benches make of what they measured.

use std::{fmt::Debug, fs::File, io::Write, time::Instant};

use anyhow::Context;
use serde_json::json;

/// How much is done, which is printed: less with `--quick`.
pub fn chosen<S: Debug>(full: S, quick: S) -> S {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let settings = if is_quick { quick } else { full };
    println!("{settings:#?}");
    settings
}

/// To thousandths: more is noise.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value that this part of all values does not exceed.
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Prints how milliseconds are spread.
pub fn say(what: &str, times: &[f64]) {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| round(percentile(times, part)));
    println!(
        "{}",
        json!({ "what": what, "count": times.len(), "p50_ms": p50, "p99_ms": p99, "max_ms": max })
    );
}

/// Measures and prints what the disk takes for the least that a durable write of an object needs.
pub fn say_yardstick(count: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let began = Instant::now();
        let mut file = File::create(folder.path().join(number.to_string()))?;
        file.write_all(&[7; 4096])?;
        file.sync_all()?;
        File::open(folder.path())?.sync_all()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    say("the yardstick: a new file of 4 KiB, it and its folder fsynced", &times);
    Ok(())
}

/// A process' CPU time, user and system, all threads.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no process name")?;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // `USER_HZ` is 100 on every Linux that runs Postgres.
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}
