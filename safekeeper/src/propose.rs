//! A proposer's connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::TimelineOrigin;
use protocol::quorum::{APPEND_BYTES_MAX, AcceptorMessage, ProposerMessage, Refusal};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::acceptor::{ConnectionId, Event};
use crate::frames::{FrameReader, FrameWriter};
use crate::keeper::Keeper;
use crate::timeline::Timeline;
use crate::visitor::Visitor;

/// A proposer that says nothing for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// An append that passes a bound is held back for this long before it is refused.
const HELD_BACK_MAX: Duration = Duration::from_secs(5);
/// While an append is held back, room is looked for this often.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// WAL of one timeline that is on its way to the disk; more is not read from the socket.
const IN_FLIGHT_BYTES_MAX: u64 = 16 << 20;

/// Serves a proposer until either side ends the connection.
pub async fn serve(
    keeper: &Arc<Keeper>,
    visitor: Visitor,
    (origin, proposer): (TimelineOrigin, u128),
    mut reader: FrameReader,
    mut writer: FrameWriter,
) -> Result<(), Error> {
    let id = visitor.timeline;
    let timeline =
        match keeper.until_shutdown(keeper.timeline_for_proposer(id, origin)).await.flatten() {
            Ok(timeline) => timeline,
            Err(error) => {
                let refusal = AcceptorMessage::Refused(error.refusal());
                writer.send(&refusal, Bytes::new()).await?;
                writer.finish().await;
                return Ok(());
            }
        };
    let (answers, receiver) = mpsc::unbounded_channel();
    let connection = keeper.next_connection();
    timeline.connect(connection, answers.clone());
    let closed = CancellationToken::new();
    let sending = send_answers(writer, receiver, closed.clone());
    let stopped = keeper.shutdown.clone();
    let mut sending = keeper.tasks.spawn(async move {
        // A proposer that takes no answers must not hold up a stop.
        tokio::select! {
            () = sending => {}
            () = stopped.cancelled() => {}
        }
    });
    let proposing =
        Proposing { keeper, timeline: &timeline, visitor, connection, proposer, answers };
    let received = tokio::select! {
        received = keeper.until_shutdown(proposing.receive(&mut reader)) => received.flatten(),
        () = closed.cancelled() => Ok(()),
    };
    if let Err(error) = received.or_else(silent_end) {
        tracing::debug!(timeline = %id, %error, "a proposer's connection ends");
        // What the proposer is told goes behind the answers it is still owed.
        let _ = proposing.answers.send(AcceptorMessage::Refused(error.refusal()));
    }
    // From here on nothing may end this task early: the sender below lives as long as an answer may come.
    timeline.disconnect(connection);
    drop(proposing);
    // It ends with the last answer, because nobody can give it another one; unless the proposer takes none.
    if timeout(SILENCE_MAX, &mut sending).await.is_err() {
        sending.abort();
    }
    Ok(())
}

/// A safekeeper that is stopped just closes: the proposer has done nothing wrong, and comes again.
fn silent_end(error: Error) -> Result<(), Error> {
    if matches!(error, Error::ShuttingDown) { Ok(()) } else { Err(error) }
}

struct Proposing<'a> {
    keeper: &'a Arc<Keeper>,
    timeline: &'a Arc<Timeline>,
    visitor: Visitor,
    connection: ConnectionId,
    proposer: u128,
    answers: mpsc::UnboundedSender<AcceptorMessage>,
}

impl Proposing<'_> {
    async fn receive(&self, reader: &mut FrameReader) -> Result<(), Error> {
        // A closed channel means that the connection is over, which is noticed elsewhere.
        let _ = self.answers.send(self.timeline.greeting());
        loop {
            let next = timeout(SILENCE_MAX, reader.next()).await;
            let silence = std::io::Error::from(std::io::ErrorKind::TimedOut);
            match next.map_err(|_| Error::from(silence))?? {
                Some((message, payload)) => self.message(message, payload).await?,
                None => return Ok(()),
            }
        }
    }

    async fn message(&self, message: ProposerMessage, wal: Bytes) -> Result<(), Error> {
        let (connection, proposer) = (self.connection, self.proposer);
        let is_renewal = matches!(message, ProposerMessage::Renew { .. });
        if !is_renewal {
            self.visitor.check()?;
        }
        let (generation, event) = match message {
            ProposerMessage::Renew { token } => return Ok(self.visitor.renew(&token)?),
            ProposerMessage::Vote { generation, term } => {
                (generation, Event::Vote { connection, proposer, generation, term })
            }
            ProposerMessage::Elected { generation, term, start, history } => {
                let event =
                    Event::Elected { connection, proposer, generation, term, start, history };
                (generation, event)
            }
            ProposerMessage::Append { generation, term, begin, commit_lsn } => {
                self.wait_for_room(wal.len()).await?;
                let event = Event::Append { connection, generation, term, begin, commit_lsn, wal };
                (generation, event)
            }
        };
        if generation > self.timeline.generation() {
            self.keeper.refresh_configuration(self.timeline).await?;
        }
        self.timeline.step(event);
        Ok(())
    }

    async fn wait_for_room(&self, wal_bytes: usize) -> Result<(), Error> {
        if wal_bytes > APPEND_BYTES_MAX {
            let reason = format!("an append of {wal_bytes} bytes is above {APPEND_BYTES_MAX}");
            return Err(Refusal::Invalid(reason).into());
        }
        if wal_bytes == 0 {
            return Ok(());
        }
        let mut progress = self.timeline.watch();
        let until = Instant::now() + HELD_BACK_MAX;
        loop {
            let now = *progress.borrow_and_update();
            let Some(reason) = self.keeper.why_full(&now) else { break };
            if Instant::now() >= until {
                return Err(Refusal::Full(reason).into());
            }
            let pause = until.min(Instant::now() + ROOM_PAUSE);
            // Either a change or the pause's end: both mean to look again.
            let _ = timeout_at(pause, progress.changed()).await;
        }
        let in_flight = progress.wait_for(|now| now.in_flight_bytes < IN_FLIGHT_BYTES_MAX).await;
        in_flight.map(|_| ()).map_err(|_| Error::ShuttingDown)
    }
}

/// Sends answers as they come. Of acknowledgements that wait side by side only the last one is sent: it says all
/// that the others say.
async fn send_answers(
    mut writer: FrameWriter,
    mut answers: mpsc::UnboundedReceiver<AcceptorMessage>,
    closed: CancellationToken,
) {
    let mut next = answers.recv().await;
    while let Some(answer) = next.take() {
        let follower = answers.try_recv().ok();
        let is_covered = matches!(
            (&answer, &follower),
            (AcceptorMessage::Flushed { .. }, Some(AcceptorMessage::Flushed { .. }))
        );
        if !is_covered && writer.send(&answer, Bytes::new()).await.is_err() {
            break;
        }
        if matches!(answer, AcceptorMessage::Refused(_)) {
            break;
        }
        next = match follower {
            Some(follower) => Some(follower),
            None => answers.recv().await,
        };
    }
    writer.finish().await;
    closed.cancel();
}
