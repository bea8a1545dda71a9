//! Is what was ingested the state of the server that wrote the WAL? Pages are compared as Postgres compares a redone page with its
//! after-image: under its masks.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use protocol::TenantTimeline;
use redo_oracle::masks;
use wal_format::{Fork, Lsn, PAGE_BYTES, Page, Target, rmid};

use crate::{
    files::Files,
    page_client::{PageClient, at},
    stock_recovery::wal::Recorded,
};

/// Pages of a table or an index that are compared, evenly spread.
const PAGES_MAX: u32 = 500;
/// Below are the relations of initdb (transam.h: `FirstNormalObjectId`).
const FIRST_NORMAL_OBJECT_ID: u32 = 16384;
/// The page's special space: a B-tree's. pgbench has heaps and B-trees.
const BTREE_SPECIAL_BYTES: usize = 16;

/// Pages of every table and index of pgbench are as the server left them; how many were compared.
pub async fn compare(
    server: SocketAddr,
    timeline: TenantTimeline,
    recorded: &Recorded,
    end: Lsn,
) -> Result<usize> {
    let mut client = PageClient::connect(server, timeline, None).await??;
    let mut files = Files::new(&recorded.after());
    let mut compared = 0;
    for size in client.relations(at(end)).await? {
        if size.fork.fork != Fork::Main || size.fork.relation.number < FIRST_NORMAL_OBJECT_ID {
            continue;
        }
        for block in (0..size.blocks).step_by(size.blocks.div_ceil(PAGES_MAX).max(1) as usize) {
            let target = Target::Page(size.fork.block(block));
            let bytes = client.range(at(end), size.fork, block, 1).await??;
            let (mut ours, mut theirs) = (Page::zeroed(), Page::zeroed());
            ours.bytes_mut().copy_from_slice(&bytes);
            files.load(target, &mut theirs)?;
            for page in [&mut *ours, &mut *theirs] {
                let special = page.bounds().map_or(0, |bounds| PAGE_BYTES - bounds.special);
                let kind = if special == BTREE_SPECIAL_BYTES { rmid::BTREE } else { rmid::HEAP };
                masks::mask(kind, block, page);
            }
            ensure!(ours == theirs, "{target} is {ours:?} and on the server {theirs:?}");
            compared += 1;
        }
    }
    ensure!(compared > 0, "there is no page of pgbench's");
    Ok(compared)
}
