//! An object store with the weather of a real one: operations that fail, come late, lose their
//! answer, end early or time out, each as a given function says.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
    path::Path,
};
use parking_lot::Mutex;

/// How long a client waits before it gives an answer up.
const TIME_OUT: Duration = Duration::from_secs(30);

/// What happens to an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is refused, and nothing was done.
    Fails,
    /// It is carried out, after this time.
    Late(Duration),
    /// It is carried out, and its answer is lost.
    LostAnswer,
    /// No answer comes; nothing was done.
    TimesOut,
    /// No answer comes; it was carried out all the same.
    TimesOutUnseen,
    /// A read gives half of its bytes and then an end; another operation fails.
    Short,
}

type Faults = dyn FnMut(u64) -> Fault + Send;

/// Another store, as the weather lets it be seen.
#[derive(Clone)]
pub struct Weather {
    inner: Arc<dyn ObjectStore>,
    /// Says for the operation of this number, counted from 0, what happens to it.
    faults: Arc<Mutex<Box<Faults>>>,
    operations: Arc<AtomicU64>,
    /// The process that sends the operations is dead.
    is_over: Arc<AtomicBool>,
}

impl Weather {
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        faults: impl FnMut(u64) -> Fault + Send + 'static,
    ) -> Weather {
        let faults: Box<Faults> = Box::new(faults);
        Weather {
            inner,
            faults: Arc::new(Mutex::new(faults)),
            operations: Arc::default(),
            is_over: Arc::default(),
        }
    }

    /// From now on nothing happens to any operation.
    pub fn clear_up(&self) {
        *self.faults.lock() = Box::new(|_| Fault::None);
    }

    /// From now on nothing is carried out, as after a crash of the process that asks: not even what
    /// was under way.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn next(&self) -> Fault {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        (self.faults.lock())(number)
    }

    async fn under<T>(
        &self,
        fault: Fault,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if let Fault::Late(late) = fault {
            tokio::time::sleep(late).await;
        }
        if self.is_over.load(Ordering::SeqCst) {
            return Err(failure("nobody asks any more"));
        }
        match fault {
            Fault::None | Fault::Late(_) => operation.await,
            Fault::Fails | Fault::Short => Err(failure("refused")),
            Fault::LostAnswer => {
                operation.await?;
                Err(failure("the connection broke"))
            }
            Fault::TimesOut => {
                tokio::time::sleep(TIME_OUT).await;
                Err(failure("timed out"))
            }
            Fault::TimesOutUnseen => {
                operation.await?;
                tokio::time::sleep(TIME_OUT).await;
                Err(failure("timed out"))
            }
        }
    }
}

fn failure(what: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "weather", source: what.into() }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weather({})", self.inner)
    }
}

impl fmt::Debug for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Weather {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, options);
        self.under(self.next(), put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begin = self.inner.put_multipart_opts(location, options);
        let upload = self.under(self.next(), begin).await?;
        Ok(Box::new(Upload { upload, weather: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.next();
        if fault != Fault::Short {
            return self.under(fault, self.inner.get_opts(location, options)).await;
        }
        let mut object = self.inner.get_opts(location, options).await?;
        let half = (object.range.end - object.range.start) / 2;
        let payload = std::mem::replace(
            &mut object.payload,
            GetResultPayload::Stream(stream::empty().boxed()),
        );
        let whole = GetResult { payload, ..clone_without_payload(&object) };
        let bytes = whole.bytes().await?.slice(..half as usize);
        object.payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(object)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.next();
        let read = self.inner.get_ranges(location, ranges);
        if fault != Fault::Short {
            return self.under(fault, read).await;
        }
        let mut parts = read.await?;
        if let Some(last) = parts.last_mut() {
            last.truncate(last.len() / 2);
        }
        Ok(parts)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let weather = self.clone();
        locations
            .then(move |location| {
                let weather = weather.clone();
                async move {
                    let location = location?;
                    let one = stream::iter([Ok(location.clone())]).boxed();
                    let deleted = weather.inner.delete_stream(one).try_collect::<Vec<_>>();
                    weather.under(weather.next(), deleted).await.map(|_| location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.inner.list(prefix).try_collect::<Vec<_>>();
        let fault = self.next();
        let weather = self.clone();
        async move { weather.under(fault, listed).await }
            .map(|listed| match listed {
                Ok(objects) => stream::iter(objects.into_iter().map(Ok)).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            })
            .flatten_stream()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.under(self.next(), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.under(self.next(), self.inner.copy_opts(from, to, options)).await
    }
}

fn clone_without_payload(object: &GetResult) -> GetResult {
    GetResult {
        payload: GetResultPayload::Stream(stream::empty().boxed()),
        meta: object.meta.clone(),
        range: object.range.clone(),
        attributes: object.attributes.clone(),
        extensions: object.extensions.clone(),
    }
}

#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    weather: Weather,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.upload.put_part(data);
        let weather = self.weather.clone();
        async move { weather.under(weather.next(), part).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.weather.next();
        self.weather.under(fault, self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.weather.next();
        self.weather.under(fault, self.upload.abort()).await
    }
}
