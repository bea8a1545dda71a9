//! The WAL proposer: carries out what [`proposer`](crate::proposer) decides, over TCP, and is the
//! quorum's side of the `pg_wal` mount.

mod member;
mod shared;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use access::Bearer;
use bytes::{Bytes, BytesMut};
use protocol::{TenantTimeline, Term, TimelineOrigin, quorum::ReadLimit};
use rand::Rng;
use tokio::time::timeout;
use tokio_util::sync::DropGuard;
use wal_format::{Lsn, Version};

use shared::{End, State};
pub(crate) use shared::{Shared, WriteFailed};

use crate::{
    ShimError,
    proposer::{Event, Over, Peer, Proposer},
    safekeeper_client::{WalStream, closed},
    wal_fs::{self, WalMount},
    wal_source::WalFolder,
    written_wal::WrittenWal,
};

/// How often one stands for election again after another won.
const ELECTION_TRIES_MAX: usize = 10;
/// The shortest pause between two elections.
const ELECTION_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two elections.
const ELECTION_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a safekeeper that does not answer is waited for where a quorum has answered.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long one safekeeper may take to give a few records.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of earlier WAL is read at once.
const EARLIER_BYTES_MAX: u64 = 4 << 20;
/// How long the last commit's news may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a proposer needs to know.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// The timeline to write.
    pub timeline: TenantTimeline,
    /// Where it begins.
    pub origin: TimelineOrigin,
    /// All safekeepers, whether they are members of the quorum or not.
    pub safekeepers: Vec<SocketAddr>,
    /// What the safekeepers are shown.
    pub bearer: Bearer,
    /// The files behind `pg_wal`: disposable, emptied at each start.
    pub wal_folder: PathBuf,
}

/// The outcome of an election.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elected {
    /// The term won.
    pub term: Term,
    /// The end of the log that was taken over: a record's end, and a quorum has it.
    pub position: Lsn,
}

/// Why a proposer that was elected can write no more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fenced {
    /// A newer proposer was elected.
    #[error("term {known} was elected on this timeline, above this compute's term {ours}")]
    Newer {
        /// This proposer's term.
        ours: Term,
        /// The newer.
        known: Term,
    },
    /// What was written, or what the safekeepers say, cannot be: this proposer fenced itself.
    #[error("{0}")]
    Broken(String),
}

/// The WAL that Postgres finds when it starts: it ends in a shutdown checkpoint record.
#[derive(Clone, Debug)]
pub struct StartWal {
    /// The position of the first byte: [`Elected::position`] for a synthesised checkpoint; the start
    /// of the checkpoint record where the log ends in one already.
    pub begin: Lsn,
    /// The stream from there, page headers included. What lies beyond [`Elected::position`] is new,
    /// and is appended through the quorum.
    pub bytes: Bytes,
    /// The start of the last record before [`Elected::position`].
    pub last_record: Lsn,
}

/// An elected proposer, its connections to the safekeepers, and the WAL that goes through it.
/// Clones are handles of the same; its tasks end with the last of them.
#[derive(Clone)]
pub struct WalProposer {
    shared: Arc<Shared>,
    _end: Arc<DropGuard>,
}

impl WalProposer {
    /// Takes the timeline over from whoever wrote it: wins an election against any race, and
    /// returns when a quorum has the whole log under the new term. Waits for a quorum to be there
    /// for as long as the caller does.
    pub async fn elect(config: WalConfig) -> Result<(WalProposer, Elected), ShimError> {
        let mut above = Term(0);
        for _ in 0..ELECTION_TRIES_MAX {
            match WalProposer::stand(config.clone(), above).await? {
                Stood::Won(proposer, elected) => return Ok((proposer, elected)),
                Stood::Lost { known } => above = known,
            }
            // Two that stand against each other must not do so in step.
            let pause = rand::rng().random_range(ELECTION_PAUSE_MIN..ELECTION_PAUSE_MAX);
            tokio::time::sleep(pause).await;
        }
        Err(ShimError::Fenced(format!("another proposer stands again and again; term {above}")))
    }

