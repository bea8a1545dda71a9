//! Files of relations that no WAL has: free space maps and unlogged relations, kept over a clean stop.
//!
//! `docs/formats/kept-state.md` has the format. A file that was not written since the start, and did not
//! come from here, is as the base backup gives it, and is left out.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use wal_format::{ControlFile, Fork, Lsn, Relation};

use crate::{
    fuse::RelationFiles,
    path::{self, FileName},
};

/// The file's first bytes, by its version.
const MAGIC: [u8; 8] = *b"offrels1";
/// The most bytes of free space maps that are kept: those of some 250 GiB of tables.
const FREE_SPACE_BYTES_MAX: u64 = 64 << 20;
/// The most bytes of unlogged relations that are kept. Where there are more, none are: a table must not
/// come back without its index.
const UNLOGGED_BYTES_MAX: u64 = 256 << 20;
/// Nobody's but root's.
const MODE: u32 = 0o600;
/// How much of a file is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// The longest path: a tablespace's and a database's folder, and a name.
const PATH_BYTES_MAX: usize = 256;
/// The folders that hold relations.
const FOLDERS: [&str; 3] = ["base", "global", "pg_tblspc"];

/// What came back at a start.
#[derive(Default)]
pub(super) struct Restored {
    /// The files, by their paths in the data directory.
    paths: HashSet<String>,
    /// Where the LSNs of unlogged pages go on; none where nothing came back.
    pub unlogged_lsn: Option<Lsn>,
}

/// A file to be kept.
struct Kept {
    path: String,
    bytes: u64,
}

/// Keeps what was written below `root`, where the relations are mounted, after `begun`, and what came
/// back before.
pub(super) fn put(
    file: &Path,
    root: &Path,
    begun: SystemTime,
    restored: &Restored,
) -> io::Result<()> {
    let control = fs::read(root.join("global/pg_control"))?;
    let control = ControlFile::decode(&control).map_err(io::Error::other)?;
    let kept = written(root, begun, restored)?;
    // It holds rows, and other computes' users may pass through the folder.
    let options = File::options().write(true).create_new(true).mode(MODE).to_owned();
    let mut out = Checked::new(BufWriter::new(options.open(file)?));
    out.write_all(&MAGIC)?;
    out.write_all(&control.unlogged_lsn.0.to_le_bytes())?;
    out.write_all(&(kept.len() as u32).to_le_bytes())?;
    for Kept { path, bytes } in &kept {
        out.write_all(&(path.len() as u16).to_le_bytes())?;
        out.write_all(path.as_bytes())?;
        out.write_all(&bytes.to_le_bytes())?;
        let content = File::open(root.join(path))?;
        if io::copy(&mut content.take(*bytes), &mut out)? != *bytes {
            return Err(io::Error::other(format!("{path} became shorter")));
        }
    }
    let checksum = out.checksum;
    let mut file = out.inner;
    file.write_all(&checksum.to_le_bytes())?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Puts what was kept in the place of what the base backup gave, where it is whole.
pub(super) fn take(file: &Path, files: &RelationFiles) -> io::Result<Restored> {
    let length = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Restored::default()),
        found => found?.len(),
    };
    check(file, length)?;
    let mut from = BufReader::new(File::open(file)?);
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(damaged("it is of another version"));
    }
    let unlogged_lsn = Some(Lsn(u64::from_le_bytes(array(&mut from)?)));
    let mut paths = HashSet::new();
    for _ in 0..u32::from_le_bytes(array(&mut from)?) {
        let path = read_path(&mut from)?;
        let mut left = u64::from_le_bytes(array(&mut from)?);
        files.clear_file(&path).map_err(io::Error::other)?;
        let mut piece = vec![0; PIECE_BYTES];
        while left > 0 {
            let here = PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            from.read_exact(&mut piece[..here])?;
            files.append_local_file(&path, &piece[..here]).map_err(io::Error::other)?;
            left -= here as u64;
        }
        paths.insert(path);
    }
    Ok(Restored { paths, unlogged_lsn })
}

/// Refuses a file whose checksum, the last four bytes, is not that of what is before.
fn check(file: &Path, length: u64) -> io::Result<()> {
    let before = length.checked_sub(4).ok_or_else(|| damaged("it is cut off"))?;
    let mut from = BufReader::new(File::open(file)?);
    let mut nowhere = Checked::new(io::sink());
    io::copy(&mut (&mut from).take(before), &mut nowhere)?;
    match u32::from_le_bytes(array(&mut from)?) == nowhere.checksum {
        true => Ok(()),
        false => Err(damaged("its checksum is wrong")),
    }
}

fn read_path(from: &mut impl Read) -> io::Result<String> {
    let length = usize::from(u16::from_le_bytes(array(from)?));
    if length > PATH_BYTES_MAX {
        return Err(damaged("a path is too long"));
    }
    let mut path = vec![0; length];
    from.read_exact(&mut path)?;
    let path = String::from_utf8(path).map_err(|_| damaged("a path is no text"))?;
    match path::parse(&path) {
        FileName::Relation { .. } => Ok(path),
        FileName::Temporary | FileName::Other => Err(damaged("a path is no relation's")),
    }
}

