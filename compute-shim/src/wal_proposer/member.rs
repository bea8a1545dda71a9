//! The task that talks to one safekeeper: connects, carries messages both ways, streams the WAL,
//! connects again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use access::Bearer;
use bytes::Bytes;
use protocol::quorum::{
    APPEND_BYTES_MAX, AcceptorMessage, ProposerMessage, Purpose, ReadLimit, Refusal,
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use wal_format::Lsn;

use super::shared::{Command, Shared};
use crate::{
    ShimError,
    proposer::{Event, Peer},
    safekeeper_client::{self, FrameReader, FrameWriter, WalStream, closed},
    wal_source::{SegmentReader, WalFolder},
};

/// Between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// The first attempts come faster: a safekeeper may be about to start.
const RECONNECT_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Between two frames of an idle stream.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The news of a commit waits so long for WAL that carries it: under load there always is some, and
/// frames of its own would double their number.
const NEWS_PAUSE: Duration = Duration::from_millis(1);
/// Between two attempts to find another safekeeper that has what this one lacks.
const DONOR_PAUSE: Duration = Duration::from_millis(100);

/// Talks to `peer` until the proposer is over.
pub(super) async fn run(shared: Arc<Shared>, peer: Peer, address: SocketAddr, proposer: u128) {
    let mut pause = RECONNECT_PAUSE_FIRST;
    loop {
        let commands = shared.link(peer);
        let ended = tokio::select! {
            () = shared.over.cancelled() => return,
            ended = session(&shared, peer, address, proposer, commands) => ended,
        };
        shared.step(Event::Disconnected(peer));
        let (why, at_once) = match ended {
            Ok(why) => why,
            Err(error) => (error.to_string(), false),
        };
        tracing::debug!(timeline = %shared.config.timeline, %address, why, "safekeeper connection ended");
        if !at_once {
            tokio::select! {
                () = shared.over.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
        pause = (pause * 2).min(RECONNECT_PAUSE);
    }
}

/// One connection. Ends with the reason, and whether to connect anew at once.
async fn session(
    shared: &Shared,
    peer: Peer,
    address: SocketAddr,
    proposer: u128,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Result<(String, bool), ShimError> {
    let purpose = Purpose::Propose { origin: shared.config.origin, proposer };
    let mut bearer = shared.config.bearer.clone();
    bearer.mark_seen();
    let (reader, writer) =
        safekeeper_client::connect(address, shared.config.timeline, &bearer, purpose).await?;
    let mut sender =
        Sender { shared, peer, writer, bearer, segments: None, next: None, told: Lsn(0) };
    tokio::select! {
        ended = listen(shared, peer, address, reader) => ended,
        ended = sender.run(commands) => ended.map(|why| (why, false)),
    }
}

async fn listen(
    shared: &Shared,
    peer: Peer,
    address: SocketAddr,
    mut reader: FrameReader,
) -> Result<(String, bool), ShimError> {
    loop {
        let Some((message, _)) = reader.next::<AcceptorMessage>().await? else {
            return Err(closed(address));
        };
        let refused = match &message {
            AcceptorMessage::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        };
        shared.step(Event::Message(peer, message));
        if let Some(refusal) = refused {
            let at_once = matches!(refusal, Refusal::OldConfiguration { .. });
            return Ok((refusal.to_string(), at_once));
        }
    }
}

struct Sender<'a> {
    shared: &'a Shared,
    peer: Peer,
    writer: FrameWriter,
    bearer: Bearer,
    segments: Option<SegmentReader<'a>>,
    /// The next byte to send, once the acceptor was told of the election.
    next: Option<Lsn>,
    /// The commit LSN that the last frame carried.
    told: Lsn,
}

impl Sender<'_> {
    async fn run(
        &mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) -> Result<String, ShimError> {
        let mut log_end = self.shared.log_end.subscribe();
        let mut commit_lsn = self.shared.commit_lsn.subscribe();
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut news_due = None;
        loop {
            let streams = self.next.is_some();
            let mut beat = false;
            let news_wait = sleep_until(news_due.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(Command::Send(message)) => self.writer.send(&message, &[]).await?,
                    Some(Command::Stream(from)) => self.next = Some(from),
                    Some(Command::Reconnect(why)) => return Ok(why),
                    None => return Ok("another connection took over".to_owned()),
                },
                token = self.bearer.renewed() => {
                    self.writer.send(&ProposerMessage::Renew { token }, &[]).await?;
                }
                _ = log_end.changed(), if streams => {}
                _ = commit_lsn.changed(), if streams => {}
                _ = heartbeat.tick(), if streams => beat = true,
                () = news_wait, if news_due.is_some() => beat = true,
            }
            // Commands come between two pieces: a stream that was called off must not go on.
            while commands.is_empty() && self.send_piece(&commands).await? {}
            if let Some(next) = self.next.filter(|_| beat) {
                self.append(next, Bytes::new()).await?;
                news_due = None;
            }
            let news = self.next.is_some() && self.told < *commit_lsn.borrow();
            news_due = news.then(|| news_due.unwrap_or_else(|| Instant::now() + NEWS_PAUSE));
        }
    }

    /// Sends the next piece of WAL, where there is one.
    async fn send_piece(
        &mut self,
        commands: &mpsc::UnboundedReceiver<Command>,
    ) -> Result<bool, ShimError> {
        let log_end = *self.shared.log_end.borrow();
        let Some(next) = self.next.filter(|next| *next < log_end) else { return Ok(false) };
        if self.segments.is_none() {
            self.segments = self.shared.folder.get().map(WalFolder::reader);
        }
        let read = match &mut self.segments {
            Some(segments) => segments.read(next, log_end, APPEND_BYTES_MAX),
            None => Ok(None),
        };
        match read.map_err(ShimError::io(format!("read WAL at {next}")))? {
            Some(bytes) => self.append(next, bytes).await?,
            None => {
                if let Err(error) = self.send_from_donor(next, log_end, commands).await? {
                    let timeline = self.shared.config.timeline;
                    tracing::debug!(%timeline, %next, %error, "no other safekeeper feeds this one");
                    sleep(DONOR_PAUSE).await;
                    self.append(self.next.unwrap_or(next), Bytes::new()).await?;
                }
            }
        }
        Ok(true)
    }

    /// Sends WAL that another safekeeper has. The inner error is that one's.
    async fn send_from_donor(
        &mut self,
        next: Lsn,
        log_end: Lsn,
        commands: &mpsc::UnboundedReceiver<Command>,
    ) -> Result<Result<(), ShimError>, ShimError> {
        let (term, position) = self.shared.ask(|proposer| (proposer.term(), proposer.position()));
        // A log is asked for by its last term, so at least up to where this term begins.
        let position = position.unwrap_or(log_end);
        let until = match self.shared.folder.get() {
            Some(folder) if next >= position => folder.segment_end(next).min(log_end),
            _ => position,
        };
        let holder = self.shared.ask(|proposer| proposer.holder(until, self.peer));
        let Some(&address) = holder.and_then(|peer| self.shared.config.safekeepers.get(peer.0))
        else {
            let why = format!("no other safekeeper has the WAL from {next} to {until} yet");
            return Ok(Err(ShimError::Unavailable(why)));
        };
        let limit = ReadLimit::Flush { last_log_term: term, until };
        let timeline = self.shared.config.timeline;
        let mut stream = match WalStream::open(address, (timeline, &self.bearer), next, limit).await
        {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            match stream.next().await {
                Ok(Some((begin, bytes))) if !bytes.is_empty() => self.append(begin, bytes).await?,
                Ok(Some(_)) => {}
                Ok(None) if self.next >= Some(until) => return Ok(Ok(())),
                Ok(None) => return Ok(Err(closed(address))),
                Err(error) => return Ok(Err(error)),
            }
            if !commands.is_empty() {
                return Ok(Ok(()));
            }
        }
    }

    async fn append(&mut self, begin: Lsn, bytes: Bytes) -> Result<(), ShimError> {
        let (generation, term) = self.shared.ask(|core| (core.generation(), core.term()));
        let commit_lsn = *self.shared.commit_lsn.borrow();
        let header = ProposerMessage::Append { generation, term, begin, commit_lsn };
        self.writer.send(&header, &bytes).await?;
        self.next = Some(begin + bytes.len() as u64);
        self.told = commit_lsn;
        let place = self.peer.0;
        self.shared.told.send_modify(|told| {
            if let Some(told) = told.get_mut(place) {
                *told = commit_lsn;
            }
        });
        Ok(())
    }
}
