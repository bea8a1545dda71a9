//! Brings commits from the write-ahead log into the file, beside the commits that follow.
//!
//! SQLite would do it in the commit that fills the log, and all who wait for that one would wait until
//! the disk has some thousand pages. Here a thread does it while the log goes on to grow. What came
//! meanwhile is little: the writer brings it after a commit, and the next one begins the log anew.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, DEFAULT_NAME, wal::CheckpointMode};

use super::{Error, schema};

/// Pages that the log may have until it is brought: 128 MiB. The rarer, the fewer commits wait for the
/// disk; a start after a crash reads it.
const LOG_PAGES: usize = if cfg!(test) { 64 } else { 32 << 10 };
/// Where the log could not begin anew, since somebody reads from it: how many more until it is tried
/// again.
const MORE_PAGES: usize = LOG_PAGES / 8;
/// Pages that are left to the writer, or more after so many passes.
const LEFT_PAGES: usize = LOG_PAGES / 64;
const PASSES_MAX: usize = 4;

/// The writer's side.
pub(super) struct Checkpoints {
    /// Ends the thread when it is dropped.
    wanted: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    is_under_way: bool,
    /// Whether the thread has done its part.
    is_short: Arc<AtomicBool>,
    /// Pages of the log after the last commit, and with how many it is brought.
    log_pages: usize,
    due_at: usize,
}

impl Checkpoints {
    /// Starts the thread. From now on no commit of this connection does it.
    pub(super) fn start(writer: &Connection, path: &Path) -> Result<Checkpoints, Error> {
        writer.pragma_update(None, "wal_autocheckpoint", 0)?;
        let connection = Connection::open(path)?;
        schema::configure(&connection)?;
        let (wanted, receiver) = sync_channel(1);
        let is_short = Arc::new(AtomicBool::new(false));
        let done = is_short.clone();
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&connection, &receiver, &done))
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Checkpoints {
            wanted: Some(wanted),
            thread: Some(thread),
            is_under_way: false,
            is_short,
            log_pages: 0,
            due_at: LOG_PAGES,
        })
    }

    /// To be called after each commit, when those who waited for it are told.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        if let Err(error) = self.go_on(writer) {
            tracing::warn!(%error, "the catalog's log grows: it cannot be brought into the file");
        }
    }

    fn go_on(&mut self, writer: &Connection) -> Result<(), Error> {
        let (pages, _) = log(writer)?;
        if pages < self.log_pages {
            self.due_at = LOG_PAGES;
        }
        self.log_pages = pages;
        if self.is_under_way {
            if self.is_short.swap(false, Ordering::AcqRel) {
                (self.is_under_way, self.due_at) = (false, pages + MORE_PAGES);
                bring(writer)?;
            }
        } else if pages >= self.due_at {
            self.is_under_way = true;
            if let Some(wanted) = &self.wanted {
                // It waits for this alone: there is room.
                let _sent = wanted.try_send(());
            }
        }
        Ok(())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the catalog's checkpoints panicked");
        }
    }
}

fn run(connection: &Connection, wanted: &Receiver<()>, is_short: &AtomicBool) {
    while wanted.recv().is_ok() {
        if let Err(error) = shorten(connection) {
            tracing::warn!(%error, "the catalog's log is left to its writer");
        }
        is_short.store(true, Ordering::Release);
    }
}

/// Brings what there is, and what came meanwhile, until little is left.
fn shorten(connection: &Connection) -> Result<(), Error> {
    for _ in 0..PASSES_MAX {
        bring(connection)?;
        let (pages, brought) = log(connection)?;
        if pages - brought <= LEFT_PAGES {
            break;
        }
    }
    Ok(())
}

/// Brings what no reader keeps from it; waits for nobody.
fn bring(connection: &Connection) -> Result<(), Error> {
    connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)?;
    Ok(())
}

/// The log's pages, and how many of them were brought.
fn log(connection: &Connection) -> Result<(usize, usize), Error> {
    let (pages, brought) = connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::NOOP)?;
    let pages = usize::try_from(pages).unwrap_or_default();
    Ok((pages, usize::try_from(brought).unwrap_or_default().min(pages)))
}

#[cfg(test)]
mod tests {
    use crate::catalog::{Catalog, api_keys};

    use super::*;

    /// Far more commits than a log has room for.
    const COMMITS: u8 = 250;

    struct Filled {
        catalog: Catalog,
        /// How often the log began anew.
        begun_anew: usize,
        log_pages: usize,
        look: Connection,
    }

    impl Filled {
        fn new(path: &Path) -> Result<Filled, Error> {
            let (catalog, _) = Catalog::open(path)?;
            let look = Connection::open(path)?;
            // There is a log for it only once it has read.
            assert_eq!(api_keys::hashes(&look)?, []);
            Ok(Filled { catalog, begun_anew: 0, log_pages: 0, look })
        }

        async fn commit(&mut self, numbers: std::ops::Range<u8>) -> Result<(), Error> {
            for number in numbers {
                let insert = move |catalog: &Connection| {
                    api_keys::insert(catalog, &"key".repeat(3000), &[number; 32], 0).map(drop)
                };
                self.catalog.write(insert).await?;
                let (pages, _) = log(&self.look)?;
                self.begun_anew += usize::from(pages < self.log_pages);
                self.log_pages = pages;
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_begins_anew_while_commits_follow_each_other() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("catalog");
        let mut filled = Filled::new(&path)?;
        filled.commit(0..COMMITS).await?;
        assert!(filled.begun_anew > 0, "{} pages", filled.log_pages);
        // As after a crash: the file and its log as they are now.
        let copy = folder.path().join("copy");
        for end in ["", "-wal"] {
            std::fs::copy(format!("{}{end}", path.display()), format!("{}{end}", copy.display()))?;
        }
        let (copied, _) = Catalog::open(&copy)?;
        assert_eq!(copied.read(api_keys::hashes).await?.len(), usize::from(COMMITS));
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_stays_holds_up_no_commit_and_the_log_goes_on_behind_it()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("catalog");
        let mut filled = Filled::new(&path)?;
        filled.commit(0..1).await?;
        let reader = Connection::open(&path)?;
        let transaction = reader.unchecked_transaction()?;
        assert_eq!(api_keys::hashes(&transaction)?.len(), 1);
        filled.commit(1..COMMITS / 2).await?;
        assert_eq!(filled.begun_anew, 0);
        assert!(filled.log_pages > LOG_PAGES);
        assert_eq!(api_keys::hashes(&transaction)?.len(), 1);
        drop(transaction);
        filled.commit(COMMITS / 2..COMMITS).await?;
        assert!(filled.begun_anew > 0, "{} pages", filled.log_pages);
        assert_eq!(api_keys::hashes(&reader)?.len(), usize::from(COMMITS));
        Ok(())
    }
}
