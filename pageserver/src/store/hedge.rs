//! Slow reads are asked a second time, and the first answer counts.
//!
//! One request in some hundred takes many times as long as the others, on any store of many
//! machines; a page that waits for it keeps a query waiting. How long is too long is learnt from
//! the reads themselves; how many may be asked again is bounded, so that a store that is slow as a
//! whole does not get twice the work.

use std::{fmt, future::Future, ops::Range, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    future::{Either, select},
    stream::BoxStream,
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, coalesce_ranges, path::Path,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::metrics::METRICS;

/// The bounds of what is waited before a read is asked again.
const PATIENCE_MIN: Duration = Duration::from_millis(20);
const PATIENCE_MAX: Duration = Duration::from_secs(2);
/// What is waited before anything was learnt.
const PATIENCE_FIRST: Duration = Duration::from_millis(500);
/// The share of reads that are to be answered within the patience.
const ANSWERED_SHARE: f64 = 0.99;
/// How fast the patience follows: a late answer makes it longer by about this share.
const STEP: f64 = 0.1;
/// A second request for so many reads, in the long run.
const READS_PER_HEDGE: f64 = 20.0;
/// And so many at once.
const HEDGES_MAX: f64 = 10.0;

/// When to ask again; pure.
#[derive(Debug)]
struct Plan {
    patience_seconds: f64,
    hedges: f64,
}

impl Plan {
    fn new() -> Plan {
        Plan { patience_seconds: PATIENCE_FIRST.as_secs_f64(), hedges: HEDGES_MAX }
    }

    /// How long a read that begins now is waited for; it earns a part of a second request.
    fn begin(&mut self) -> Duration {
        self.hedges = (self.hedges + 1.0 / READS_PER_HEDGE).min(HEDGES_MAX);
        Duration::from_secs_f64(self.patience_seconds)
    }

    /// Whether a second request may be sent now.
    fn take_hedge(&mut self) -> bool {
        let may = self.hedges >= 1.0;
        self.hedges -= if may { 1.0 } else { 0.0 };
        may
    }

    /// Learns from an answer. One that comes late pulls the patience up 99 times as far as one that
    /// comes in time lets it down: it settles where one in a hundred comes late.
    fn answered(&mut self, took: Duration) {
        let was_late = took.as_secs_f64() > self.patience_seconds;
        let pull = if was_late { ANSWERED_SHARE } else { ANSWERED_SHARE - 1.0 };
        let bounds = (PATIENCE_MIN.as_secs_f64(), PATIENCE_MAX.as_secs_f64());
        self.patience_seconds =
            (self.patience_seconds * (STEP * pull).exp()).clamp(bounds.0, bounds.1);
    }
}

/// How often a list is asked for.
const LISTS_MAX: u32 = 4;
/// And how long is waited between.
const LIST_PAUSE: Duration = Duration::from_millis(100);

/// Another store, whose slow reads are asked twice.
#[derive(Debug)]
pub(super) struct Hedged {
    inner: Arc<dyn ObjectStore>,
    plan: Mutex<Plan>,
}

impl Hedged {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Hedged {
        Hedged { inner, plan: Mutex::new(Plan::new()) }
    }

    async fn ask<T, F: Future<Output = Result<T>>>(&self, request: impl Fn() -> F) -> Result<T> {
        let began = Instant::now();
        let patience = self.plan.lock().begin();
        let mut first = pin!(request());
        let answer = match timeout(patience, &mut first).await {
            Ok(answer) => answer,
            Err(_) if self.plan.lock().take_hedge() => {
                METRICS.hedged_reads.inc();
                first_answer(first, request()).await
            }
            Err(_) => first.await,
        };
        if answer.is_ok() {
            self.plan.lock().answered(began.elapsed());
        }
        answer
    }

    async fn range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        self.ask(|| async {
            let options = GetOptions::default().with_range(Some(range.clone()));
            self.inner.get_opts(path, options).await?.bytes().await
        })
        .await
    }
}

/// What comes first; of a failure the other is waited for, unless it is the object's own absence.
async fn first_answer<T>(
    one: impl Future<Output = Result<T>> + Unpin,
    other: impl Future<Output = Result<T>>,
) -> Result<T> {
    let says_all = |answer: &Result<T>| matches!(answer, Ok(_) | Err(Error::NotFound { .. }));
    match select(one, pin!(other)).await {
        Either::Left((answer, _)) | Either::Right((answer, _)) if says_all(&answer) => answer,
        Either::Left((_, other)) => other.await,
        Either::Right((_, one)) => one.await,
    }
}

impl fmt::Display for Hedged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Hedged {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.ask(|| self.inner.get_opts(location, options.clone())).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fetch = |range: Range<u64>| self.range(location, range);
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    /// The client tries a request again that fails, and a read whose answer ends early; not a list
    /// whose answer does.
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        for _ in 1..LISTS_MAX {
            match self.inner.list_with_delimiter(prefix).await {
                Err(Error::Generic { .. }) => sleep(LIST_PAUSE).await,
                answer => return answer,
            }
        }
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
