//! What WAL does to a timeline, against the files of the Postgres that wrote it.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use protocol::{
    TenantTimeline,
    page_service::{PageError, ReadAt},
};
use redo_oracle::{cluster::Cluster, masks, state::State};
use wal_format::{
    ControlFile, ControlState, DEFAULT_SEGMENT_BYTES, Fork, Lsn, PAGE_BYTES, PAGE_HEADER_BYTES,
    Page, Record, RelationFork, Segment, Target, Version, WalReader, record_checksum, rmid,
};

use crate::{
    page_client::{PageClient, at},
    wal_server::Served,
    workload,
    world::{PG_CLASS, World, any_timeline, control_file, wal_end},
};

/// Pages asked for at once.
const RANGE: u32 = 128;
/// Differences that are shown.
const SHOWN: usize = 20;

/// All pages that are served, and the sizes of forks.
struct ServedState {
    pages: BTreeMap<Target, Box<Page>>,
    sizes: BTreeMap<RelationFork, u32>,
}

impl ServedState {
    async fn read(client: &mut PageClient, lsn: Lsn) -> Result<ServedState> {
        let mut served = ServedState { pages: BTreeMap::new(), sizes: BTreeMap::new() };
        for size in client.relations(at(lsn)).await? {
            served.sizes.insert(size.fork, size.blocks);
            let mut first = 0;
            while first < size.blocks {
                let count = RANGE.min(size.blocks - first);
                let pages = client.range(at(lsn), size.fork, first, count).await??;
                for (block, bytes) in (first..).zip(pages.chunks(PAGE_BYTES)) {
                    let page = Page::from_slice(bytes).context("a whole page")?;
                    served.pages.insert(Target::Page(size.fork.block(block)), page);
                }
                first += count;
            }
        }
        Ok(served)
    }
}

/// What the pageserver serves and the server's files disagree on. `wal_logged` are databases that
/// were made with the strategy `wal_log`: their visibility maps are in the WAL as images whose hole
/// is the whole map (bufmgr.c, `RelationCopyStorageUsingBuffer`), so replay has them empty.
fn differences(served: &ServedState, files: &State, wal_logged: &[u32]) -> Vec<String> {
    let mut differences = Vec::new();
    for fork in files.forks.keys().filter(|fork| !is_not_logged(files, **fork)) {
        // Looking for a bit makes the map, without a record.
        let may_miss = fork.fork == Fork::VisibilityMap && is_empty_map(files, *fork);
        if !served.sizes.contains_key(fork) && !may_miss {
            differences.push(format!("{fork} is missing"));
        }
    }
    for fork in served.sizes.keys().filter(|fork| !is_not_logged(files, **fork)) {
        if !files.forks.contains_key(fork) {
            differences.push(format!("{fork} should be gone"));
        }
    }
    for (target, theirs) in files.pages() {
        let Target::Page(key) = target else { continue };
        if is_not_logged(files, key.fork) {
            continue;
        }
        match served.pages.get(&target) {
            // Extensions by empty pages are not logged.
            None if theirs.is_zero() || theirs.max_offset() == 0 => {}
            None => differences.push(format!("{target} is missing")),
            Some(ours) if same(ours, theirs, key.block, key.fork.fork) => {}
            Some(ours)
                if key.fork.fork == Fork::VisibilityMap
                    && wal_logged.contains(&key.fork.relation.database)
                    && has_no_bit(ours) => {}
            Some(ours) => {
                let (ours, theirs) = (ours.lsn(), theirs.lsn());
                differences.push(format!("{target}: of {ours} instead of {theirs}"));
            }
        }
    }
    differences
}

/// The free space map, and an unlogged relation but for its `_init` fork.
fn is_not_logged(files: &State, fork: RelationFork) -> bool {
    let init = fork.relation.fork(Fork::Init);
    fork.fork == Fork::FreeSpaceMap || fork.fork != Fork::Init && files.forks.contains_key(&init)
}

fn is_empty_map(files: &State, fork: RelationFork) -> bool {
    (0..).map_while(|block| files.page(&Target::Page(fork.block(block)))).all(has_no_bit)
}

/// Whether a page of a visibility map says nothing.
fn has_no_bit(page: &Page) -> bool {
    page.bytes()[PAGE_HEADER_BYTES..].iter().all(|&byte| byte == 0)
}

