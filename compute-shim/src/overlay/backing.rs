//! The folder of the overlay's local files, and the few of them that are open.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use parking_lot::Mutex;

/// Local files that are kept open; a compute may have written to many thousands.
const OPEN_FILES_MAX: usize = 512;

/// The local files, by number. They are disposable: nothing here is synced to disk.
pub struct Backing {
    folder: PathBuf,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    files: HashMap<u64, (Arc<File>, u64)>,
    /// Counts uses, so that the files used longest ago are known.
    clock: u64,
}

impl Backing {
    /// Local files in this folder, which exists and is empty.
    pub fn new(folder: PathBuf) -> Backing {
        Backing { folder, open: Mutex::default() }
    }

    /// The folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub(super) fn write(&self, id: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = self.file(id, OpenOptions::new().read(true).write(true).create(true))?;
        file.write_all_at(data, offset)
    }

    /// Reads what is there; beyond the local file's end are zeros.
    pub(super) fn read(&self, id: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let file = self.file(id, OpenOptions::new().read(true).write(true))?;
        let mut filled = 0;
        while filled < into.len() {
            match file.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        into[filled..].fill(0);
        Ok(())
    }

    /// Cuts a local file to at most this length.
    pub(super) fn cut(&self, id: u64, length: u64) -> io::Result<()> {
        match self.file(id, OpenOptions::new().read(true).write(true)) {
            Ok(file) if file.metadata()?.len() > length => file.set_len(length),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a local file, where there is one.
    pub(super) fn remove(&self, id: u64) {
        self.open.lock().files.remove(&id);
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.path(id).display(), %error, "overlay file left behind");
            }
            _ => {}
        }
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:x}"))
    }

    fn file(&self, id: u64, options: &OpenOptions) -> io::Result<Arc<File>> {
        let mut open = self.open.lock();
        open.clock += 1;
        let now = open.clock;
        if let Some((file, used)) = open.files.get_mut(&id) {
            *used = now;
            return Ok(file.clone());
        }
        if open.files.len() >= OPEN_FILES_MAX {
            open.close_older_half();
        }
        let file = Arc::new(options.open(self.path(id))?);
        open.files.insert(id, (file.clone(), now));
        Ok(file)
    }
}

impl Open {
    fn close_older_half(&mut self) {
        let mut uses: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        let (_, median, _) = uses.select_nth_unstable(OPEN_FILES_MAX / 2);
        let median = *median;
        self.files.retain(|_, (_, used)| *used > median);
    }
}
