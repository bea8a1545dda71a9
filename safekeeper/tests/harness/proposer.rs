//! A small proposer: one step after the other, and all WAL of its timeline in memory.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use protocol::quorum::{
    AcceptorMessage, Configuration, ProposerMessage, Purpose, ReadLimit, ReaderMessage, Refusal,
    TermHistory, TermStart,
};
use protocol::{TenantTimeline, Term};
use wal_format::{Lsn, Version, WalReader};

use super::Frames;
use super::wal::{WalWriter, origin};

/// One append of a log that a member lacks.
const CATCH_UP_BYTES: usize = 256 << 10;

/// A proposer that was elected.
pub struct Proposer {
    pub id: TenantTimeline,
    pub term: Term,
    pub configuration: Configuration,
    pub history: TermHistory,
    /// The timeline's WAL from its origin on.
    pub log: Vec<u8>,
    pub commit_lsn: Lsn,
    writer: WalWriter,
    start: Lsn,
    proposer: u128,
    addresses: Vec<SocketAddr>,
    links: Vec<Option<Link>>,
}

struct Link {
    frames: Frames,
    flushed: Lsn,
}

/// What a safekeeper says when it is asked for a vote.
struct Voter {
    address: SocketAddr,
    frames: Frames,
    greeted: Term,
    configuration: Option<Configuration>,
}

fn begin() -> Lsn {
    origin().point.lsn
}

async fn greet(
    address: SocketAddr,
    id: TenantTimeline,
    proposer: u128,
) -> Result<(Frames, Term, Option<Configuration>)> {
    let purpose = Purpose::Propose { origin: origin(), proposer };
    let mut frames = Frames::connect(address, id, purpose).await?;
    match frames.next().await? {
        Some((AcceptorMessage::Greeting { term, configuration, .. }, _)) => {
            Ok((frames, term, configuration))
        }
        Some((AcceptorMessage::Refused(refusal), _)) => Err(refusal.into()),
        other => bail!("a greeting was expected, {other:?} was found"),
    }
}

async fn next(frames: &mut Frames) -> Result<AcceptorMessage> {
    match frames.next().await? {
        Some((AcceptorMessage::Refused(refusal), _)) => Err(refusal.into()),
        Some((message, _)) => Ok(message),
        None => bail!("the safekeeper closed the connection"),
    }
}

impl Proposer {
    /// Is elected by all that can be reached, takes the best log over, and joins with all of them.
    pub async fn elect(addresses: &[SocketAddr], id: TenantTimeline) -> Result<Proposer> {
        let proposer = rand::random();
        let mut voters = Vec::new();
        let mut refusals = Vec::new();
        for &address in addresses {
            match greet(address, id, proposer).await {
                Ok((frames, greeted, configuration)) => {
                    voters.push(Voter { address, frames, greeted, configuration });
                }
                Err(error) => refusals.push(error),
            }
        }
        let newest = voters.iter().filter_map(|voter| voter.configuration.clone());
        let Some(configuration) = newest.max_by_key(|it| it.generation) else {
            return Err(refusals.pop().context("there are addresses")?);
        };
        let term = voters.iter().map(|voter| voter.greeted).max().context("a voter")?.next();
        let generation = configuration.generation;
        let mut votes = Vec::new();
        for voter in &mut voters {
            voter.frames.send(&ProposerMessage::Vote { generation, term }, &[]).await?;
            match next(&mut voter.frames).await? {
                AcceptorMessage::Vote { granted: true, flush_lsn, commit_lsn, history, .. } => {
                    votes.push((
                        history.last_term(),
                        flush_lsn,
                        commit_lsn,
                        history,
                        voter.address,
                    ));
                }
                other => bail!("a vote was expected, {other:?} was found"),
            }
        }
        ensure!(votes.len() >= configuration.quorum(), "{} votes", votes.len());
        let commit_lsn = votes.iter().map(|vote| vote.2).max().context("a vote")?;
        let best = votes.into_iter().max_by_key(|vote| (vote.0, vote.1));
        let (last_log_term, start, _, mut history, donor) = best.context("a vote")?;
        let log = match start == begin() {
            true => Vec::new(),
            false => read_log(donor, id, last_log_term, start).await?,
        };
        history.push(TermStart { term, start })?;
        let writer = WalWriter::new(start, last_record(&log)?);
        let links = addresses.iter().map(|_| None).collect();
        let addresses = addresses.to_vec();
        let mut proposer = Proposer {
            id,
            term,
            configuration,
            history,
            log,
            commit_lsn,
            writer,
            start,
            proposer,
            addresses,
            links,
        };
        for index in 0..proposer.addresses.len() {
            let is_voter = voters.iter().any(|voter| voter.address == proposer.addresses[index]);
            if is_voter {
                proposer.join(index).await?;
            }
        }
        proposer.count().await?;
        Ok(proposer)
    }

