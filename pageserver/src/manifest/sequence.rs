//! One sequence of manifests, and this process as one of its writers.

mod earlier;
mod resting;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::resting::Resting;

use self::earlier::Earlier;
use crate::{
    error::Error,
    store::{get_whole, unavailable},
};

/// The version of all manifests that this module reads and writes.
const MANIFEST_VERSION: u32 = 1;
/// How many of a writer's own manifests stay beside the newest.
const MANIFESTS_KEPT: usize = 3;
const NAME_PREFIX: &str = "manifest-";
/// The most changes that follow a whole manifest: whoever opens the sequence reads them all.
const CHANGES_MAX: u64 = 256;
/// How many of them are read at once.
const READS_AT_ONCE: usize = 16;

/// A writer's first manifest is kept for ever. One that would be longer is preceded by a takeover
/// that says nothing of its own. Small in tests, whose tenants are.
const TAKEOVER_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 2 << 10 };

/// What a sequence's manifests say. One that is long may be followed by changes of it, which cost
/// what they change and not what there is.
pub trait Body: Serialize + DeserializeOwned {
    /// What one manifest may change of the one before.
    type Change: Serialize + DeserializeOwned;

    /// What makes `before` into this; `None` where only the whole says it.
    fn since(&self, before: &Self) -> Option<Self::Change>;

    /// Makes what [`Body::since`] compared.
    fn apply(&mut self, change: Self::Change);
}

/// The change of a body whose manifests are always whole: there is none.
#[derive(Serialize, Deserialize)]
pub enum NoChange {}

/// What every manifest says of itself.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    number: u64,
    /// A random number of the writer: tells its own manifest from another's.
    writer: String,
    /// The writer's first manifest of the sequence. It is kept for ever, so that an older writer
    /// that slept finds its next number taken.
    takeover: bool,
    /// The number of the whole manifest that this one, and all between, are changes of; absent in
    /// one that is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changes: Option<u64>,
    /// Of a takeover that says nothing of its own: the number that says what is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeats: Option<u64>,
    /// Below this number only takeovers are left.
    #[serde(default = "nothing_collected", skip_serializing_if = "is_nothing_collected")]
    collected_below: u64,
    #[serde(flatten)]
    body: T,
}

/// The body of a takeover that says nothing of its own.
#[derive(Serialize)]
struct Nothing {}

fn nothing_collected() -> u64 {
    1
}

fn is_nothing_collected(collected_below: &u64) -> bool {
    *collected_below <= 1
}

/// A manifest that is ready to become the newest.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What is written before it, under the number before.
    takeover: Option<Bytes>,
    number: u64,
    object: Bytes,
    is_whole: bool,
}

/// A folder's manifests.
pub struct Sequence {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    writer: u128,
    /// The highest number known; 0 before the first.
    newest: u64,
    /// The number that says what the newest says: its own, but for some takeovers.
    says: u64,
    /// This writer's first number.
    takeover: u64,
    /// What earlier writers have left.
    earlier: Arc<Earlier>,
    /// Numbers that this writer has created and may remove, oldest first.
    own: VecDeque<u64>,
    has_written: bool,
    /// No other writer knows the folder before this one's first manifest is there.
    is_private: bool,
    /// The newest whole manifest of this writer, and its length.
    whole: (u64, usize),
    /// The length of the changes that follow it.
    change_bytes: usize,
}

impl Sequence {
    /// A sequence that does not exist yet, in a folder that no other writer knows.
    pub fn create(store: Arc<dyn ObjectStore>, folder: Path) -> Sequence {
        Sequence {
            store,
            folder,
            writer: rand::random(),
            newest: 0,
            says: 0,
            takeover: 0,
            earlier: Arc::default(),
            own: VecDeque::new(),
            has_written: false,
            is_private: true,
            whole: (0, 0),
            change_bytes: 0,
        }
    }