/// What of the relations' files is to be kept, within the bounds.
fn written(root: &Path, begun: SystemTime, restored: &Restored) -> io::Result<Vec<Kept>> {
    let relations = relations(root)?;
    let inits = relations.iter().filter(|(_, _, fork)| *fork == Fork::Init);
    let unlogged: HashSet<Relation> = inits.map(|(_, relation, _)| *relation).collect();
    let (mut maps, mut rows) = (Vec::new(), Vec::new());
    for (path, relation, fork) in relations {
        let is_unlogged = unlogged.contains(&relation);
        if fork == Fork::Init || (!is_unlogged && fork != Fork::FreeSpaceMap) {
            continue;
        }
        let metadata = fs::metadata(root.join(&path))?;
        if metadata.modified()? > begun || restored.paths.contains(&path) {
            let kept = Kept { path, bytes: metadata.len() };
            if is_unlogged { rows.push(kept) } else { maps.push(kept) }
        }
    }
    bound(&mut maps, &mut rows);
    maps.extend(rows);
    Ok(maps)
}

/// Leaves out what is too much: the largest maps, and unlogged relations altogether.
fn bound(maps: &mut Vec<Kept>, rows: &mut Vec<Kept>) {
    maps.sort_by_key(|kept| kept.bytes);
    let mut together = 0;
    let all = maps.len();
    maps.retain(|kept| {
        together += kept.bytes;
        together <= FREE_SPACE_BYTES_MAX
    });
    if maps.len() < all {
        tracing::info!(left_out = all - maps.len(), "the largest free space maps are not kept");
    }
    let bytes: u64 = rows.iter().map(|kept| kept.bytes).sum();
    if bytes > UNLOGGED_BYTES_MAX {
        tracing::info!(bytes, most = UNLOGGED_BYTES_MAX, "unlogged tables are not kept");
        rows.clear();
    }
}

/// All files of relations: their paths, and what they are.
fn relations(root: &Path) -> io::Result<Vec<(String, Relation, Fork)>> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if let Some(path) = path.to_str()
                && let FileName::Relation { fork, .. } = path::parse(path)
            {
                found.push((path.to_owned(), fork.relation, fork.fork));
            }
        }
    }
    Ok(found)
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Counts the checksum (CRC-32C) of what passes.
struct Checked<W> {
    inner: W,
    checksum: u32,
}

impl<W> Checked<W> {
    fn new(inner: W) -> Checked<W> {
        Checked { inner, checksum: 0 }
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(path: &str, bytes: u64) -> Kept {
        Kept { path: path.to_owned(), bytes }
    }

    #[test]
    fn the_largest_maps_are_left_out_and_unlogged_relations_altogether() {
        let mut maps = vec![kept("a", FREE_SPACE_BYTES_MAX), kept("b", 3), kept("c", 2)];
        let mut rows = vec![kept("d", UNLOGGED_BYTES_MAX - 1), kept("e", 1)];
        bound(&mut maps, &mut rows);
        let paths = |all: &[Kept]| all.iter().map(|kept| kept.path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&maps), ["c", "b"]);
        assert_eq!(paths(&rows), ["d", "e"]);
        rows.push(kept("f", 1));
        bound(&mut maps, &mut rows);
        assert!(rows.is_empty(), "a table came back without its index");
    }

    #[test]
    fn a_file_that_is_not_whole_is_refused() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("relations");
        let mut whole = b"offrels1 and more".to_vec();
        whole.extend_from_slice(&crc32c::crc32c(&whole).to_le_bytes());
        fs::write(&file, &whole)?;
        check(&file, whole.len() as u64)?;
        for damaged in [&whole[1..], &whole[..whole.len() - 1], &whole[..3], &[]] {
            fs::write(&file, damaged)?;
            let refused = check(&file, damaged.len() as u64);
            let kind = refused.map_err(|error| error.kind());
            assert_eq!(kind, Err(io::ErrorKind::InvalidData), "{damaged:?}");
        }
        Ok(())
    }

    #[test]
    fn relations_are_found_in_all_folders_and_nothing_else_is() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let version = path::TABLESPACE_VERSION_FOLDER;
        let (there, others) = (
            ["base/5/16384_fsm", "global/1262", &format!("pg_tblspc/9/{version}/5/16385_init.1")],
            ["base/5/PG_VERSION", "global/pg_control", "base/pgsql_tmp/x", "base/5/t1_16386"],
        );
        fs::create_dir_all(root.path().join("pg_tblspc"))?;
        for path in there.iter().chain(&others) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in a folder"))?;
            fs::write(path, "")?;
        }
        let mut found: Vec<String> =
            relations(root.path())?.into_iter().map(|(path, ..)| path).collect();
        found.sort();
        assert_eq!(found, there);
        Ok(())
    }
}
