#![doc = include_str!("../../../docs/formats/kept-state.md")]

mod relations;

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use protocol::Term;
use wal_format::Lsn;

use self::relations::Restored;
use crate::{
    ShimError,
    folder::give,
    fuse::{Owner, RelationFiles},
};

/// The stamp's first line, by its version.
const MAGIC: &str = "offshoot kept state 1";
const STAMP: &str = "stamp";
/// Folders that Postgres works in where they are: what it fsyncs there outlives it.
const LIVE: [&str; 3] = ["pg_replslot", "pg_logical/snapshots", "pg_logical/mappings"];
/// What Postgres writes when it stops, and reads and removes when it starts.
const STATISTICS: &str = "pg_stat";
/// Files of relations that no WAL has.
const RELATIONS: &str = "relations";

/// The folder is root's. While a compute runs, its Postgres passes through to what is its own.
const PASSED_THROUGH: u32 = 0o711;
/// Otherwise nobody does: another compute may be given the same user.
const CLOSED: u32 = 0o700;
/// Who owns the copies.
const ROOT: u32 = 0;

/// Offsets in a slot's `state` file (slot.c: `ReplicationSlotOnDisk`, `ReplicationSlotPersistentData`).
const SLOT_RESTART_AT: usize = 96;
const SLOT_INVALIDATED_AT: usize = 104;

/// Which compute left the state, and where its WAL ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    /// The compute's term.
    term: Term,
    /// Where it stopped, or, as long as it has not, where it started.
    lsn: Lsn,
    /// It stopped cleanly.
    stopped: bool,
}

/// What of the state is still valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Valid {
    /// Nobody has written since a clean stop.
    All,
    /// Its own compute wrote last, and crashed: Postgres' rules for a crash are these, too.
    Slots,
    /// Somebody else has written since.
    Nothing,
}

impl Stamp {
    /// What is valid where the log ends at `end`, and `wrote_last` is the term that wrote its last byte.
    fn valid(self, end: Lsn, wrote_last: Term) -> Valid {
        match () {
            () if self.stopped && self.lsn == end => Valid::All,
            () if self.lsn == end || (!self.stopped && self.term == wrote_last) => Valid::Slots,
            () => Valid::Nothing,
        }
    }

    fn encode(self) -> String {
        let Stamp { term, lsn, stopped } = self;
        let state = if stopped { "stopped" } else { "running" };
        format!("{MAGIC}\n{state} {} {lsn}\n", term.0)
    }

    fn decode(text: &str) -> Option<Stamp> {
        let mut words =
            text.strip_prefix(MAGIC)?.strip_prefix('\n')?.strip_suffix('\n')?.split(' ');
        let stopped = match words.next()? {
            "stopped" => true,
            "running" => false,
            _ => return None,
        };
        let term = Term(words.next()?.parse().ok()?);
        let lsn = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Stamp { term, lsn, stopped })
    }
}

/// The state that is kept of a timeline, taken by its compute.
pub(super) struct Kept {
    folder: PathBuf,
    data: PathBuf,
    term: Term,
    owner: Owner,
    /// Where relations are mounted, what of them came back, and when that was done.
    relations: Option<(PathBuf, Restored, SystemTime)>,
}

impl Kept {
    /// Takes the folder for a compute of this term, which starts at `end`, and lays into the data
    /// directory what is still valid of it; the rest is thrown away.
    pub(super) fn take(
        folder: &Path,
        data: &Path,
        owner: Owner,
        (term, end, wrote_last): (Term, Lsn, Term),
    ) -> Result<Kept, ShimError> {
        let (folder_path, data) = (folder.to_owned(), data.to_owned());
        let kept = Kept { folder: folder_path, data, term, owner, relations: None };
        kept.lay_out(end, wrote_last)
            .map_err(ShimError::io(format!("taking the kept state in {}", folder.display())))?;
        Ok(kept)
    }

