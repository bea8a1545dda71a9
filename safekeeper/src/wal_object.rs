//! WAL in the object store; the format stands in `docs/formats/wal-object.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use protocol::TenantTimeline;
use wal_format::Lsn;

use crate::Error;

/// The most WAL in one object. No object crosses a multiple of it.
pub const OBJECT_WAL_BYTES: u64 = 16 << 20;

/// A checksum covers this much WAL.
const CHUNK_BYTES: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"OFFSWAL1";
/// Bytes behind the chunks' checksums: begin, end, checksum, magic.
const FOOTER_BYTES: usize = 8 + 8 + 4 + 8;

/// An object, by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WalObject {
    /// The position of its first byte.
    pub begin: Lsn,
    /// The position behind its last byte.
    pub end: Lsn,
}

impl WalObject {
    /// The object that begins here and reaches to `until`, or as far as one may.
    pub fn covering(begin: Lsn, until: Lsn) -> WalObject {
        let boundary = Lsn((begin.0 / OBJECT_WAL_BYTES + 1) * OBJECT_WAL_BYTES);
        WalObject { begin, end: until.min(boundary) }
    }

    /// Bytes of WAL.
    pub fn wal_bytes(&self) -> u64 {
        self.end.since(self.begin)
    }

    /// Its name.
    pub fn path(&self, id: TenantTimeline) -> Path {
        folder(id).join(format!("{:016X}-{:016X}", self.begin.0, self.end.0))
    }

    fn of_meta(meta: &ObjectMeta) -> Option<WalObject> {
        let (begin, end) = meta.location.filename()?.split_once('-')?;
        let lsn = |digits: &str| u64::from_str_radix(digits, 16).ok().map(Lsn);
        let object = WalObject { begin: lsn(begin)?, end: lsn(end)? };
        let is_whole = object.begin < object.end
            && object.wal_bytes() <= OBJECT_WAL_BYTES
            && meta.size == object.wal_bytes() + trailer_bytes(object.wal_bytes() as usize) as u64;
        is_whole.then_some(object)
    }
}

/// The object's content: the WAL and what it is checked by.
pub fn encode(object: WalObject, wal: Bytes) -> [Bytes; 2] {
    let mut trailer = BytesMut::with_capacity(trailer_bytes(wal.len()));
    for chunk in wal.chunks(CHUNK_BYTES) {
        trailer.put_u32_le(crc32fast::hash(chunk));
    }
    trailer.put_u64_le(object.begin.0);
    trailer.put_u64_le(object.end.0);
    trailer.put_u32_le(crc32fast::hash(&trailer));
    trailer.put_slice(MAGIC);
    [wal, trailer.freeze()]
}

/// The WAL of an object's content. Damage is an error that names the object and the offset.
pub fn decode(object: WalObject, name: &str, content: Bytes) -> Result<Bytes, Error> {
    let damage = |offset: usize, reason: String| Error::Object {
        object: name.to_owned(),
        offset: offset as u64,
        reason,
    };
    let wal_bytes = object.wal_bytes() as usize;
    let expected = wal_bytes + trailer_bytes(wal_bytes);
    if content.len() != expected {
        let found = content.len();
        return Err(damage(
            found.min(expected),
            format!("{expected} bytes expected, {found} found"),
        ));
    }
    let mut trailer = content.slice(wal_bytes..);
    let checked = trailer.slice(..trailer.len() - 12);
    let mut footer = trailer.slice(trailer.len() - FOOTER_BYTES..);
    let (begin, end) = (Lsn(footer.get_u64_le()), Lsn(footer.get_u64_le()));
    let checksum = footer.get_u32_le();
    if &footer[..] != MAGIC {
        return Err(damage(expected - MAGIC.len(), "the magic at the end is missing".to_owned()));
    }
    if crc32fast::hash(&checked) != checksum {
        return Err(damage(wal_bytes, "the trailer's checksum is wrong".to_owned()));
    }
    if (begin, end) != (object.begin, object.end) {
        return Err(damage(wal_bytes, format!("its trailer says WAL from {begin} to {end}")));
    }
    let wal = content.slice(..wal_bytes);
    for (index, chunk) in wal.chunks(CHUNK_BYTES).enumerate() {
        let (expected, found) = (trailer.get_u32_le(), crc32fast::hash(chunk));
        if expected != found {
            let reason = format!("checksum {expected:08X} expected, {found:08X} found");
            return Err(damage(index * CHUNK_BYTES, reason));
        }
    }
    Ok(wal)
}

