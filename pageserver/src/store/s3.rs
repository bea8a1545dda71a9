//! An S3-compatible store: how long requests may take, and how often they are tried.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, path::Path,
    prefix::PrefixStore,
};

use super::{hedge::Hedged, slow_down::SlowDownConnector};
use crate::error::Error;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the store may be silent within a request; an upload of one part has to fit in.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one operation is tried again; after that it is the caller's to wait. Longer than a
/// request's silence, so that one that got no answer at all is asked again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// How often one operation is tried again.
const RETRIES_MAX: usize = 4;
/// Waits between tries are random, from the first bound to three times the wait before, at most
/// the second: those that failed together do not come again together.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Opens `bucket/prefix`, with the account and the endpoint that the environment names.
pub(super) fn open(rest: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Error::Invalid("s3:// needs a bucket: s3://bucket/prefix".to_owned()));
    }
    let plain_http = ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|url| url.starts_with("http://")));
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(SILENCE_MAX)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(plain_http);
    let (init_backoff, max_backoff) = BACKOFF;
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
        backoff: BackoffConfig { init_backoff, max_backoff, base: 3.0 },
    };
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .with_http_connector(SlowDownConnector::default())
        .build()
        .map_err(|error| Error::Invalid(format!("s3://{bucket} cannot be used: {error}")))?;
    let store = Hedged::new(Arc::new(store));
    let prefix = Path::parse(prefix)
        .map_err(|error| Error::Invalid(format!("s3://{rest} has a bad prefix: {error}")))?;
    Ok(if prefix.as_ref().is_empty() {
        Arc::new(store)
    } else {
        Arc::new(PrefixStore::new(store, prefix))
    })
}