    fn lay_out(&self, end: Lsn, wrote_last: Term) -> io::Result<()> {
        make(&self.folder)?;
        // Nobody but root is in it while what is there is looked at and given away.
        fs::set_permissions(&self.folder, Permissions::from_mode(CLOSED))?;
        let stamp = match fs::read_to_string(self.folder.join(STAMP)) {
            Ok(text) => Stamp::decode(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let valid = stamp.map_or(Valid::Nothing, |stamp| stamp.valid(end, wrote_last));
        if valid == Valid::Nothing {
            for name in LIVE {
                remove(&self.place(name))?;
            }
        }
        if valid != Valid::All {
            remove(&self.place(STATISTICS))?;
            remove_file(&self.place(RELATIONS))?;
        }
        // From here on, whatever comes: statistics are read once.
        self.stamp(Stamp { term: self.term, lsn: end, stopped: false })?;
        for name in LIVE {
            let (place, there) = (self.place(name), self.data.join(name));
            make(&place)?;
            give(&place, self.owner)?;
            fs::remove_dir(&there)?;
            symlink(&place, &there)?;
        }
        let statistics = self.data.join(STATISTICS);
        for name in copy(&self.place(STATISTICS), &statistics, ROOT)? {
            lchown(statistics.join(name), Some(self.owner.uid), Some(self.owner.gid))?;
        }
        remove(&self.place(STATISTICS))?;
        fs::set_permissions(&self.folder, Permissions::from_mode(PASSED_THROUGH))
    }

    /// Puts files of relations back that are still valid, where `root` will be what is mounted; where the
    /// LSNs of unlogged pages go on. They are put back once.
    pub(super) fn take_relations(
        &mut self,
        files: &RelationFiles,
        root: PathBuf,
    ) -> Result<Option<Lsn>, ShimError> {
        let file = self.place(RELATIONS);
        let restored = match relations::take(&file, files) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(file = %file.display(), %error, "kept relations are thrown away");
                Restored::default()
            }
            taken => taken.map_err(ShimError::io(format!("reading {}", file.display())))?,
        };
        remove_file(&file).map_err(ShimError::io(format!("removing {}", file.display())))?;
        let unlogged_lsn = restored.unlogged_lsn;
        self.relations = Some((root, restored, SystemTime::now()));
        Ok(unlogged_lsn)
    }

    /// Where the oldest slot wants to read on.
    pub(super) fn restart_lsn(&self) -> Result<Option<Lsn>, ShimError> {
        let slots = self.place(LIVE[0]);
        let failed = || ShimError::io(format!("reading the slots in {}", slots.display()));
        let mut oldest = None;
        for slot in fs::read_dir(&slots).map_err(failed())? {
            let state = slot.map_err(failed())?.path().join("state");
            // A slot whose making was interrupted has none; Postgres removes it.
            let Ok(state) = fs::read(&state) else { continue };
            oldest = oldest.into_iter().chain(restart_lsn(&state)).min();
        }
        Ok(oldest)
    }

    /// Throws the slots away.
    pub(super) fn drop_slots(&self) -> Result<(), ShimError> {
        let slots = self.place(LIVE[0]);
        let again = || {
            remove(&slots)?;
            make(&slots)?;
            give(&slots, self.owner)
        };
        again().map_err(ShimError::io(format!("dropping the slots in {}", slots.display())))
    }

