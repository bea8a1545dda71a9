//! The object store: what every durable byte goes to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
    aws::AmazonS3Builder, local::LocalFileSystem, path::Path, prefix::PrefixStore,
};

use crate::error::Error;

/// How long a connection to an S3 endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one S3 request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one operation is tried again; after that it is the caller's to wait.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often one operation is tried again.
const RETRIES_MAX: usize = 4;

/// Opens the object store of this URL: `s3://bucket/prefix`, or the path of a local folder (with
/// or without `file://`), which is created where it is missing. Fails with a sentence where the
/// store cannot be used, also where it does not honour create-only puts.
///
/// S3 takes `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and `AWS_ENDPOINT_URL` from
/// the environment; an endpoint of plain `http://` is allowed.
pub async fn open(url: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let store: Arc<dyn ObjectStore> = match url.strip_prefix("s3://") {
        Some(rest) => open_s3(rest)?,
        None => {
            let folder = url.strip_prefix("file://").unwrap_or(url);
            if folder.contains("://") {
                return Err(Error::Invalid(format!(
                    "{url:?} is not an object store: give s3://bucket/prefix or a folder"
                )));
            }
            open_folder(PathBuf::from(folder)).await?
        }
    };
    probe(store.as_ref()).await?;
    Ok(store)
}

/// The error of an operation on an object that failed for another reason than the object's own
/// absence or presence.
pub fn unavailable(object: &Path, error: &object_store::Error) -> Error {
    Error::Unavailable(format!("the object store failed on {object}: {error}"))
}

fn open_s3(rest: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Error::Invalid("s3:// needs a bucket: s3://bucket/prefix".to_owned()));
    }
    let plain_http = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")));
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(plain_http);
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .build()
        .map_err(|error| Error::Invalid(format!("s3://{bucket} cannot be used: {error}")))?;
    let prefix = Path::parse(prefix)
        .map_err(|error| Error::Invalid(format!("s3://{rest} has a bad prefix: {error}")))?;
    Ok(if prefix.as_ref().is_empty() {
        Arc::new(store)
    } else {
        Arc::new(PrefixStore::new(store, prefix))
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

/// Checks that the store can be written, read, and that a second create of one name is refused:
/// all that keeps two writers apart rests on it.
async fn probe(store: &dyn ObjectStore) -> Result<(), Error> {
    let path = Path::from(format!("probe-{:032x}", rand::random::<u128>()));
    let create =
        || store.put_opts(&path, PutPayload::from_static(b"probe"), PutMode::Create.into());
    let failed = |error: object_store::Error| {
        Error::Unavailable(format!("the object store cannot be used: {error}"))
    };
    create().await.map_err(failed)?;
    let second = create().await;
    let removed = store.delete(&path).await;
    match second {
        Err(
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
        ) => removed.map_err(failed),
        Err(error) => Err(failed(error)),
        Ok(_) => Err(Error::Invalid(
            "the object store let one object be created twice: it ignores If-None-Match, and two \
             writers would overwrite each other"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests;