    /// Reads what the newest manifest says; `None` where there is none.
    pub async fn open<T: Body>(
        store: Arc<dyn ObjectStore>,
        folder: Path,
    ) -> Result<(Sequence, Option<T>), Error> {
        let mut sequence = Sequence { is_private: false, ..Sequence::create(store, folder) };
        let mut gone = None;
        loop {
            let newest = sequence.highest().await?;
            if newest == 0 {
                return Ok((sequence, None));
            }
            match sequence.newest_says(newest).await {
                Ok((head, body)) => {
                    (sequence.newest, sequence.says) = (newest, head.repeats.unwrap_or(newest));
                    sequence.earlier = Arc::new(Earlier::from(head.collected_below));
                    return Ok((sequence, Some(body)));
                }
                // Collected between the two requests: a newer one is there now.
                Err(Error::Missing { .. }) if gone != Some(newest) => gone = Some(newest),
                Err(error) => return Err(error),
            }
        }
    }

    /// The head of the manifest of this number, and what it says.
    async fn newest_says<T: Body>(&self, number: u64) -> Result<(Head, T), Error> {
        let (head, object) = self.read_head(number).await?;
        let body = match head.repeats {
            None => self.body(number, &head, object).await?,
            Some(says) if says < number => {
                let (repeated, object) = self.read_head(says).await?;
                self.body(says, &repeated, object).await?
            }
            Some(says) => {
                let expected = "the number of a manifest before".to_owned();
                return Err(wrong(&self.path(number), expected, format!("number {says}")));
            }
        };
        Ok((head, body))
    }

    /// What the manifest of this number says, with those that it changes.
    async fn body<T: Body>(&self, number: u64, head: &Head, object: Bytes) -> Result<T, Error> {
        let path = self.path(number);
        let Some(whole) = head.changes else {
            return Ok(decode_checked::<Envelope<T>>(&object, &path)?.body);
        };
        if whole >= number || number - whole > CHANGES_MAX {
            let expected = format!("changes of one of the {CHANGES_MAX} manifests before");
            return Err(wrong(&path, expected, format!("changes of number {whole}")));
        }
        let between = stream::iter(whole..number).map(|number| self.read(number));
        let mut objects: Vec<Bytes> = between.buffered(READS_AT_ONCE).try_collect().await?;
        objects.push(object);
        let mut body: Option<T> = None;
        for (number, object) in (whole..).zip(objects) {
            let path = self.path(number);
            match (&mut body, decode_head(&object, &path)?.changes) {
                (None, None) => body = Some(decode_checked::<Envelope<T>>(&object, &path)?.body),
                (Some(body), Some(of)) if of == whole => {
                    body.apply(decode_checked::<Envelope<T::Change>>(&object, &path)?.body);
                }
                (_, found) => {
                    let expected = format!("number {whole} whole, and then changes of it");
                    return Err(wrong(&path, expected, format!("changes of {found:?}")));
                }
            }
        }
        body.ok_or_else(|| Error::Missing { object: self.path(whole).to_string() })
    }

    async fn read_head(&self, number: u64) -> Result<(Head, Bytes), Error> {
        let object = self.read(number).await?;
        Ok((decode_head(&object, &self.path(number))?, object))
    }

    async fn read(&self, number: u64) -> Result<Bytes, Error> {
        let path = self.path(number);
        let missing = || Error::Missing { object: path.to_string() };
        read(self.store.as_ref(), &path).await?.ok_or_else(missing)
    }

    /// The number of the newest manifest known; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Whether this writer has made a manifest of its own the newest.
    pub fn has_written(&self) -> bool {
        self.has_written
    }

    /// Prepares the manifest that would be the newest, whole. Publishing the same one again after
    /// a failure is safe.
    pub fn prepare<T: Serialize>(&self, body: &T) -> Result<Prepared, Error> {
        let number = self.newest + 1;
        let object = self.encode(number, (None, None), body)?;
        let is_short = object.len() <= TAKEOVER_BYTES_MAX;
        if self.has_written || self.newest == 0 || is_short {
            return Ok(Prepared { takeover: None, number, object, is_whole: true });
        }
        let takeover = Some(self.encode(number, (None, Some(self.says)), &Nothing {})?);
        let object = self.encode(number + 1, (None, None), body)?;
        Ok(Prepared { takeover, number: number + 1, object, is_whole: true })
    }

