//! Work that nobody waits for lets requests go before: it takes its turn when the API is calm.
//!
//! Under a load that never ends each piece waits at most [`WAIT_MAX`], so that some of it is always done.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The API is calm when it had no request for so long.
const CALM_AFTER: Duration = Duration::from_millis(20);
/// The longest that one piece of work waits for it.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Knows when the last request came.
pub(super) struct Calm {
    last_request: Mutex<Instant>,
}

/// Pieces of work that have this in common wait one after the other: under load they go one at a time.
pub(crate) type Turn = tokio::sync::Mutex<()>;

impl Calm {
    pub(super) fn new() -> Calm {
        Calm { last_request: Mutex::new(Instant::now()) }
    }

    /// A request came.
    pub(super) fn disturb(&self) {
        *self.last_request.lock() = Instant::now();
    }

    /// Waits until there was no request for a while.
    pub(super) async fn wait(&self, turn: &Turn) {
        let _turn = turn.lock().await;
        let latest = Instant::now() + WAIT_MAX;
        loop {
            let calm_at = (*self.last_request.lock() + CALM_AFTER).min(latest);
            if calm_at <= Instant::now() {
                return;
            }
            sleep_until(calm_at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_waits_until_requests_have_ceased() {
        let calm = Arc::new(Calm::new());
        let requests = tokio::spawn({
            let calm = calm.clone();
            async move {
                for _ in 0..5 {
                    calm.disturb();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        let began = Instant::now();
        calm.wait(&Turn::default()).await;
        assert!(requests.is_finished());
        assert_eq!(began.elapsed(), Duration::from_millis(60));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_never_cease_do_not_stop_the_work() {
        let calm = Arc::new(Calm::new());
        let requests = tokio::spawn({
            let calm = calm.clone();
            async move {
                loop {
                    calm.disturb();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        let began = Instant::now();
        let turn = Turn::default();
        tokio::join!(calm.wait(&turn), calm.wait(&turn), calm.wait(&turn));
        assert_eq!(began.elapsed(), 3 * WAIT_MAX);
        requests.abort();
    }
}
