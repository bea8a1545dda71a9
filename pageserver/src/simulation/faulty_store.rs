//! An object store that fails at a chosen operation and from then on, as if the process had
//! crashed there or the network were gone; and that remembers what was asked of it.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Operations that still succeed while nothing is wrong.
const UNLIMITED: i64 = i64::MAX / 2;

/// What was asked of an object, or of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its bytes, or the names in it.
    Read,
    /// To make, change or delete it.
    Write,
}

/// Another store, as long as it is up.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    left: Arc<AtomicI64>,
    accesses: Arc<Mutex<Vec<(Access, Path)>>>,
    /// Whether the operation that fails first is carried out all the same.
    last_succeeds_unseen: Arc<AtomicBool>,
    /// Whether it takes a second create of a name for an overwrite.
    ignores_create: bool,
    /// How long operations take: others go on meanwhile.
    pauses: Option<Arc<Mutex<StdRng>>>,
}

impl FaultyStore {
    /// A store that is up.
    pub fn new(inner: Arc<dyn ObjectStore>) -> FaultyStore {
        let left = Arc::new(AtomicI64::new(UNLIMITED));
        FaultyStore {
            inner,
            left,
            accesses: Arc::default(),
            last_succeeds_unseen: Arc::default(),
            ignores_create: false,
            pauses: None,
        }
    }

    /// Goes down after this many operations; `unseen`: the next one is still carried out, but its
    /// answer is lost.
    pub fn fail_after(self, operations: i64, unseen: bool) -> FaultyStore {
        self.fail_in(operations, unseen);
        self
    }

    /// The same for a store that is in use.
    pub fn fail_in(&self, operations: i64, unseen: bool) {
        self.last_succeeds_unseen.store(unseen, Ordering::SeqCst);
        self.left.store(operations, Ordering::SeqCst);
    }

    /// Lets every create succeed, as a store does that does not know `If-None-Match`.
    pub fn ignore_create(mut self) -> FaultyStore {
        self.ignores_create = true;
        self
    }

    /// Lets others go on for a while before an operation; how long is random.
    pub fn pause(mut self, seed: u64) -> FaultyStore {
        self.pauses = Some(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))));
        self
    }

    async fn passes(&self) {
        let Some(pauses) = &self.pauses else { return };
        let turns = pauses.lock().random_range(0..8);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Takes the store down, or up again.
    pub fn set_up(&self, is_up: bool) {
        self.left.store(if is_up { UNLIMITED } else { 0 }, Ordering::SeqCst);
    }

    /// How many operations there were since it went up.
    pub fn operations(&self) -> i64 {
        UNLIMITED - self.left.load(Ordering::SeqCst)
    }

    /// What was asked since the last call, failed or not.
    pub fn take_accesses(&self) -> Vec<(Access, Path)> {
        std::mem::take(&mut *self.accesses.lock())
    }

    fn take(&self, access: Access, location: &Path) -> Outcome {
        self.accesses.lock().push((access, location.clone()));
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => Outcome::Works,
            0 if self.last_succeeds_unseen.load(Ordering::SeqCst) => Outcome::WorksUnseen,
            _ => Outcome::Fails,
        }
    }
}

#[derive(PartialEq)]
enum Outcome {
    Works,
    WorksUnseen,
    Fails,
}

fn down() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the store is down".into() }
}

/// The folder that is listed, the root where none is named.
fn folder(prefix: Option<&Path>) -> Path {
    prefix.cloned().unwrap_or_default()
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.passes().await;
        let outcome = self.take(Access::Write, location);
        if self.ignores_create {
            options.mode = PutMode::Overwrite;
        }
        if outcome == Outcome::Fails {
            return Err(down());
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if outcome == Outcome::Works { result } else { Err(down()) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.take(Access::Write, location) {
            Outcome::Works => self.inner.put_multipart_opts(location, options).await,
            _ => Err(down()),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.passes().await;
        match self.take(Access::Read, location) {
            Outcome::Works => self.inner.get_opts(location, options).await,
            _ => Err(down()),
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.take(Access::Read, location) {
            Outcome::Works => self.inner.get_ranges(location, ranges).await,
            _ => Err(down()),
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let outcome = store.take(Access::Write, &location);
                    if outcome == Outcome::Fails {
                        return Err(down());
                    }
                    let one = futures::stream::iter([Ok(location.clone())]).boxed();
                    let results: Vec<_> = store.inner.delete_stream(one).collect().await;
                    if outcome == Outcome::WorksUnseen {
                        return Err(down());
                    }
                    results.into_iter().collect::<Result<Vec<_>>>().map(|_| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.take(Access::Read, &folder(prefix)) {
            Outcome::Works => self.inner.list(prefix),
            _ => futures::stream::iter([Err(down())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.passes().await;
        match self.take(Access::Read, &folder(prefix)) {
            Outcome::Works => self.inner.list_with_delimiter(prefix).await,
            _ => Err(down()),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.accesses.lock().push((Access::Read, from.clone()));
        match self.take(Access::Write, to) {
            Outcome::Works => self.inner.copy_opts(from, to, options).await,
            _ => Err(down()),
        }
    }
}