    /// The same, as a change of `before`, which is what the newest says, where that is shorter: all
    /// changes together never outgrow the whole that they follow.
    pub fn prepare_after<T: Body>(&self, before: &T, body: &T) -> Result<Prepared, Error> {
        let (whole, whole_bytes) = self.whole;
        let may = self.has_written
            && self.newest - whole < CHANGES_MAX
            && self.change_bytes < whole_bytes;
        match may.then(|| body.since(before)).flatten() {
            Some(change) => {
                let number = self.newest + 1;
                let object = self.encode(number, (Some(whole), None), &change)?;
                Ok(Prepared { takeover: None, number, object, is_whole: false })
            }
            None => self.prepare(body),
        }
    }

    fn encode<T: Serialize>(
        &self,
        number: u64,
        (changes, repeats): (Option<u64>, Option<u64>),
        body: &T,
    ) -> Result<Bytes, Error> {
        encode_checked(&Envelope {
            version: MANIFEST_VERSION,
            number,
            writer: format!("{:032x}", self.writer),
            takeover: !self.has_written && number == self.newest + 1,
            changes,
            repeats,
            collected_below: self.earlier.collected_below(),
            body,
        })
    }

    /// Makes a prepared manifest the newest. [`Error::Fenced`] where another writer was there
    /// first; after [`Error::Unavailable`] it may or may not have become the newest.
    pub async fn publish(&mut self, manifest: Prepared) -> Result<(), Error> {
        let Prepared { takeover, number, object, is_whole } = manifest;
        if let Some(takeover) = takeover
            && self.newest + 1 < number
        {
            self.create_next(takeover).await?;
        }
        let bytes = object.len();
        self.create_next(object).await?;
        self.says = self.newest;
        if is_whole {
            (self.whole, self.change_bytes) = ((self.newest, bytes), 0);
        } else {
            self.change_bytes += bytes;
        }
        Ok(())
    }

    /// Creates the next number.
    async fn create_next(&mut self, manifest: Bytes) -> Result<(), Error> {
        let number = self.newest + 1;
        let path = self.path(number);
        let fenced = || Error::Fenced { object: path.to_string() };
        let payload = PutPayload::from_bytes(manifest.clone());
        match self.store.put_opts(&path, payload, PutMode::Create.into()).await {
            Ok(_) => {}
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => {
                match read(self.store.as_ref(), &path).await? {
                    // A put that succeeded and was tried again is refused by its own first success.
                    Some(there) if there == manifest => {}
                    Some(_) => return Err(fenced()),
                    // S3 refuses both of two that come at once (409); neither may be there.
                    None => {
                        return Err(Error::Unavailable(format!("{path} was refused: try again")));
                    }
                }
            }
            Err(error) => return Err(unavailable(&path, &error)),
        }
        if self.has_written {
            self.own.push_back(number);
        } else if self.is_private || self.highest().await? == number {
            (self.has_written, self.takeover) = (true, number);
        } else {
            // The number may have been used and collected while this writer slept.
            return Err(fenced());
        }
        self.newest = number;
        Ok(())
    }

    /// Whether the newest manifest known is the newest there is, whoever writes them: one list.
    pub async fn is_newest(&self) -> Result<bool, Error> {
        Ok(self.highest().await? == self.newest)
    }

    /// Whether no other writer has come: asked before what older manifests name is removed.
    /// [`Error::Fenced`] where one has.
    pub async fn confirm_newest(&self) -> Result<(), Error> {
        let highest = self.highest().await?;
        if self.has_written && highest == self.newest {
            return Ok(());
        }
        Err(Error::Fenced { object: self.path(highest).to_string() })
    }

