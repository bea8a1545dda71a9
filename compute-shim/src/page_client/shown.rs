//! The token that the pageserver was shown last, and the wait for a newer one.
//!
//! Whoever brings tokens may hang for longer than the last one is good. Then the pageserver says that
//! there is nothing, as it does to everybody without a token; but what a running compute reads is there,
//! and an error would reach its clients as a damaged table. So it is waited for, for a while.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use access::Bearer;
use parking_lot::Mutex;
use protocol::{TenantTimeline, page_service::PageError, token::Token};
use tokio::time::timeout;

/// How long a page is waited for whose token has ended. A backend that waits cannot be interrupted, so
/// this is bounded.
pub(super) const TOKEN_TIME_MAX: Duration = Duration::from_secs(600);
/// How long it waits for a newer token before it asks again.
const TOKEN_PAUSE: Duration = Duration::from_secs(1);
/// A token that ends within this time may have ended by the pageserver's clock. One that is renewed in
/// time never comes so near to its end.
const CLOCKS_DIFFER: Duration = Duration::from_secs(30);

/// What was shown last.
#[derive(Default)]
pub(super) struct Shown {
    ends: Mutex<Option<SystemTime>>,
    /// Whether it was said that reads wait.
    is_said: AtomicBool,
}

impl Shown {
    /// This is shown from now on.
    pub(super) fn show(&self, token: Option<&Token>) {
        *self.ends.lock() = token.and_then(access::ends);
    }

    /// Whether it may have ended.
    pub(super) fn is_over(&self) -> bool {
        let latest = SystemTime::now() + CLOCKS_DIFFER;
        self.ends.lock().is_some_and(|ends| ends <= latest)
    }

    /// Waits for a newer one, or for a while.
    pub(super) async fn newer(&self, timeline: TenantTimeline, bearer: &Bearer) {
        if !self.is_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %timeline, longest = ?TOKEN_TIME_MAX,
                "the token for the pageserver has ended, and no newer one was brought: reads wait"
            );
        }
        let mut bearer = bearer.clone();
        bearer.mark_seen();
        // One that came a moment ago is seen by the next attempt.
        let _ = timeout(TOKEN_PAUSE, bearer.renewed()).await;
    }

    /// Takes note of an answer.
    pub(super) fn note_answer(&self, timeline: TenantTimeline) {
        if self.is_said.load(Ordering::Relaxed) && self.is_said.swap(false, Ordering::Relaxed) {
            tracing::info!(%timeline, "a newer token was brought: reads go on");
        }
    }
}

/// Whether this is what is said to who has no token.
pub(super) fn says_nothing_is_there(refusal: &PageError) -> bool {
    matches!(refusal, PageError::NotFound(_))
}