    /// The end of its log.
    pub fn end(&self) -> Lsn {
        begin() + self.log.len() as u64
    }

    /// Connects anew, as after a broken connection, and brings the safekeeper up to the end of the log.
    pub async fn join(&mut self, index: usize) -> Result<()> {
        self.links[index] = None;
        let (mut frames, _, configuration) =
            greet(self.addresses[index], self.id, self.proposer).await?;
        if let Some(newer) = configuration
            && newer.generation > self.configuration.generation
        {
            self.configuration = newer;
        }
        let (generation, term) = (self.configuration.generation, self.term);
        frames.send(&ProposerMessage::Vote { generation, term }, &[]).await?;
        let AcceptorMessage::Vote { term: known, flush_lsn, history, .. } =
            next(&mut frames).await?
        else {
            bail!("a vote was expected");
        };
        if known > term {
            return Err(Refusal::Fenced { asked: term, known }.into());
        }
        let start = history.common_end(flush_lsn, &self.history, Lsn::MAX, begin());
        let history = self.history.clone();
        let elected = ProposerMessage::Elected { generation, term, start, history };
        frames.send(&elected, &[]).await?;
        let answer = next(&mut frames).await?;
        ensure!(answer == AcceptorMessage::Flushed { term, flush_lsn: start }, "{answer:?}");
        let mut link = Link { frames, flushed: start };
        let missing = self.log[start.since(begin()) as usize..].to_vec();
        let mut position = start;
        for piece in missing.chunks(CATCH_UP_BYTES) {
            self.send(&mut link, position, piece).await?;
            position += piece.len() as u64;
        }
        self.wait(&mut link, self.end()).await?;
        self.links[index] = Some(link);
        Ok(())
    }

    /// Adds a record and waits for all that are connected; how many have it. Committed if they are a quorum.
    pub async fn append(&mut self, content: &[u8]) -> Result<usize> {
        let record = self.record(content);
        let having = self.replicate(record).await?;
        self.count().await?;
        Ok(having)
    }

    /// Adds records of this size, about so many bytes.
    pub async fn append_many(&mut self, record_bytes: usize, bytes: usize) -> Result<usize> {
        let wal = self.records(record_bytes, bytes);
        let having = self.replicate(wal).await?;
        self.count().await?;
        Ok(having)
    }

    /// The next record, to be replicated.
    pub fn record(&mut self, content: &[u8]) -> Bytes {
        self.writer.record(content)
    }

    /// The next records, to be replicated.
    pub fn records(&mut self, record_bytes: usize, bytes: usize) -> Bytes {
        self.writer.records(record_bytes, bytes)
    }

    /// Sends WAL to all that are connected and waits for them, without telling them how far a quorum is.
    pub async fn replicate(&mut self, wal: Bytes) -> Result<usize> {
        let begin = self.end();
        self.log.extend_from_slice(&wal);
        let end = self.end();
        let mut links = std::mem::take(&mut self.links);
        let replicated = links.iter_mut().map(|slot| {
            let (proposer, wal) = (&*self, &wal);
            async move {
                let Some(link) = slot else { return None };
                let failed = proposer.replicate_to(link, begin, wal, end).await.err();
                if failed.is_some() {
                    *slot = None;
                }
                failed
            }
        });
        let failures: Vec<_> =
            futures::future::join_all(replicated).await.into_iter().flatten().collect();
        self.links = links;
        let having = self.links.iter().flatten().filter(|link| link.flushed >= end).count();
        match failures.into_iter().next() {
            // What a safekeeper refuses is told only where it keeps the WAL from being committed.
            Some(error) if having < self.configuration.quorum() => Err(error),
            _ => Ok(having),
        }
    }