    /// Whether another writer has come, or the sequence is gone: cheaper than
    /// [`Sequence::confirm_newest`]. A writer that comes begins with the next number, and that one
    /// is kept for ever.
    pub async fn is_superseded(&self) -> Result<bool, Error> {
        for (number, is_there) in [(self.newest + 1, false), (self.newest, true)] {
            let path = self.path(number);
            let found = match self.store.head(&path).await {
                Ok(_) => true,
                Err(object_store::Error::NotFound { .. }) => false,
                Err(error) => return Err(unavailable(&path, &error)),
            };
            if found != is_there {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes this writer's manifests that are no longer among the newest, nor what those change,
    /// and once what earlier writers have left. They may be many: nobody has to wait for it.
    pub fn collect(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (whole, _) = self.whole;
        let too_many = self.own.len().saturating_sub(MANIFESTS_KEPT);
        let old = self.own.iter().take(too_many).take_while(|own| **own < whole).count();
        let paths: Vec<Path> = self.own.drain(..old).map(|own| path(&self.folder, own)).collect();
        let store = self.store.clone();
        // Since there is a whole one of this writer, nobody reads theirs.
        let is_whole = whole >= self.takeover && self.has_written;
        let earlier = is_whole.then(|| self.earlier.clone());
        let (folder, takeover) = (self.folder.clone(), self.takeover);
        async move {
            if let Some(earlier) = earlier {
                earlier.remove(store.as_ref(), &folder, takeover).await;
            }
            for path in paths {
                // What fails to be removed stays: it does no harm.
                if let Err(error) = store.delete(&path).await {
                    tracing::debug!(%path, %error, "an old manifest could not be removed");
                }
            }
        }
    }

    fn path(&self, number: u64) -> Path {
        path(&self.folder, number)
    }

    async fn highest(&self) -> Result<u64, Error> {
        Ok(numbers(self.store.as_ref(), &self.folder).await?.into_iter().max().unwrap_or(0))
    }
}

/// The numbers that are there, in no order.
async fn numbers(store: &dyn ObjectStore, folder: &Path) -> Result<Vec<u64>, Error> {
    let listed = store.list_with_delimiter(Some(folder)).await;
    let listed = listed.map_err(|error| unavailable(folder, &error))?;
    let number = |path: &Path| path.filename()?.strip_prefix(NAME_PREFIX)?.parse().ok();
    Ok(listed.objects.iter().filter_map(|object| number(&object.location)).collect())
}

fn wrong(path: &Path, expected: String, found: String) -> Error {
    Error::Corrupt { object: path.to_string(), offset: 0, expected, found }
}

fn path(folder: &Path, number: u64) -> Path {
    folder.clone().join(format!("{NAME_PREFIX}{number:020}"))
}

/// The object's bytes; `None` where it does not exist.
async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, Error> {
    match get_whole(store, path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(unavailable(path, &error)),
    }
}

/// What must be known of a manifest before it can be read.
#[derive(Deserialize)]
struct Head {
    version: u32,
    takeover: bool,
    #[serde(default)]
    changes: Option<u64>,
    #[serde(default)]
    repeats: Option<u64>,
    #[serde(default = "nothing_collected")]
    collected_below: u64,
}

fn decode_head(object: &[u8], path: &Path) -> Result<Head, Error> {
    let head: Head = decode_checked(object, path)?;
    if head.version != MANIFEST_VERSION {
        let expected = format!("manifest version {MANIFEST_VERSION}");
        return Err(wrong(path, expected, format!("version {}", head.version)));
    }
    Ok(head)
}

/// JSON, a line feed, the JSON's CRC-32 (IEEE) as 8 hexadecimal digits, a line feed.
pub fn encode_checked<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|error| Error::Invalid(format!("a manifest cannot be written: {error}")))?;
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(format!("\n{crc:08x}\n").as_bytes());
    Ok(bytes.into())
}

/// Reads what [`encode_checked`] wrote.
pub fn decode_checked<T: DeserializeOwned>(object: &[u8], path: &Path) -> Result<T, Error> {
    let corrupt = |offset: usize, expected: String, found: String| Error::Corrupt {
        object: path.to_string(),
        offset: offset as u64,
        expected,
        found,
    };
    let split = object.len().saturating_sub(10);
    let (json, crc) = object.split_at(split);
    let expected = format!("\n{:08x}\n", crc32fast::hash(json));
    if crc != expected.as_bytes() {
        let found = String::from_utf8_lossy(crc).escape_debug().to_string();
        return Err(corrupt(split, format!("CRC {}", expected.trim()), found));
    }
    serde_json::from_slice(json).map_err(|error| {
        corrupt(error.column().saturating_sub(1), "a manifest".to_owned(), error.to_string())
    })
}

#[cfg(test)]
mod tests;
