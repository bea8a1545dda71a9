//! The object store: what every durable byte goes to.
//!
//! Over S3, each layer of this file's modules answers one way in which a network fails: `s3` bounds
//! every request and tries again with jitter, `slow_down` waits as long as the store asks all
//! requests to, `hedge` asks a second time where a read is slower than nearly all others, `upload`
//! sends large objects in parts. What still fails is [`Error::Unavailable`], and the caller's to
//! try again.

mod complaint;
mod hedge;
mod measured;
mod s3;
mod slow_down;
mod upload;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutPayload, local::LocalFileSystem, path::Path,
};

use self::measured::Measured;
use crate::error::Error;

pub use upload::Uploads;

/// How often a store over a network is asked at the start before it is given up.
const PROBES_MAX: u32 = 5;
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Opens the object store of this URL: `s3://bucket/prefix`, or the path of a local folder (with
/// or without `file://`), which is created where it is missing. Fails with a sentence where the
/// store cannot be used, also where it does not honour create-only puts.
///
/// S3 takes `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and `AWS_ENDPOINT_URL` from
/// the environment; an endpoint of plain `http://` is allowed.
pub async fn open(url: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let (store, probes): (Arc<dyn ObjectStore>, u32) = match url.strip_prefix("s3://") {
        Some(rest) => (s3::open(rest)?, PROBES_MAX),
        None => {
            let folder = url.strip_prefix("file://").unwrap_or(url);
            if folder.contains("://") {
                return Err(Error::Invalid(format!(
                    "{url:?} is not an object store: give s3://bucket/prefix or a folder"
                )));
            }
            (open_folder(PathBuf::from(folder)).await?, 1)
        }
    };
    probe(store.as_ref(), probes).await?;
    Ok(Arc::new(Measured(store)))
}

/// The error of an operation on an object that failed for another reason than the object's own
/// absence or presence.
pub fn unavailable(object: &Path, error: &object_store::Error) -> Error {
    Error::Unavailable(format!("the object store failed on {object}: {error}"))
}

/// An object's bytes, all of them: one that ends early is an error, never a shorter object.
pub async fn get_whole(store: &dyn ObjectStore, path: &Path) -> object_store::Result<Bytes> {
    let object = store.get(path).await?;
    let expected = object.meta.size;
    let bytes = object.bytes().await?;
    if bytes.len() as u64 == expected {
        return Ok(bytes);
    }
    let found = bytes.len();
    Err(object_store::Error::Generic {
        store: "object store",
        source: format!("{path} came back with {found} of its {expected} bytes").into(),
    })
}

/// A local folder in which a put that has returned survives a loss of power: the object is written
/// and fsynced under another name, given its own, and every folder that changed is fsynced.
async fn open_folder(folder: PathBuf) -> Result<Arc<dyn ObjectStore>, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::Unavailable(format!("the folder {} cannot be used: {error}", folder.display()))
    };
    tokio::fs::create_dir_all(&folder).await.map_err(|error| failed(&error))?;
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| failed(&error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// Checks that the store can be written, and that a second create of one name is refused: all that
/// keeps two writers apart rests on it. What a network may mend by itself is tried again, so often
/// in all; what only a person can mend is said at once.
async fn probe(store: &dyn ObjectStore, tries: u32) -> Result<(), Error> {
    let mut left = tries;
    loop {
        left -= 1;
        match probe_once(store).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                return Err(Error::Invalid(
                    "the object store let one object be created twice: it ignores If-None-Match, \
                     and two writers would overwrite each other"
                        .to_owned(),
                ));
            }
            Err(error) if left == 0 || complaint::mend(&error).is_some() => {
                let reason = complaint::of(&error);
                return Err(Error::Unavailable(format!(
                    "the object store cannot be used: {reason}"
                )));
            }
            Err(error) => {
                let reason = complaint::of(&error);
                tracing::warn!(%reason, "the object store failed at the start; trying again");
                tokio::time::sleep(PROBE_PAUSE).await;
            }
        }
    }
}

/// Whether a second create of one name was refused.
async fn probe_once(store: &dyn ObjectStore) -> object_store::Result<bool> {
    let path = Path::from(format!("probe-{:032x}", rand::random::<u128>()));
    let is_new = async || {
        let payload = PutPayload::from_static(b"probe");
        match store.put_opts(&path, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(false),
            Err(error) => Err(error),
        }
    };
    // Nobody else makes an object of this name: if it is there already, this put made it before
    // its answer was lost and it was sent again.
    is_new().await?;
    let second = is_new().await;
    store.delete(&path).await?;
    Ok(!second?)
}

#[cfg(test)]
mod tests;