/// Whether two pages are the same, but for what Postgres itself does not log.
fn same(ours: &Page, theirs: &Page, block: u32, fork: Fork) -> bool {
    let Ok(bounds) = theirs.bounds() else { return ours.is_zero() == theirs.is_zero() };
    let special = &theirs.bytes()[bounds.special..];
    let mask = match special.len() {
        0 => rmid::HEAP,
        // A sequence's tuple runs ahead of the WAL in the server.
        8 if special[..4] == [0x17, 0x17, 0, 0] => return ours.max_offset() == 1,
        16 => rmid::BTREE,
        _ => rmid::GENERIC,
    };
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    for page in [&mut ours, &mut theirs] {
        match fork {
            Fork::VisibilityMap => masks::mask_lsn(page),
            _ => masks::mask(mask, block, page),
        }
    }
    ours == theirs
}

#[tokio::test(flavor = "multi_thread")]
async fn ingested_wal_gives_the_files_that_postgres_has() -> Result<()> {
    let mut world = World::new().await?;
    let mut cluster = Cluster::create(workload::SETTINGS)?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    cluster.start()?;
    workload::run(&cluster)?;
    let wal_logged = "SELECT oid FROM pg_database WHERE datname IN ('logged', 'moved')";
    let wal_logged = cluster.sql("postgres", wal_logged)?;
    let wal_logged: Vec<u32> = wal_logged.lines().map(str::parse).collect::<Result<_, _>>()?;
    cluster.stop()?;
    let end = world.serve_wal(timeline, &cluster)?;

    let path = "/v1/tenants/acme/branches/main";
    world.eventually(path, |branch| branch["last_record_lsn"] == end.to_string()).await?;
    compare(&world, timeline, &cluster, &wal_logged).await?;
    // The same from layers, after memory is gone.
    world.restart().await?;
    compare(&world, timeline, &cluster, &wal_logged).await?;
    let began = Instant::now();
    while world.wal.consumed(timeline) != Some(end) {
        assert!(began.elapsed().as_secs() < 120, "the safekeeper was not told what is consumed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.stop().await;
    Ok(())
}

/// Compares all pages that are served as of the end of a stopped cluster's WAL with its files.
pub async fn compare_pages(
    client: &mut PageClient,
    cluster: &Cluster,
    wal_logged: &[u32],
) -> Result<State> {
    let files = State::load(&cluster.data())?;
    let served = ServedState::read(client, wal_end(&cluster.data())?).await?;
    let differences = differences(&served, &files, wal_logged);
    for difference in differences.iter().take(SHOWN) {
        println!("{difference}");
    }
    assert_eq!(differences.len(), 0, "pages differ from the server's files");
    Ok(files)
}

async fn compare(
    world: &World,
    timeline: TenantTimeline,
    cluster: &Cluster,
    wal_logged: &[u32],
) -> Result<()> {
    let end = wal_end(&cluster.data())?;
    let mut client = world.connect(timeline, None).await?;
    let files = compare_pages(&mut client, cluster, wal_logged).await?;
    let (head, backup) = client.base_backup(end).await??;
    for (target, theirs) in files.pages() {
        let Target::Slru(slru, page) = target else { continue };
        let path = format!("{}/{:04X}", slru.folder(), page / 32);
        let from = (page % 32) as usize * PAGE_BYTES;
        let ours = backup.get(&path).and_then(|file| file.get(from..from + PAGE_BYTES));
        assert_eq!(ours, Some(&theirs.bytes()[..]), "{target} differs");
    }
    for (xid, contents) in &files.two_phase {
        let ours = backup.get(&format!("pg_twophase/{xid:08X}"));
        assert_eq!(ours, Some(contents), "prepared transaction {xid} differs");
    }
    let prepared = backup.keys().filter(|path| path.starts_with("pg_twophase/")).count();
    assert_eq!(prepared, files.two_phase.len());
    assert_eq!(prepared, 1, "the workload leaves one prepared transaction");
    let maps = backup.iter().filter(|(path, _)| path.ends_with("pg_filenode.map"));
    for (path, map) in maps {
        assert_eq!(&fs::read(cluster.data().join(path))?, map, "{path} differs");
    }
    let origins = "pg_logical/replorigin_checkpoint";
    assert_eq!(backup.get(origins), Some(&fs::read(cluster.data().join(origins))?));

    let ours = ControlState::from_control_file(&ControlFile::decode(&head.control_file)?);
    let mut theirs = ControlState::from_control_file(&control_file(&cluster.data())?);
    // Replay takes over the database only with a newer multixact (multixact.c,
    // `MultiXactAdvanceOldest`).
    if ours.oldest_multi == theirs.oldest_multi {
        theirs.oldest_multi_database = ours.oldest_multi_database;
    }
    assert_eq!(ours, theirs, "the counters of pg_control differ");
    assert!(head.ends_in_shutdown_checkpoint);
    assert_eq!(head.last_record, control_file(&cluster.data())?.checkpoint);
    assert_eq!(head.databases.len(), files.relation_maps.len() - 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_transaction_is_above_all_that_wrote_and_exact_after_a_clean_stop() -> Result<()> {
    let ahead = next_transactions_ahead("").await?;
    assert!(ahead.iter().all(|ahead| *ahead < 64), "too far ahead: {ahead:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_transaction_is_exact_where_commits_have_timestamps() -> Result<()> {
    let ahead = next_transactions_ahead("track_commit_timestamp = on\n").await?;
    assert!(ahead.iter().all(|ahead| *ahead == 0), "ahead: {ahead:?}");
    Ok(())
}

/// How far above a server's the next transaction's id is, after some of its transactions. After its clean
/// stop it is as the server's.
async fn next_transactions_ahead(settings: &str) -> Result<Vec<u64>> {
    const TRANSACTION: &str = "INSERT INTO t VALUES (1) RETURNING txid_current();
        SELECT pg_current_wal_insert_lsn();";
    let world = World::new().await?;
    let mut cluster = Cluster::create(&format!("wal_keep_size = 1GB\n{settings}"))?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t (a int)")?;
    let written = cluster.sql("postgres", &TRANSACTION.repeat(150))?;
    let lines: Vec<&str> = written.lines().collect();
    cluster.stop()?;
    let end = world.serve_wal(timeline, &cluster)?;
    let mut client = world.connect(timeline, None).await?;
    let waiting = ReadAt { request_lsn: Lsn::MAX, not_modified_since: end };
    client.range(waiting, PG_CLASS, 0, 1).await??;

    let mut ahead = Vec::new();
    for transaction in lines.chunks(2).step_by(3) {
        let [xid, lsn] = transaction else { panic!("an id and an LSN, not {transaction:?}") };
        let (xid, lsn): (u64, Lsn) = (xid.parse()?, lsn.parse()?);
        // Behind a page's header no record ends.
        if lsn.page_offset() > 40 {
            let (head, _) = client.base_backup(lsn).await??;
            let next = ControlFile::decode(&head.control_file)?.checkpoint_copy.next_xid;
            ahead.push(next.checked_sub(xid + 1).context("an id that was taken")?);
        }
    }
    assert!(ahead.len() > 30, "of {} LSNs", ahead.len());
    let (head, _) = client.base_backup(end).await??;
    let ours = ControlFile::decode(&head.control_file)?.checkpoint_copy.next_xid;
    assert_eq!(ours, control_file(&cluster.data())?.checkpoint_copy.next_xid);
    world.stop().await;
    Ok(ahead)
}

/// Gives a later record to a resource manager of some extension, which nobody can replay; its
/// start.
fn make_foreign(cluster: &Cluster, after: Lsn) -> Result<Lsn> {
    const RESOURCE_MANAGER_AT: usize = 17;
    const CHECKSUM_AT: usize = 20;
    let segment = Segment::containing(1, after, DEFAULT_SEGMENT_BYTES);
    let path = cluster.data().join("pg_wal").join(segment.file_name(DEFAULT_SEGMENT_BYTES));
    let mut wal = fs::read(&path)?;
    let offset = |lsn: Lsn| lsn.segment_offset(u64::from(DEFAULT_SEGMENT_BYTES)) as usize;
    let mut reader = WalReader::new(Version::V15, DEFAULT_SEGMENT_BYTES, after, None);
    reader.feed(after, &wal[offset(after)..])?;
    while let Some(record) = reader.next_record()? {
        let heap = Record::parse(Version::V15, &record.bytes)?.rmid == rmid::HEAP;
        if !heap || record.start.page_start() != record.end.page_start() {
            continue;
        }
        let mut bytes = record.bytes.to_vec();
        bytes[RESOURCE_MANAGER_AT] = 200;
        let checksum = record_checksum(&bytes).to_le_bytes();
        bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum);
        let start = offset(record.start);
        wal[start..start + bytes.len()].copy_from_slice(&bytes);
        fs::write(&path, wal)?;
        return Ok(record.start);
    }
    anyhow::bail!("no record of a heap follows {after}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_redo_stops_its_timeline_and_no_other() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("full_page_writes = off\nwal_keep_size = 1GB\n")?;
    world.import("stock", &cluster.data()).await?;
    let (stopped, other) = (world.tenant("a", "stock").await?, world.tenant("b", "stock").await?);
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    let before: Lsn =
        cluster.sql("postgres", "SELECT pg_current_wal_insert_lsn()")?.trim().parse()?;
    cluster.sql("postgres", "DELETE FROM t; INSERT INTO t VALUES (1)")?;
    cluster.stop()?;
    let foreign = make_foreign(&cluster, before)?;
    let end = world.serve_wal(stopped, &cluster)?;
    world.serve_wal_until(other, &cluster, before);

    let mut client = world.connect(stopped, None).await?;
    let status = world
        .eventually("/v1/status", |status| {
            any_timeline(status, |one| one["ingest"]["state"] == "stopped")
        })
        .await?;
    let all = status["timelines"].as_array().context("timelines")?;
    let one = all.iter().find(|one| one["ingest"]["state"] == "stopped").context("the stopped")?;
    assert_eq!(one["timeline_id"], stopped.timeline.to_string());
    let reason = one["ingest"]["reason"].as_str().context("a reason")?;
    assert!(reason.contains(&format!("{foreign}: ")), "{reason} does not say {foreign}");
    assert!(reason.contains("resource manager 200"), "{reason}");
    let stopped_at: Lsn = one["last_record_lsn"].as_str().context("an LSN")?.parse()?;
    assert!(stopped_at <= foreign, "{stopped_at} is beyond {foreign}");

    let forks = client.relations(at(stopped_at)).await?;
    assert!(!forks.is_empty(), "what was ingested is served");
    let waiting = ReadAt { request_lsn: Lsn::MAX, not_modified_since: end };
    match client.range(waiting, forks[0].fork, 0, 1).await? {
        Err(PageError::Corrupt(reason)) => assert!(reason.contains("200"), "{reason}"),
        other => panic!("{other:?} where the stopped ingest was expected"),
    }
    world
        .eventually("/v1/tenants/b/branches/main", |b| b["last_record_lsn"] == before.to_string())
        .await?;
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_wal_stops_its_timeline_with_the_place() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    let start = wal_end(&cluster.data())?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10000) n;")?;
    cluster.stop()?;
    let end = wal_end(&cluster.data())?;
    let served = Served {
        wal: cluster.data().join("pg_wal"),
        commit_lsn: end,
        term: protocol::Term(1),
        damaged_at: Some(start + 100_000),
    };
    world.wal.serve(timeline, served);

    let mut client = world.connect(timeline, None).await?;
    let waiting = ReadAt { request_lsn: Lsn::MAX, not_modified_since: end };
    match client.range(waiting, PG_CLASS, 0, 1).await? {
        Err(PageError::Corrupt(reason)) => {
            assert!(reason.contains("damaged WAL at 0/"), "{reason}")
        }
        other => panic!("{other:?} where damaged WAL was expected"),
    }
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safekeeper_that_does_not_know_of_the_last_commits_is_left_for_another() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("wal_keep_size = 1GB\n")?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    cluster.start()?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) n")?;
    let before: Lsn =
        cluster.sql("postgres", "SELECT pg_current_wal_insert_lsn()")?.trim().parse()?;
    cluster.sql("postgres", "INSERT INTO t VALUES (1)")?;
    cluster.stop()?;
    let end = world.serve_wal(timeline, &cluster)?;
    let wal = cluster.data().join("pg_wal");
    let lagging = Served { wal, commit_lsn: before, term: protocol::Term(1), damaged_at: None };
    world.lagging.serve(timeline, lagging);

    let mut client = world.connect(timeline, None).await?;
    let forks = client.relations(at(before)).await?;
    let waiting = ReadAt { request_lsn: Lsn::MAX, not_modified_since: end };
    client.range(waiting, forks[0].fork, 0, 1).await??;
    world.stop().await;
    Ok(())
}
