//! Tells the safekeepers which WAL is in layers and not needed any more.

use std::{net::SocketAddr, time::Duration};

use access::Bearer;
use protocol::quorum::Purpose;
use tokio::time::sleep;
use tracing::debug;
use wal_format::Lsn;

use super::{
    Safekeepers,
    session::{connect, receive},
};
use crate::timeline::Timeline;

/// Pause between two rounds: flushes that follow each other closely are told together, and a
/// safekeeper that was away is told later.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells every safekeeper each time the LSN has moved; never ends.
pub(super) async fn tell(timeline: &Timeline, safekeepers: &Safekeepers) {
    let mut told = vec![Lsn::INVALID; safekeepers.addresses.len()];
    // What a timeline begins with is its ancestor's, of which the safekeepers know nothing.
    let mut watch = timeline.watch_remote_consistent_lsn();
    loop {
        let reached = *watch.borrow_and_update();
        if reached > timeline.origin().point.lsn {
            for (&safekeeper, told) in safekeepers.addresses.iter().zip(&mut told) {
                if *told < reached
                    && tell_one(timeline, (safekeeper, &safekeepers.bearer), reached).await
                {
                    *told = reached;
                }
            }
        }
        sleep(PAUSE).await;
        let all_told = told.iter().all(|&told| told >= reached);
        if all_told && watch.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Tells every safekeeper what has been reached now, where there is anything that it could drop.
/// One that does not listen is told when the timeline is in use again.
pub(super) async fn tell_once(timeline: &Timeline, safekeepers: &Safekeepers) {
    let reached = timeline.remote_consistent_lsn();
    if reached > timeline.origin().point.lsn {
        for &safekeeper in &safekeepers.addresses {
            tell_one(timeline, (safekeeper, &safekeepers.bearer), reached).await;
        }
    }
}

async fn tell_one(
    timeline: &Timeline,
    (safekeeper, bearer): (SocketAddr, &Bearer),
    reached: Lsn,
) -> bool {
    let purpose = Purpose::Consumed { remote_consistent_lsn: reached };
    let answer = async {
        let mut stream = connect(safekeeper, bearer, timeline, purpose).await?;
        receive(&mut stream).await
    };
    match answer.await {
        Ok(_) => true,
        Err(reason) => {
            debug!(%safekeeper, %reason, "a safekeeper was not told what is consumed");
            false
        }
    }
}
