//! Gives WAL to those who read it: from the journal, and from the object store what was trimmed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use protocol::Term;
use protocol::quorum::{APPEND_BYTES_MAX, ReadLimit, ReaderMessage, Refusal};
use tokio::sync::watch;
use tokio::time::timeout;
use wal_format::Lsn;

use crate::frames::FrameWriter;
use crate::keeper::Keeper;
use crate::timeline::{Progress, Timeline};
use crate::visitor::Visitor;
use crate::wal_object::{self, WalObject};
use crate::{Error, error::not_available};

/// A reader without news gets an empty frame this often.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Serves a reader until it goes, or has what it asked for.
pub async fn serve(
    keeper: &Arc<Keeper>,
    visitor: &Visitor,
    from: Lsn,
    limit: ReadLimit,
    writer: &mut FrameWriter,
) -> Result<(), Error> {
    let id = visitor.timeline;
    let timeline = keeper.timeline(id).ok_or(Refusal::UnknownTimeline(id))?;
    let origin = timeline.origin().point.lsn;
    if from < origin {
        return Err(not_available(from, origin, timeline.log().readable));
    }
    let store = Arc::clone(&keeper.store);
    let mut wal = WalSource { timeline: Arc::clone(&timeline), store, object: None };
    match limit {
        ReadLimit::Commit => follow(&timeline, visitor, &mut wal, from, writer).await,
        ReadLimit::Flush { last_log_term, until } => {
            send_until(&timeline, visitor, &mut wal, from, (last_log_term, until), writer).await
        }
    }
}

/// Sends committed WAL as it comes, for as long as the reader may go on.
async fn follow(
    timeline: &Arc<Timeline>,
    visitor: &Visitor,
    wal: &mut WalSource,
    mut position: Lsn,
    writer: &mut FrameWriter,
) -> Result<(), Error> {
    let mut progress = timeline.watch();
    let mut told = (Term(0), Lsn::INVALID);
    // A reader says nothing more: when its token ends, it comes again with a newer one.
    while visitor.may_go_on() {
        let now = *progress.borrow_and_update();
        if now.readable > position {
            let bytes = wal.read(position, now.readable).await?;
            let wal_bytes = bytes.len() as u64;
            send(writer, position, now.commit_lsn, now.term, bytes).await?;
            position += wal_bytes;
            told = (now.term, now.commit_lsn);
            continue;
        }
        if told == (now.term, now.commit_lsn) {
            let is_news =
                move |now: &Progress| now.readable > position || (now.term, now.commit_lsn) != told;
            if let Ok(is_open) = timeout(HEARTBEAT, news(&mut progress, is_news)).await {
                is_open?;
                continue;
            }
        }
        send(writer, position, now.commit_lsn, now.term, Bytes::new()).await?;
        told = (now.term, now.commit_lsn);
    }
    Ok(())
}

async fn news(
    progress: &mut watch::Receiver<Progress>,
    mut is_news: impl FnMut(&Progress) -> bool,
) -> Result<(), Error> {
    // Other changes wake it too; they are no news for a reader.
    let news = progress.wait_for(|now| is_news(now)).await;
    news.map(|_| ()).map_err(|_| Error::ShuttingDown)
}

/// Sends flushed WAL of one log up to a position, and ends.
async fn send_until(
    timeline: &Arc<Timeline>,
    visitor: &Visitor,
    wal: &mut WalSource,
    mut position: Lsn,
    (term, until): (Term, Lsn),
    writer: &mut FrameWriter,
) -> Result<(), Error> {
    while visitor.may_go_on() {
        let log = timeline.log();
        let now = *timeline.watch().borrow();
        if !timeline.holds(term, until) {
            return Err(not_available(until, log.local_start, now.readable));
        }
        if position >= until {
            return Ok(());
        }
        let bytes = wal.read(position, until).await?;
        // Read and only then looked at again: a log that was cut meanwhile must not leave here as the asked one.
        if !timeline.holds(term, until) {
            return Err(not_available(until, log.local_start, now.readable));
        }
        let wal_bytes = bytes.len() as u64;
        send(writer, position, now.commit_lsn, now.term, bytes).await?;
        position += wal_bytes;
    }
    Ok(())
}

async fn send(
    writer: &mut FrameWriter,
    begin: Lsn,
    commit_lsn: Lsn,
    term: Term,
    wal: Bytes,
) -> Result<(), Error> {
    writer.send(&ReaderMessage::Wal { begin, commit_lsn, term }, wal).await
}

/// WAL of one timeline, wherever it is.
struct WalSource {
    timeline: Arc<Timeline>,
    store: Arc<dyn ObjectStore>,
    /// The object that was read last, checked: the next piece is in it most likely.
    object: Option<(WalObject, Bytes)>,
}

impl WalSource {
    /// Some WAL from `from` on, at least a byte, not beyond `until`.
    async fn read(&mut self, from: Lsn, until: Lsn) -> Result<Bytes, Error> {
        if let Some(wal) = self.timeline.read_local(from, until, APPEND_BYTES_MAX as u64).await? {
            return Ok(wal);
        }
        let log = self.timeline.log();
        if from >= log.offloaded_lsn {
            return Err(not_available(from, log.local_start, log.readable));
        }
        let (object, wal) = self.object_at(from).await?;
        let begin = from.since(object.begin) as usize;
        let end =
            (begin + APPEND_BYTES_MAX).min(until.min(object.end).since(object.begin) as usize);
        Ok(wal.slice(begin..end))
    }

    async fn object_at(&mut self, position: Lsn) -> Result<(WalObject, Bytes), Error> {
        if let Some((object, wal)) = &self.object
            && (object.begin..object.end).contains(&position)
        {
            return Ok((*object, wal.clone()));
        }
        let id = self.timeline.id;
        let object = wal_object::find(&*self.store, id, position).await?.ok_or_else(|| {
            Refusal::StoreUnavailable(format!(
                "no object of {id} has the offloaded WAL at {position}"
            ))
        })?;
        let wal = wal_object::get(&*self.store, id, object).await?;
        self.object = Some((object, wal.clone()));
        Ok((object, wal))
    }
}
