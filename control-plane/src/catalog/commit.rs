//! One thread writes: whoever waits while it commits is in its next transaction, so a commit costs
//! one fsync however many writes it has.
//!
//! A write is answered after its transaction is on disk. Each has a savepoint: one that is refused
//! takes nothing of the others back.

use std::{
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Error, checkpoint::Checkpoints};

/// The most writes of one transaction.
const BATCH_MAX: usize = 256;
/// The most writes that wait.
const WAITING_MAX: usize = 4096;

/// What is left to be done after a write: told whether it is on disk.
struct Done {
    keep: bool,
    tell: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

type Job = Box<dyn FnOnce(&Connection) -> Done + Send>;

/// The thread that writes.
pub(super) struct Writer {
    jobs: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection, path: &Path) -> Result<Writer, Error> {
        let checkpoints = Checkpoints::start(&connection, path)?;
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || run(&connection, checkpoints, &receiver))
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Writer { jobs: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Carries a write out, and waits until it is on disk. An error takes the whole write back.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = work(connection);
            let keep = outcome.is_ok();
            let tell = move |committed: Result<(), Error>| {
                // Nobody may wait for it any more.
                let _unheard = sender.send(outcome.and_then(|value| committed.map(|()| value)));
            };
            Done { keep, tell: Box::new(tell) }
        });
        let jobs = self.jobs.lock().clone().ok_or_else(closed)?;
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(std::sync::mpsc::TrySendError::Full(_)) => {
                return Err(Error::Unavailable(format!(
                    "{WAITING_MAX} writes wait for the disk: try again later"
                )));
            }
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(closed()),
        }
        receiver.await.map_err(|_| closed())?
    }

    /// Carries out what waits, and ends the thread.
    pub(super) fn close(&self) {
        drop(self.jobs.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the catalog's thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> Error {
    Error::Unavailable("it is closed".to_owned())
}

fn run(connection: &Connection, mut checkpoints: Checkpoints, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let batch = std::iter::once(first).chain(std::iter::from_fn(|| jobs.try_recv().ok()));
        commit(connection, batch.take(BATCH_MAX));
        checkpoints.after_commit(connection);
    }
}

fn commit(connection: &Connection, batch: impl Iterator<Item = Job>) {
    let begun = execute(connection, "BEGIN IMMEDIATE");
    let mut done = Vec::new();
    let mut broken = begun.err();
    for job in batch {
        let one = match &broken {
            None => attempt(connection, job, &mut broken),
            // Without a transaction nothing may be tried; the write is told why.
            Some(_) => None,
        };
        done.extend(one);
    }
    let committed = match broken {
        None => execute(connection, "COMMIT"),
        Some(error) => Err(error),
    };
    if committed.is_err() && !connection.is_autocommit() {
        // What cannot be rolled back ends with the connection; the next BEGIN says so.
        let _rolled_back = connection.execute_batch("ROLLBACK");
    }
    for one in done {
        (one.tell)(committed.clone());
    }
}

fn attempt(connection: &Connection, job: Job, broken: &mut Option<Error>) -> Option<Done> {
    if let Err(error) = execute(connection, "SAVEPOINT one") {
        *broken = Some(error);
        return None;
    }
    let done = job(connection);
    let taken_back = if done.keep { Ok(()) } else { execute(connection, "ROLLBACK TO one") };
    if let Err(error) = taken_back.and_then(|()| execute(connection, "RELEASE one")) {
        *broken = Some(error);
    }
    Some(done)
}

/// Carries one statement out, parsed only the first time.
fn execute(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
