//! A base backup of what was imported is what was imported.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use protocol::page_service::PageError;
use redo_oracle::cluster::Cluster;
use wal_format::{ControlFile, Lsn, PAGE_BYTES, Slru};

use crate::{
    page_client::at,
    world::{World, control_file, enable_checksums, folder_beside, wal_end},
};

/// Files that a base backup has, by path, as the data directory has them.
fn files_of(data: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut take = |path: String| -> Result<()> {
        let file = data.join(&path);
        if file.exists() {
            files.insert(path, fs::read(file)?);
        }
        Ok(())
    };
    take("PG_VERSION".to_owned())?;
    take("global/pg_filenode.map".to_owned())?;
    take("pg_logical/replorigin_checkpoint".to_owned())?;
    let mut folders: Vec<String> = Slru::ALL.iter().map(|slru| slru.folder().to_owned()).collect();
    for entry in fs::read_dir(data.join("base"))? {
        folders.push(format!("base/{}", entry?.file_name().to_string_lossy()));
    }
    for folder in folders {
        for entry in fs::read_dir(data.join(&folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_relation = name.starts_with(|c: char| c.is_ascii_digit());
            if folder.starts_with("base/") && (is_relation || name == "pg_internal.init") {
                continue;
            }
            take(format!("{folder}/{name}"))?;
        }
    }
    Ok(files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_of_a_template_equals_the_directory_that_was_imported() -> Result<()> {
    let world = World::new().await?;
    let mut cluster = Cluster::create("")?;
    enable_checksums(&cluster)?;
    cluster.start()?;
    let location = folder_beside(&cluster, "elsewhere")?;
    cluster.sql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10000) n")?;
    cluster.sql("postgres", "CREATE UNLOGGED TABLE u AS SELECT generate_series(1, 1000) n")?;
    cluster.sql("postgres", &format!("CREATE TABLESPACE far LOCATION '{}'", location.display()))?;
    cluster.sql("postgres", "CREATE DATABASE there TABLESPACE far")?;
    cluster.sql("postgres", "SELECT pg_replication_origin_create('o')")?;
    cluster.sql("postgres", "SELECT pg_replication_origin_advance('o', '1/2')")?;
    cluster.sql("postgres", "VACUUM FREEZE t")?;
    cluster.stop()?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    let mut client = world.connect(timeline, None).await?;
    let start = wal_end(&cluster.data())?;
    assert_eq!(client.welcome.last_record_lsn, start);
    assert_eq!(client.welcome.origin.point.lsn, start);

    let (head, mut files) = client.base_backup(start).await??;
    let control = control_file(&cluster.data())?;
    assert_eq!(head.last_record, control.checkpoint);
    assert!(!head.ends_in_shutdown_checkpoint, "the checkpoint is the template's own");
    let ours = ControlFile::decode(&head.control_file)?;
    assert_eq!(ours.settings, control.settings);
    assert_eq!(ours.checkpoint_copy.next_xid, control.checkpoint_copy.next_xid);
    assert_eq!(ours.nonce, control.nonce);
    let (oid, place) = head.tablespaces.first().context("one tablespace")?;
    assert_eq!(place, &location.display().to_string());

    let there: Vec<_> = head.databases.iter().filter(|(ts, _)| ts == oid).collect();
    let [(_, database)] = there[..] else { panic!("one database there, not {there:?}") };
    let folder = format!("pg_tblspc/{oid}/PG_15_202209061/{database}");
    for name in ["PG_VERSION", "pg_filenode.map"] {
        let path = format!("{folder}/{name}");
        let ours = files.remove(&path);
        assert_eq!(ours, Some(fs::read(cluster.data().join(&path))?), "{path} differs");
    }
    let theirs = files_of(&cluster.data())?;
    assert_eq!(files.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (path, contents) in &theirs {
        assert_eq!(files.get(path), Some(contents), "{path} differs");
    }

    let unlogged: Vec<_> =
        head.forks.iter().filter(|f| f.fork.fork == wal_format::Fork::Init).collect();
    assert_eq!(unlogged.len(), 1, "one unlogged table: {unlogged:?}");
    for size in &head.forks {
        let folder = match size.fork.relation.tablespace {
            1663 => format!("base/{}", size.fork.relation.database),
            1664 => "global".to_owned(),
            _ => folder.clone(),
        };
        let name = format!("{folder}/{}{}", size.fork.relation.number, size.fork.fork.suffix());
        let theirs = fs::read(cluster.data().join(&name))?;
        assert_eq!(size.blocks as usize * PAGE_BYTES, theirs.len(), "{name} has another size");
        if unlogged[0].fork.relation == size.fork.relation {
            assert_eq!(size.fork.fork, wal_format::Fork::Init, "{name} is unlogged");
        }
        for (first, theirs) in (0..).step_by(100).zip(theirs.chunks(100 * PAGE_BYTES)) {
            let count = (theirs.len() / PAGE_BYTES) as u32;
            let ours = client.range(at(start), size.fork, first, count).await??;
            assert!(ours == theirs, "{name} differs from block {first} on");
        }
    }
    world.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_begins_at_a_records_end_only() -> Result<()> {
    let world = World::new().await?;
    let cluster = Cluster::create("")?;
    world.import("stock", &cluster.data()).await?;
    let timeline = world.tenant("acme", "stock").await?;
    let mut client = world.connect(timeline, None).await?;
    let start = wal_end(&cluster.data())?;
    match client.base_backup(Lsn(start.0 - 8)).await? {
        Err(PageError::Gone { oldest, .. }) => assert_eq!(oldest, start),
        other => panic!("{other:?} where a refusal was expected"),
    }
    match client.base_backup(start + 8).await? {
        Err(PageError::NotYet { ingested, .. }) => assert_eq!(ingested, start),
        other => panic!("{other:?} where a refusal was expected"),
    }
    world.stop().await;
    Ok(())
}
