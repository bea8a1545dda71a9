//! The oracle on the provoked suite: nothing differs, every kind is proven, and wrong redo of each resource manager is noticed.
//! Its last line is the run's numbers, as JSON, which Cargo's own test harness would hold back.

use std::{process::ExitCode, thread, time::Instant};

use anyhow::{Result, bail, ensure};
use redo_oracle::{Coverage, Mutation, Options, provoked, provoked::Recorded, test_program};
use wal_format::rmid;

/// What Cargo calls this test.
const NAME: &str = "redo_oracle";

/// The resource managers that have redo on pages or SLRUs.
const WITH_REDO: [u8; 16] = [
    rmid::XLOG,
    rmid::TRANSACTION,
    rmid::STORAGE,
    rmid::CLOG,
    rmid::MULTIXACT,
    rmid::HEAP2,
    rmid::HEAP,
    rmid::BTREE,
    rmid::HASH,
    rmid::GIN,
    rmid::GIST,
    rmid::SEQUENCE,
    rmid::SPGIST,
    rmid::BRIN,
    rmid::COMMIT_TS,
    rmid::GENERIC,
];

fn main() -> ExitCode {
    test_program::run(NAME, |_| run().map(|()| true))
}

fn run() -> Result<()> {
    let recorded = provoked::record(&|line| eprintln!("{line}"))?;
    let started = Instant::now();
    let coverage = provoked::replay(&recorded, Options { spoils: true, ..Options::default() })?;
    eprintln!("replayed in {} s", started.elapsed().as_secs());
    println!("{}", coverage.table());
    for words in &coverage.told {
        println!("{words}");
    }
    redone_pages_are_those_of_postgres(&coverage)?;
    a_spoiled_record_of_each_kind_is_noticed(&coverage)?;
    wrong_redo_of_each_resource_manager_is_noticed(&recorded)?;
    println!("{}", serde_json::to_string(&coverage.summary())?);
    Ok(())
}

fn redone_pages_are_those_of_postgres(coverage: &Coverage) -> Result<()> {
    let unproven = coverage.unproven();
    ensure!(coverage.mismatches == 0, "{} differences from Postgres", coverage.mismatches);
    ensure!(unproven.is_empty(), "this run does not prove {unproven:?}");
    ensure!(coverage.checksums > 0, "no page with its checksum was the server's");
    Ok(())
}

/// Redo looks at each kind's payload, and the comparison at what it does with it. But the payload of a VISIBLE record is the
/// visibility map's bits, which the masks hide; they are compared with the files.
fn a_spoiled_record_of_each_kind_is_noticed(coverage: &Coverage) -> Result<()> {
    for (name, tally) in coverage.rows() {
        let can_tell = tally.spoiled > 0 && name != "Heap2/VISIBLE";
        ensure!(!can_tell || tally.caught > 0, "nobody noticed a spoiled {name} record");
    }
    Ok(())
}

fn wrong_redo_of_each_resource_manager_is_noticed(recorded: &[Recorded]) -> Result<()> {
    // The first of them are noticed late, the others soon.
    let (even, odd): (Vec<_>, Vec<_>) = WITH_REDO.into_iter().partition(|rmid| rmid % 2 == 0);
    thread::scope(|scope| {
        let even = scope.spawn(|| even.into_iter().try_for_each(|rmid| is_noticed(recorded, rmid)));
        odd.into_iter().try_for_each(|rmid| is_noticed(recorded, rmid))?;
        even.join().unwrap_or_else(|_| bail!("a replay panicked"))
    })
}

fn is_noticed(recorded: &[Recorded], rmid: u8) -> Result<()> {
    const SEED: u64 = 1;
    let started = Instant::now();
    let access_methods = &recorded[0].stretch;
    let Some(words) = access_methods.notices(Mutation { rmid, seed: SEED })? else {
        bail!("nobody noticed wrong redo of resource manager {rmid}");
    };
    let words: String = words.chars().take(160).collect();
    eprintln!(
        "wrong redo of resource manager {rmid} is noticed in {} s: {words}",
        started.elapsed().as_secs()
    );
    Ok(())
}