    async fn replicate_to(&self, link: &mut Link, begin: Lsn, wal: &[u8], end: Lsn) -> Result<()> {
        let mut position = begin;
        for piece in wal.chunks(CATCH_UP_BYTES) {
            self.send(link, position, piece).await?;
            position += piece.len() as u64;
        }
        self.wait(link, end).await
    }

    /// Tells all how far a quorum is, in a heartbeat, and takes what they answer.
    pub async fn count(&mut self) -> Result<()> {
        let mut flushed: Vec<Lsn> = self.links.iter().flatten().map(|link| link.flushed).collect();
        flushed.sort_unstable_by(|one, other| other.cmp(one));
        let by_quorum = flushed.get(self.configuration.quorum() - 1).copied();
        if let Some(lsn) = by_quorum.filter(|&lsn| lsn >= self.start) {
            self.commit_lsn = self.commit_lsn.max(lsn);
        }
        let mut links = std::mem::take(&mut self.links);
        for slot in &mut links {
            let Some(mut link) = slot.take() else { continue };
            let told = self.send(&mut link, self.end(), &[]).await;
            if told.is_ok() && self.answer(&mut link).await.is_ok() {
                *slot = Some(link);
            }
        }
        self.links = links;
        Ok(())
    }

    async fn send(&self, link: &mut Link, begin: Lsn, wal: &[u8]) -> Result<()> {
        let (generation, term) = (self.configuration.generation, self.term);
        let commit_lsn = self.commit_lsn;
        let append = ProposerMessage::Append { generation, term, begin, commit_lsn };
        link.frames.send(&append, wal).await
    }

    async fn wait(&self, link: &mut Link, until: Lsn) -> Result<()> {
        while link.flushed < until {
            self.answer(link).await?;
        }
        Ok(())
    }

    async fn answer(&self, link: &mut Link) -> Result<()> {
        match next(&mut link.frames).await? {
            AcceptorMessage::Flushed { term, flush_lsn } if term == self.term => {
                ensure!(flush_lsn >= link.flushed, "what is flushed stays flushed");
                link.flushed = flush_lsn;
                Ok(())
            }
            other => bail!("an acknowledgement was expected, {other:?} was found"),
        }
    }
}

/// Elects until it succeeds: safekeepers that recover refuse for a while.
pub async fn elect_patiently(
    addresses: &[SocketAddr],
    id: TenantTimeline,
    voters: usize,
) -> Result<Proposer> {
    let deadline = tokio::time::Instant::now() + super::PATIENCE;
    loop {
        let elected = Proposer::elect(addresses, id).await;
        match elected {
            Ok(proposer) if proposer.links.iter().flatten().count() >= voters => {
                return Ok(proposer);
            }
            other if tokio::time::Instant::now() > deadline => {
                return other.and_then(|_| bail!("fewer than {voters} take part"));
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn read_log(
    donor: SocketAddr,
    id: TenantTimeline,
    last_log_term: Term,
    until: Lsn,
) -> Result<Vec<u8>> {
    let limit = ReadLimit::Flush { last_log_term, until };
    let mut frames = Frames::connect(donor, id, Purpose::Read { from: begin(), limit }).await?;
    let mut log = Vec::new();
    while let Some((message, wal)) = frames.next().await? {
        match message {
            ReaderMessage::Wal { .. } => log.extend_from_slice(&wal),
            ReaderMessage::Refused(refusal) => return Err(refusal.into()),
            ReaderMessage::Status(_) => bail!("a status nobody asked for"),
        }
    }
    ensure!(begin() + log.len() as u64 == until, "the log is there to its end");
    Ok(log)
}

fn last_record(log: &[u8]) -> Result<Lsn> {
    let (origin, last) = (origin(), origin().point.last_record);
    let mut reader = WalReader::new(Version::V15, origin.segment_bytes, begin(), Some(last));
    reader.feed(begin(), log)?;
    while reader.next_record()?.is_some() {}
    reader.last_record().context("a log has a last record")
}