    /// Stands for election once, for a term above `above`.
    pub(crate) async fn stand(config: WalConfig, above: Term) -> Result<Stood, ShimError> {
        let version = Version::from_major(config.origin.major).ok_or_else(|| {
            ShimError::Corrupt(format!("Postgres {} is not known", config.origin.major))
        })?;
        let members = config.safekeepers.len();
        let proposer = Proposer::new(config.origin.point.lsn, members, above);
        let shared = Arc::new(Shared::new(config, version, proposer));
        let end = Arc::new(shared.over.clone().drop_guard());
        let nonce = rand::random();
        for (index, &address) in shared.config.safekeepers.iter().enumerate() {
            tokio::spawn(member::run(shared.clone(), Peer(index), address, nonce));
        }
        let mut state = shared.state.subscribe();
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            match state.borrow_and_update().clone() {
                State::Electing => {}
                State::Leading(elected) => {
                    let Elected { term, position } = elected;
                    let timeline = shared.config.timeline;
                    tracing::info!(%timeline, %term, %position, "elected");
                    return Ok(Stood::Won(WalProposer { shared, _end: end }, elected));
                }
                State::Over(End::Quorum(Over::Lost { known } | Over::Fenced { known })) => {
                    return Ok(Stood::Lost { known });
                }
                State::Over(End::Quorum(Over::Corrupt(why)) | End::Broken(why)) => {
                    return Err(ShimError::Corrupt(why));
                }
                State::Over(End::ShutDown) => return Err(ShimError::Stopped),
            }
            tokio::select! {
                _ = state.changed() => {}
                () = &mut patience, if !patience.is_elapsed() => shared.step(Event::PatienceEnded),
            }
        }
    }

    /// The committed WAL `[from, to)`, from the first safekeeper that has it.
    pub async fn read_committed(&self, from: Lsn, to: Lsn) -> Result<Bytes, ShimError> {
        let mut why = format!("no safekeeper has the WAL from {from} to {to}");
        for &address in &self.shared.config.safekeepers {
            match timeout(READ_TIMEOUT, self.read_from(address, from, to)).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = format!("safekeeper {address}: no WAL from {from} to {to} in time"),
            }
        }
        Err(ShimError::Unavailable(why))
    }

    async fn read_from(&self, address: SocketAddr, from: Lsn, to: Lsn) -> Result<Bytes, ShimError> {
        let WalConfig { timeline, bearer, .. } = &self.shared.config;
        let mut stream =
            WalStream::open(address, (*timeline, bearer), from, ReadLimit::Commit).await?;
        let mut wal = BytesMut::new();
        let wanted = to.since(from) as usize;
        while wal.len() < wanted {
            let (_, bytes) = stream.next().await?.ok_or_else(|| closed(address))?;
            wal.extend_from_slice(&bytes);
        }
        wal.truncate(wanted);
        Ok(wal.freeze())
    }

    /// The term that wrote the last byte of the log that was taken over.
    pub fn wrote_last(&self) -> Term {
        self.shared.ask(Proposer::wrote_last)
    }

    /// Puts the WAL from `from` to where the log was taken over into the folder behind `pg_wal`: a
    /// slot's reader left off there. After [`WalProposer::start_at`], before [`WalProposer::mount`].
    pub async fn put_earlier(&self, from: Lsn) -> Result<(), ShimError> {
        let shared = &self.shared;
        let (Some(position), Some(folder)) = (shared.ask(Proposer::position), shared.folder.get())
        else {
            return Err(ShimError::Stopped);
        };
        let origin = &shared.config.origin;
        let mut at = from;
        while at < position {
            let to = position.min(at + EARLIER_BYTES_MAX);
            let bytes = self.read_committed(at, to).await?;
            folder.put_earlier(origin, shared.version, at, &bytes, at == from)?;
            at = to;
        }
        Ok(())
    }

    /// Lays out the folder behind `pg_wal`, and returns when a quorum has what `wal` adds. Once in a
    /// proposer's life.
    pub async fn start_at(&self, wal: StartWal) -> Result<(), ShimError> {
        let shared = &self.shared;
        let position = shared.ask(Proposer::position).ok_or(ShimError::Stopped)?;
        let end = wal.begin + wal.bytes.len() as u64;
        let new = wal.bytes.get(position.since(wal.begin) as usize..).unwrap_or_default();
        if wal.begin > position || end < position {
            return Err(ShimError::Corrupt(format!(
                "a start's WAL reaches from {} to {end}, but the log ends at {position}",
                wal.begin
            )));
        }
        let WalConfig { origin, wal_folder, .. } = &shared.config;
        let mut written = WrittenWal::new(
            shared.version,
            origin.segment_bytes,
            origin.system_id,
            position,
            wal.last_record,
        );
        let complete = written.write(position, new);
        if complete.as_ref().ok() != Some(&end) {
            let found = complete.map_or_else(|why| why.to_string(), |lsn| format!("{lsn} is"));
            return Err(ShimError::Corrupt(format!(
                "a start's WAL must end with a record at {end}: {found}"
            )));
        }
        let folder = WalFolder::lay_out(wal_folder, origin, shared.version, wal.begin, &wal.bytes)?;
        if shared.folder.set(folder).is_err() {
            return Err(ShimError::Corrupt("a proposer starts one Postgres only".to_owned()));
        }
        shared.begin_writing(written);
        shared.step(Event::Written(end));
        self.committed(end).await
    }

    /// Mounts `pg_wal`, after [`WalProposer::start_at`]; its files are reported as `uid`'s and `gid`'s.
    pub fn mount(&self, mountpoint: &Path, uid: u32, gid: u32) -> Result<WalMount, ShimError> {
        wal_fs::mount(self.shared.clone(), mountpoint, uid, gid)
    }

    /// How far a quorum has flushed.
    pub fn commit_lsn(&self) -> Lsn {
        *self.shared.commit_lsn.borrow()
    }

    /// The end of the last complete record that was written.
    pub fn written_lsn(&self) -> Lsn {
        *self.shared.log_end.borrow()
    }

    /// What each safekeeper has flushed, in the order of the configuration; none of one that has not
    /// joined the term on its present connection.
    pub fn flush_lsns(&self) -> Vec<Option<Lsn>> {
        self.shared.ask(Proposer::flush_lsns)
    }

    /// Resolves when a newer proposer was elected: from then on every write and every fsync of
    /// `pg_wal` answers EIO.
    pub async fn fenced(&self) -> Fenced {
        let mut state = self.shared.state.subscribe();
        loop {
            if let Some(fenced) = self.shared.fenced() {
                return fenced;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends it all: what still waits on `pg_wal` answers EIO. After a clean stop of Postgres
    /// nothing waits any more, and the safekeepers are told of the last commit.
    pub async fn shutdown(&self) {
        let told = async {
            let mut told = self.shared.told.subscribe();
            let commit_lsn = self.commit_lsn();
            let quorum = self.shared.ask(Proposer::quorum);
            let _ = told
                .wait_for(|told| told.iter().filter(|&&lsn| lsn >= commit_lsn).count() >= quorum)
                .await;
        };
        if self.shared.fenced().is_none() {
            let _ = timeout(FAREWELL_TIMEOUT, told).await;
        }
        self.shared.end(End::ShutDown);
    }

    /// Waits until a quorum has everything up to `lsn`.
    async fn committed(&self, lsn: Lsn) -> Result<(), ShimError> {
        let mut commit_lsn = self.shared.commit_lsn.subscribe();
        let reached = commit_lsn.wait_for(|commit| *commit >= lsn);
        tokio::select! {
            _ = reached => Ok(()),
            () = self.shared.over.cancelled() => match self.shared.fenced() {
                Some(fenced) => Err(ShimError::Fenced(fenced.to_string())),
                None => Err(ShimError::Stopped),
            },
        }
    }
}

/// The outcome of standing for election once.
pub(crate) enum Stood {
    /// Elected.
    Won(WalProposer, Elected),
    /// Another has this term, or a higher one.
    Lost {
        /// The highest term seen.
        known: Term,
    },
}

#[cfg(test)]
mod tests;
