//! What is made of files, and made again when they change.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::TlsError;

/// What tells a file from the one that was there before.
type Stamp = (u64, i64, i64, u64);

/// How it is made of its files.
type Make<T> = Box<dyn Fn(&[PathBuf]) -> Result<T, TlsError> + Send + Sync>;

/// What was made of some files.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    make: Make<T>,
    /// Held while small files are read, and never across an await.
    made: Mutex<Made<T>>,
}

struct Made<T> {
    /// What the files were when they were last tried; none for one that was not there.
    stamps: Vec<Option<Stamp>>,
    value: Arc<T>,
}

impl<T> Watched<T> {
    /// Makes it of these files.
    pub(super) fn new(
        paths: Vec<PathBuf>,
        make: impl Fn(&[PathBuf]) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Watched<T>, TlsError> {
        // Before the files are read: a change meanwhile is seen the next time.
        let stamps = stamps(&paths);
        let value = Arc::new(make(&paths)?);
        Ok(Watched { paths, make: Box::new(make), made: Mutex::new(Made { stamps, value }) })
    }

    /// The first of its files.
    pub(super) fn path(&self) -> &PathBuf {
        self.paths.first().expect("it is made of at least one file")
    }

    /// What the files are now; where that is nothing usable, what they were before. They are looked
    /// at for each connection, which costs some microseconds where a handshake costs hundreds.
    pub(super) fn get(&self) -> Arc<T> {
        let stamps = stamps(&self.paths);
        let mut made = self.made.lock();
        if stamps != made.stamps {
            made.stamps = stamps;
            match (self.make)(&self.paths) {
                Ok(value) => {
                    made.value = Arc::new(value);
                    tracing::info!(path = %self.path().display(), "read anew");
                }
                Err(error) => {
                    tracing::warn!(%error, "what was read before stays in use");
                }
            }
        }
        Arc::clone(&made.value)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| -> io::Result<Stamp> {
        let file = fs::metadata(path)?;
        Ok((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
    };
    paths.iter().map(|path| stamp(path).ok()).collect()
}
