//! A timeline's committed WAL in one stream, whichever safekeepers there are.
//!
//! A safekeeper that breaks off, falls silent or lacks what is wanted is left for the next. So is
//! one that hears of no commit while another has: nobody may be telling it any more.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use protocol::quorum::{ReadLimit, Refusal};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use wal_format::{Lsn, segment_prefix};

use super::FeedConfig;
use crate::{
    ShimError,
    safekeeper_client::{WalStream, status},
    wal_source::POSTGRES_TIMELINE,
};

/// The first pause after no safekeeper could serve; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two rounds of asking all safekeepers.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a safekeeper may have nothing new before the others are asked whether they have.
const NOTHING_NEW_MAX: Duration = Duration::from_secs(3);
/// The most of what is before the timeline that is given out at once.
const BLANK_BYTES_MAX: u64 = 1 << 20;

/// Why a safekeeper is left.
enum Left {
    /// Nobody takes WAL any more.
    Unwanted,
    /// What is wanted next is not kept any more, as it says.
    Gone(String),
    /// Another may serve.
    Lost(String),
}

/// Gives out the WAL from `from` on, which is a segment's start, piece by piece. Returns why there is
/// no more: all safekeepers say that what is next is not kept.
pub(super) async fn read(config: &FeedConfig, from: Lsn, pieces: mpsc::Sender<Bytes>) -> String {
    let mut at = from;
    for piece in before_timeline(config, from) {
        at += piece.len() as u64;
        if pieces.send(piece).await.is_err() {
            return std::future::pending().await;
        }
    }
    let mut pause = PAUSE_MIN;
    loop {
        let (before, mut gone) = (at, Vec::new());
        for &safekeeper in &config.safekeepers {
            match follow(config, safekeeper, &mut at, &pieces).await {
                Left::Unwanted => return std::future::pending().await,
                Left::Gone(why) => gone.push(why),
                Left::Lost(why) => {
                    tracing::info!(timeline = %config.timeline, %safekeeper, why, "WAL is read elsewhere");
                }
            }
        }
        if gone.len() == config.safekeepers.len()
            && let Some(why) = gone.pop()
        {
            return why;
        }
        pause = if at > before { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        sleep(pause).await;
    }
}

/// Gives out what one safekeeper has from `at` on, as long as it serves.
async fn follow(
    config: &FeedConfig,
    safekeeper: SocketAddr,
    at: &mut Lsn,
    pieces: &mpsc::Sender<Bytes>,
) -> Left {
    let whose = (config.timeline, &config.bearer);
    let mut stream = match WalStream::open(safekeeper, whose, *at, ReadLimit::Commit).await {
        Ok(stream) => stream,
        Err(error) => return left(error),
    };
    let mut new_at = Instant::now();
    loop {
        match stream.next().await {
            Ok(Some((_, wal))) if wal.is_empty() => {
                if new_at.elapsed() >= NOTHING_NEW_MAX {
                    if is_behind(config, safekeeper, *at).await {
                        return Left::Lost("it hears of no commits".to_owned());
                    }
                    new_at = Instant::now();
                }
            }
            Ok(Some((_, wal))) => {
                *at += wal.len() as u64;
                new_at = Instant::now();
                if pieces.send(wal).await.is_err() {
                    return Left::Unwanted;
                }
            }
            Ok(None) => return Left::Lost("it closed the connection".to_owned()),
            Err(error) => return left(error),
        }
    }
}

fn left(error: ShimError) -> Left {
    match error {
        ShimError::Quorum(Refusal::NotAvailable { asked, from, .. }) if asked < from => {
            Left::Gone(error.to_string())
        }
        error => Left::Lost(error.to_string()),
    }
}

/// Whether another safekeeper knows of more that is committed.
async fn is_behind(config: &FeedConfig, safekeeper: SocketAddr, at: Lsn) -> bool {
    let others = config.safekeepers.iter().filter(|other| **other != safekeeper);
    let asked = others.map(|other| status(*other, config.timeline, &config.bearer));
    let said = futures::future::join_all(asked).await;
    said.into_iter().flatten().any(|status| status.commit_lsn > at)
}

/// What a walreceiver is given from a segment's start to the timeline's own: the headers of the pages
/// that Postgres looks at, and zeros, which are never replayed.
fn before_timeline(config: &FeedConfig, from: Lsn) -> impl Iterator<Item = Bytes> + use<> {
    let origin = config.origin;
    let begin = origin.point.lsn;
    let headers = segment_prefix(
        config.version,
        origin.system_id,
        POSTGRES_TIMELINE,
        origin.segment_bytes,
        begin,
    );
    let starts = (from.0..begin.0).step_by(BLANK_BYTES_MAX as usize).map(Lsn);
    starts.map(move |start| {
        let end = begin.min(start + BLANK_BYTES_MAX);
        let mut blank = BytesMut::zeroed(end.since(start) as usize);
        for header in headers.iter().filter(|header| start <= header.begin && header.begin < end) {
            // Pieces begin with a page, and no header reaches beyond its own.
            let place = header.begin.since(start) as usize;
            blank[place..place + header.bytes.len()].copy_from_slice(&header.bytes);
        }
        blank.freeze()
    })
}