    /// Keeps what Postgres left when it stopped cleanly, and its WAL ended at `end`.
    pub(super) fn put(&self, end: Lsn) -> io::Result<()> {
        let statistics = self.place(STATISTICS);
        remove(&statistics)?;
        make(&statistics)?;
        copy(&self.data.join(STATISTICS), &statistics, self.owner.uid)?;
        if let Some((root, restored, begun)) = &self.relations {
            let file = self.place(RELATIONS);
            if let Err(error) = relations::put(&file, root, *begun, restored) {
                tracing::warn!(%error, "free space maps and unlogged tables are not kept");
                remove_file(&file)?;
            }
        }
        self.stamp(Stamp { term: self.term, lsn: end, stopped: true })
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name.replace('/', "_"))
    }

    /// Writes the stamp, whole or not at all, and durably.
    fn stamp(&self, stamp: Stamp) -> io::Result<()> {
        let (new, place) = (self.folder.join("stamp.new"), self.folder.join(STAMP));
        let mut file = File::create(&new)?;
        file.write_all(stamp.encode().as_bytes())?;
        file.sync_all()?;
        fs::rename(new, place)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Where a slot wants to read on; nowhere where it is invalid, or has reserved nothing yet.
fn restart_lsn(state: &[u8]) -> Option<Lsn> {
    let lsn = |at: usize| {
        let bytes = state.get(at..)?.first_chunk::<8>()?;
        Some(Lsn(u64::from_le_bytes(*bytes)))
    };
    let (restart, invalidated) = (lsn(SLOT_RESTART_AT)?, lsn(SLOT_INVALIDATED_AT)?);
    (restart.is_valid() && !invalidated.is_valid()).then_some(restart)
}

/// Copies a folder's files, durably, and says which. Only files of this user count, and no links: a
/// tenant may have put there whatever it likes, and this is done by root.
fn copy(from: &Path, to: &Path, of: u32) -> io::Result<Vec<OsString>> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut copied = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = File::options().read(true).custom_flags(flags).open(from.join(&name));
        // A link cannot be opened so.
        let Ok(mut file) = opened else { continue };
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.uid() == of {
            let mut copy = File::create(to.join(&name))?;
            io::copy(&mut file, &mut copy)?;
            copy.sync_all()?;
            copied.push(name);
        }
    }
    Ok(copied)
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(stopped: bool, term: u64, lsn: u64) -> Stamp {
        Stamp { term: Term(term), lsn: Lsn(lsn), stopped }
    }

    #[test]
    fn all_is_valid_after_a_clean_stop_that_nobody_wrote_after() {
        let stopped = stamp(true, 7, 500);
        assert_eq!(stopped.valid(Lsn(500), Term(7)), Valid::All);
        // Terms without a byte change nothing.
        assert_eq!(stopped.valid(Lsn(500), Term(5)), Valid::All);
        assert_eq!(stopped.valid(Lsn(620), Term(8)), Valid::Nothing, "another compute wrote");
        // It cannot have written after its stop.
        assert_eq!(stopped.valid(Lsn(620), Term(7)), Valid::Nothing);
    }

    #[test]
    fn slots_survive_a_crash_of_their_own_compute_and_statistics_do_not() {
        let running = stamp(false, 7, 500);
        assert_eq!(running.valid(Lsn(900), Term(7)), Valid::Slots);
        assert_eq!(running.valid(Lsn(500), Term(3)), Valid::Slots, "it wrote nothing");
        assert_eq!(running.valid(Lsn(900), Term(8)), Valid::Nothing, "another compute wrote");
    }

    #[test]
    fn a_stamp_is_written_and_read_alike_and_damage_is_no_stamp() {
        for stamp in [stamp(true, 7, 0x16B_3748), stamp(false, u64::MAX, u64::MAX)] {
            assert_eq!(Stamp::decode(&stamp.encode()), Some(stamp));
        }
        assert_eq!(stamp(true, 7, 500).encode(), "offshoot kept state 1\nstopped 7 0/1F4\n");
        for bad in [
            "",
            "offshoot kept state 2\nstopped 7 0/1F4\n",
            "offshoot kept state 1\nstopped 7 0/1F4",
            "offshoot kept state 1\nhalted 7 0/1F4\n",
            "offshoot kept state 1\nstopped 7 0/1F4 8\n",
            "offshoot kept state 1\nstopped 7\n",
        ] {
            assert_eq!(Stamp::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_slot_reads_on_where_it_says_unless_it_is_invalid() {
        let mut state = vec![0; 200];
        assert_eq!(restart_lsn(&state), None, "nothing is reserved");
        state[96..104].copy_from_slice(&0x16B_3748_u64.to_le_bytes());
        assert_eq!(restart_lsn(&state), Some(Lsn(0x16B_3748)));
        assert_eq!(restart_lsn(&state[..100]), None, "it is cut off");
        state[104] = 1;
        assert_eq!(restart_lsn(&state), None, "it is invalidated");
    }

    #[test]
    fn what_is_kept_comes_back_once_and_goes_with_another_compute() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let owner =
            Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
        let start = |name: &str, term: u64, end: u64, wrote_last: u64| -> anyhow::Result<Kept> {
            let data = folder.path().join(name);
            for live in LIVE.iter().chain(&[STATISTICS]) {
                fs::create_dir_all(data.join(live))?;
            }
            let at = (Term(term), Lsn(end), Term(wrote_last));
            Ok(Kept::take(&folder.path().join("kept"), &data, owner, at)?)
        };
        let statistics = |kept: &Kept| kept.data.join("pg_stat/pgstat.stat");
        let slot = |kept: &Kept| kept.data.join("pg_replslot/a");

        let first = start("first", 1, 100, 0)?;
        fs::create_dir(slot(&first))?;
        fs::write(statistics(&first), "counts")?;
        first.put(Lsn(200))?;
        let second = start("second", 2, 200, 1)?;
        assert!(slot(&second).is_dir());
        assert_eq!(fs::read_to_string(statistics(&second))?, "counts");
        // It crashes: its statistics are gone, its slots are not.
        let third = start("third", 3, 300, 2)?;
        assert!(slot(&third).is_dir() && !statistics(&third).exists());
        fs::write(statistics(&third), "counts")?;
        third.put(Lsn(400))?;
        // What a tenant put there for root to read is left out.
        let fourth = start("fourth", 4, 400, 3)?;
        fs::write(folder.path().join("secret"), "secret")?;
        symlink(folder.path().join("secret"), fourth.data.join("pg_stat/pgstat.stat.1"))?;
        fs::write(statistics(&fourth), "more")?;
        fourth.put(Lsn(450))?;
        let names: Vec<_> = fs::read_dir(fourth.place(STATISTICS))?.flatten().collect();
        assert_eq!(names.len(), 1, "a link was followed");
        // Another compute, elsewhere, has written in between.
        let sixth = start("sixth", 6, 500, 5)?;
        assert!(!slot(&sixth).exists() && !statistics(&sixth).exists());
        Ok(())
    }
}
