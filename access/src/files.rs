//! Files that others read while they are replaced.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// For its owner alone.
pub const SECRET: u32 = 0o600;
/// For everybody to read.
pub const PUBLIC: u32 = 0o644;

/// Writes a file in place of the one that may be there: a reader sees the old one or the new one,
/// whole.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut making = path.as_os_str().to_owned();
    making.push(".making");
    let making = Path::new(&making);
    // What was left half made may have another mode.
    match fs::remove_file(making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(making)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(making, path)
}
