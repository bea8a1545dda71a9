//! Throttling: a store that asks for fewer requests gets none until the time that it names.
//!
//! `object_store` tries a throttled request again after a random wait, whatever the reply says, and
//! sends all others meanwhile. Here the reply's `Retry-After` holds all requests back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A reply that asks for more than this is heard as if it asked for this.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Makes clients that pause together.
#[derive(Debug, Default)]
pub(super) struct SlowDownConnector {
    pause: Arc<Pause>,
}

impl HttpConnector for SlowDownConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Paused { inner, pause: Arc::clone(&self.pause) }))
    }
}

#[derive(Debug)]
struct Paused {
    inner: HttpClient,
    pause: Arc<Pause>,
}

#[async_trait]
impl HttpService for Paused {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.pause.over().await;
        let response = self.inner.execute(request).await?;
        let header = response.headers().get("retry-after");
        let header = header.and_then(|value| value.to_str().ok());
        if let Some(pause) = asked_pause(response.status().as_u16(), header) {
            self.pause.lengthen(Instant::now() + pause);
        }
        Ok(response)
    }
}

/// Until when nothing is sent.
#[derive(Debug, Default)]
struct Pause(Mutex<Option<Instant>>);

impl Pause {
    fn lengthen(&self, until: Instant) {
        let mut known = self.0.lock();
        *known = (*known).max(Some(until));
    }

    async fn over(&self) {
        loop {
            let until = *self.0.lock();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

/// How long a reply asks all requests to wait: 503 (S3's SlowDown) or 429 with seconds.
fn asked_pause(status: u16, retry_after: Option<&str>) -> Option<Duration> {
    if !matches!(status, 429 | 503) {
        return None;
    }
    let seconds = retry_after?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_throttling_reply_with_seconds_asks_for_a_pause_and_never_for_a_long_one() {
        assert_eq!(asked_pause(503, Some("2")), Some(Duration::from_secs(2)));
        assert_eq!(asked_pause(429, Some(" 1 ")), Some(Duration::from_secs(1)));
        assert_eq!(asked_pause(503, Some("86400")), Some(PAUSE_MAX));
        assert_eq!(asked_pause(503, None), None);
        assert_eq!(asked_pause(503, Some("Wed, 21 Oct 2015 07:28:00 GMT")), None);
        assert_eq!(asked_pause(500, Some("2")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_until_the_latest_moment_that_was_asked_for() {
        let (pause, began) = (Pause::default(), Instant::now());
        pause.over().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        pause.lengthen(began + Duration::from_secs(3));
        pause.lengthen(began + Duration::from_secs(1));
        tokio::join!(pause.over(), pause.over());
        assert!(began.elapsed() >= Duration::from_secs(3));
    }
}