/// Writes an object. One of the same name holds the same bytes, because only committed WAL is written.
pub async fn put(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    object: WalObject,
    wal: Bytes,
) -> Result<(), Error> {
    let content = encode(object, wal).into_iter().collect();
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(&object.path(id), content, options).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads an object and checks it.
pub async fn get(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    object: WalObject,
) -> Result<Bytes, Error> {
    let name = object.path(id);
    let content = store.get(&name).await?.bytes().await?;
    decode(object, name.as_ref(), content)
}

/// The object that holds this position and reaches farthest.
pub async fn find(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    position: Lsn,
) -> Result<Option<WalObject>, Error> {
    let objects = list_from(store, id, position).await?;
    let holds = |object: &&WalObject| object.begin <= position && position < object.end;
    Ok(objects.iter().filter(holds).max_by_key(|object| object.end).copied())
}

/// How far the objects go without a gap from here on.
pub async fn contiguous_end(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    position: Lsn,
) -> Result<Lsn, Error> {
    let mut objects = list_from(store, id, position).await?;
    objects.sort_unstable();
    let follow = |end: Lsn, object: &WalObject| {
        if object.begin <= end { end.max(object.end) } else { end }
    };
    Ok(objects.iter().fold(position, follow))
}

/// All objects that may hold this position or a later one: none begins before the last multiple of the objects'
/// size.
async fn list_from(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    position: Lsn,
) -> Result<Vec<WalObject>, Error> {
    let folder = folder(id);
    let first = position.0 - position.0 % OBJECT_WAL_BYTES;
    let offset = folder.clone().join(format!("{first:016X}"));
    let metas: Vec<_> = store.list_with_offset(Some(&folder), &offset).try_collect().await?;
    Ok(metas.iter().filter_map(WalObject::of_meta).collect())
}

fn folder(id: TenantTimeline) -> Path {
    Path::from(format!("tenants/{}/timelines/{}/wal", id.tenant, id.timeline))
}

fn trailer_bytes(wal_bytes: usize) -> usize {
    wal_bytes.div_ceil(CHUNK_BYTES) * 4 + FOOTER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (WalObject, Bytes) {
        let wal: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
        (WalObject { begin: Lsn(0x1_0000), end: Lsn(0x1_0000 + 200_000) }, wal.into())
    }

    #[test]
    fn an_object_is_read_back_as_it_was_written() {
        let (object, wal) = example();
        let content = Bytes::from(encode(object, wal.clone()).concat());
        assert_eq!(decode(object, "wal", content).expect("the object is whole"), wal);
    }

    #[test]
    fn a_damaged_byte_is_named_by_object_and_offset() {
        let (object, wal) = example();
        let content = encode(object, wal).concat();
        for at in (0..content.len()).step_by(977).chain(content.len() - 64..content.len()) {
            let mut damaged = content.clone();
            damaged[at] ^= 0x10;
            match decode(object, "the-object", damaged.into()) {
                Err(Error::Object { object, offset, .. }) => {
                    assert_eq!(object, "the-object");
                    assert!(offset <= at as u64, "offset {offset} for a damage at {at}");
                }
                other => panic!("damage at {at} gave {other:?}"),
            }
        }
        assert!(decode(object, "short", content[..content.len() - 1].to_vec().into()).is_err());
    }

    #[test]
    fn no_object_crosses_a_multiple_of_its_size() {
        let object = WalObject::covering(Lsn(OBJECT_WAL_BYTES + 5), Lsn(10 * OBJECT_WAL_BYTES));
        assert_eq!(object.end, Lsn(2 * OBJECT_WAL_BYTES));
        let object = WalObject::covering(Lsn(OBJECT_WAL_BYTES), Lsn(OBJECT_WAL_BYTES + 7));
        assert_eq!(object.end, Lsn(OBJECT_WAL_BYTES + 7));
    }
}
