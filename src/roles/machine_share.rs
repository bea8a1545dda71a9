//! What the pageserver takes of the machine where nothing is said.

use std::{fs, path::Path};

use nix::sys::statvfs::statvfs;

/// One in so many bytes.
const PART: u64 = 4;
const MEMORY_BYTES_MAX: u64 = 8 << 30;
/// Taken where the machine does not say what it has.
const MEMORY_BYTES_UNKNOWN: u64 = 1 << 30;
const DISK_BYTES_MAX: u64 = 4 << 30;

/// A quarter of what the machine has, or the container where that has less.
pub fn memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    share_of_memory(machine, container)
}

/// A quarter of the file system that a folder, which may not exist yet, is in; 0 where it does not
/// say how large it is.
pub fn disk(folder: &Path) -> u64 {
    let there = folder.ancestors().find(|folder| folder.exists());
    let of = there.and_then(|folder| statvfs(folder).ok());
    of.map_or(0, |of| (of.blocks() * of.fragment_size() / PART).min(DISK_BYTES_MAX))
}

fn share_of_memory(machine: Option<u64>, container: Option<u64>) -> u64 {
    let has = machine.into_iter().chain(container).min();
    has.map_or(MEMORY_BYTES_UNKNOWN, |has| (has / PART).min(MEMORY_BYTES_MAX))
}

/// The bytes of memory in the text of `/proc/meminfo`.
fn mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_taken_of_the_machine_or_the_container_and_never_very_much() {
        let text = "MemTotal:       24576000 kB\nMemFree:         1000 kB\n";
        assert_eq!(mem_total(text), Some(24_576_000 << 10));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        assert_eq!(share_of_memory(Some(4 << 30), None), 1 << 30);
        assert_eq!(share_of_memory(Some(4 << 30), Some(2 << 30)), 512 << 20);
        assert_eq!(share_of_memory(Some(1 << 40), Some(u64::MAX)), MEMORY_BYTES_MAX);
        assert_eq!(share_of_memory(None, None), MEMORY_BYTES_UNKNOWN);
    }

    #[test]
    fn a_quarter_of_a_file_system_is_known_before_the_folder_is_made() {
        let there = disk(Path::new("/"));
        assert!(there > 0 && there <= DISK_BYTES_MAX, "{there}");
        assert_eq!(disk(Path::new("/no-such-folder/cache")), there);
    }
}
