//! What a pageserver serves of a timeline at one LSN, asked for as a compute asks.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result};
use protocol::{TenantTimeline, page_service::BackupHead};
use wal_format::{ControlFile, Lsn};

use crate::{harness::token, page_client::PageClient};

/// A base backup.
pub struct Served {
    pub head: BackupHead,
    pub control: ControlFile,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Served {
    pub async fn ask(server: SocketAddr, timeline: TenantTimeline, lsn: Lsn) -> Result<Served> {
        let mut client = connect(server, timeline).await?;
        let backup = client.base_backup(lsn).await?;
        let (head, files) =
            backup.with_context(|| format!("a base backup of {timeline} at {lsn}"))?;
        let control = ControlFile::decode(&head.control_file)?;
        Ok(Served { head, control, files })
    }
}

/// A reader of the timeline's pages.
pub async fn connect(server: SocketAddr, timeline: TenantTimeline) -> Result<PageClient> {
    Ok(PageClient::connect_showing(server, timeline, None, token()).await??)
}
