//! Large objects, sent in parts side by side; small ones in one request.
//!
//! Parts of all uploads together are bounded: what is in flight is in memory, and an uplink that is
//! full serves nobody faster. An upload that fails is ended, so that the store drops its parts; a
//! process that dies in the middle leaves them, and a bucket should expire unfinished uploads by a
//! lifecycle rule.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use tokio::sync::Semaphore;

use crate::metrics::METRICS;

/// What is larger goes in parts of this size; S3 wants at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Requests with an object's bytes in flight, of all uploads.
const IN_FLIGHT_MAX: usize = 8;
/// Of one upload.
const PARTS_AT_ONCE: usize = 4;

/// Uploads to one store.
pub struct Uploads {
    permits: Semaphore,
    part_bytes: usize,
}

impl Default for Uploads {
    fn default() -> Uploads {
        Uploads { permits: Semaphore::new(IN_FLIGHT_MAX), part_bytes: PART_BYTES }
    }
}

impl Uploads {
    /// Writes an object; nobody else writes one of this name. It is there as a whole or not at
    /// all.
    pub async fn put(
        &self,
        store: &dyn ObjectStore,
        path: &Path,
        object: Bytes,
    ) -> object_store::Result<()> {
        let bytes = object.len() as u64;
        self.put_whole(store, path, object).await?;
        METRICS.uploaded_bytes.inc_by(bytes);
        Ok(())
    }

    async fn put_whole(
        &self,
        store: &dyn ObjectStore,
        path: &Path,
        object: Bytes,
    ) -> object_store::Result<()> {
        if object.len() <= self.part_bytes {
            let _permit = self.permits.acquire().await;
            return store.put(path, PutPayload::from_bytes(object)).await.map(|_| ());
        }
        let mut upload = store.put_multipart(path).await?;
        let sent = self.send(upload.as_mut(), object).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(%path, %error, "parts of a failed upload are left in the store");
        }
        sent
    }

    async fn send(
        &self,
        upload: &mut dyn MultipartUpload,
        object: Bytes,
    ) -> object_store::Result<()> {
        let mut parts: Vec<BoxFuture<'_, object_store::Result<()>>> = Vec::new();
        for start in (0..object.len()).step_by(self.part_bytes) {
            let end = (start + self.part_bytes).min(object.len());
            let part = upload.put_part(PutPayload::from_bytes(object.slice(start..end)));
            parts.push(Box::pin(async {
                let _permit = self.permits.acquire().await;
                part.await
            }));
        }
        stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await?;
        upload.complete().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::simulation::{Fault, Weather};

    fn uploads() -> Uploads {
        Uploads { part_bytes: 100, ..Uploads::default() }
    }

    #[tokio::test]
    async fn an_object_of_any_length_is_stored_as_it_was() {
        let store = InMemory::new();
        for length in [0, 1, 99, 100, 101, 200, 1234] {
            let object: Bytes = (0..length).map(|at| at as u8).collect();
            let path = Path::from(format!("layer-{length}"));
            uploads().put(&store, &path, object.clone()).await.expect("the store works");
            assert_eq!(super::super::get_whole(&store, &path).await.expect("it is there"), object);
        }
    }

    #[tokio::test]
    async fn an_upload_that_fails_at_any_part_leaves_no_object() {
        let path = Path::from("layer");
        for failing in 0..12 {
            let inner = Arc::new(InMemory::new());
            let mut operation = 0;
            let store = Weather::new(inner.clone(), move |_| {
                operation += 1;
                if operation == failing + 1 { Fault::Fails } else { Fault::None }
            });
            let put = uploads().put(&store, &path, Bytes::from(vec![7; 950])).await;
            // To begin, ten parts, to complete.
            assert!(put.is_err(), "operation {failing} failed");
            assert!(inner.head(&path).await.is_err());
        }
    }
}
