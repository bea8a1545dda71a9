//! Control groups: version 2 where it has the controller, version 1 where that has it, and none where
//! the machine gives none. Source: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{CPU_PERIOD_MICROS, Limits};

/// The group below which each compute has its own.
const PARENT: &str = "offshoot";
/// How often, and after which pause, a group is removed whose processes have just ended.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// What holds computes to their limits, as the status says it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// `cgroup v2` or `cgroup v1`; `null` where nothing bounds memory.
    pub memory: Option<String>,
    /// The same of processor time.
    pub cpu: Option<String>,
    /// Why not.
    pub reason: Option<String>,
}

/// A version of the kernel's interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Where the bound on memory is written.
    fn memory_file(self) -> &'static str {
        match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        }
    }
}

/// Where groups of one controller are made.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    version: Version,
    /// The root of the hierarchy.
    root: PathBuf,
}

/// The hierarchies that bound memory and processor time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Places {
    memory: Option<Place>,
    cpu: Option<Place>,
}

impl Places {
    /// Finds them in `/proc/mounts`; `controllers` says what `cgroup.controllers` has below a root of
    /// version 2.
    fn find(mounts: &str, controllers: impl Fn(&Path) -> String) -> Places {
        let find = |controller: &str| {
            let has =
                |list: &str, sign: char| list.split(sign).any(|word| word.trim() == controller);
            let mut first = None;
            for line in mounts.lines() {
                let mut fields = line.split(' ').skip(1);
                let (Some(root), Some(kind), Some(options)) =
                    (fields.next(), fields.next(), fields.next())
                else {
                    continue;
                };
                let root = PathBuf::from(root);
                match kind {
                    "cgroup2" if has(&controllers(&root), ' ') => {
                        return Some(Place { version: Version::Two, root });
                    }
                    "cgroup" if has(options, ',') => {
                        first.get_or_insert(Place { version: Version::One, root });
                    }
                    _ => {}
                }
            }
            first
        };
        Places { memory: find("memory"), cpu: find("cpu") }
    }
}

/// Makes groups, as far as the machine lets it.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    places: Places,
    reason: Option<String>,
}

impl Cgroups {
    /// Looks at the machine, and makes the group that all others are below.
    pub(crate) fn open() -> Cgroups {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let controllers =
            |root: &Path| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let mut places = Places::find(&mounts, controllers);
        let mut reasons = Vec::new();
        for (controller, place) in [("memory", &mut places.memory), ("cpu", &mut places.cpu)] {
            match place.as_ref().map(|place| prepare(place, controller)) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    reasons.push(format!("{controller}: {error}"));
                    *place = None;
                }
                None => reasons.push(format!("{controller}: no control groups of it are mounted")),
            }
        }
        let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        if let Some(reason) = &reason {
            tracing::info!(reason, "computes are not held to all of their limits");
        }
        Cgroups { places, reason }
    }

    /// What bounds computes here.
    pub(crate) fn bounds(&self) -> Bounds {
        let name = |place: &Option<Place>| {
            place.as_ref().map(|place| match place.version {
                Version::One => "cgroup v1".to_owned(),
                Version::Two => "cgroup v2".to_owned(),
            })
        };
        Bounds {
            memory: name(&self.places.memory),
            cpu: name(&self.places.cpu),
            reason: self.reason.clone(),
        }
    }

    /// A new group of this name.
    pub(crate) fn make(&self, name: &str) -> io::Result<Group> {
        let group = Group { places: self.places.clone(), name: name.to_owned() };
        for folder in group.folders() {
            // A compute that was killed with its control plane may have left it.
            ensure(&folder)?;
        }
        Ok(group)
    }
}

/// Makes the parent of all groups. In version 2 a controller must be handed down to its children.
fn prepare(place: &Place, controller: &str) -> io::Result<()> {
    let parent = place.root.join(PARENT);
    if place.version == Version::Two {
        write(&place.root.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    ensure(&parent)?;
    if place.version == Version::Two {
        write(&parent.join("cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(())
}

/// The group of one compute's Postgres.
#[derive(Debug)]
pub(crate) struct Group {
    places: Places,
    name: String,
}

impl Group {
    /// Its folders, one for each hierarchy that it is in.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let places = [&self.places.memory, &self.places.cpu].into_iter().flatten();
        let mut folders: Vec<PathBuf> = places.map(|place| self.folder(place)).collect();
        folders.dedup();
        folders
    }

    fn folder(&self, place: &Place) -> PathBuf {
        place.root.join(PARENT).join(&self.name)
    }

    /// Bounds the memory. It can be taken back only as far as it is not in use.
    pub(crate) fn set_memory(&self, limits: Limits) -> io::Result<()> {
        let Some(place) = &self.places.memory else { return Ok(()) };
        let file = self.folder(place).join(place.version.memory_file());
        write(&file, &limits.memory_bytes().to_string())
    }

    /// Bounds the processor time.
    pub(crate) fn set_cpu(&self, limits: Limits) -> io::Result<()> {
        let Some(place) = &self.places.cpu else { return Ok(()) };
        let (folder, quota) = (self.folder(place), limits.cpu_quota_micros());
        match place.version {
            Version::One => {
                write(&folder.join("cpu.cfs_period_us"), &CPU_PERIOD_MICROS.to_string())?;
                write(&folder.join("cpu.cfs_quota_us"), &quota.to_string())
            }
            Version::Two => write(&folder.join("cpu.max"), &format!("{quota} {CPU_PERIOD_MICROS}")),
        }
    }

    /// Removes it, after its last process; the kernel may still be busy with that.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for folder in self.folders() {
            let mut tries = 0;
            loop {
                match fs::remove_dir(&folder) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) if tries == REMOVE_TRIES => return Err(named(&folder, error)),
                    Err(_) => std::thread::sleep(REMOVE_PAUSE),
                }
                tries += 1;
            }
        }
        Ok(())
    }
}

/// Makes a group where there is none.
fn ensure(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|error| named(folder, error)),
    }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|error| named(file, error))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
        cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0\n";

    fn place(version: Version, root: &str) -> Option<Place> {
        Some(Place { version, root: root.into() })
    }

    #[test]
    fn a_controller_is_where_the_newer_version_has_it_or_the_older() {
        let found = Places::find(HYBRID, |_| "hugetlb".to_owned());
        assert_eq!(found.memory, place(Version::One, "/sys/fs/cgroup/memory"));
        assert_eq!(found.cpu, place(Version::One, "/sys/fs/cgroup/cpu,cpuacct"));

        let found = Places::find(HYBRID, |_| "hugetlb memory\n".to_owned());
        assert_eq!(found.memory, place(Version::Two, "/sys/fs/cgroup/unified"));
        assert_eq!(found.cpu, place(Version::One, "/sys/fs/cgroup/cpu,cpuacct"));

        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let found = Places::find(unified, |_| "cpuset cpu io memory pids\n".to_owned());
        assert_eq!(found.memory, place(Version::Two, "/sys/fs/cgroup"));
        assert_eq!(found.cpu, found.memory);

        let none = Places::find("proc /proc proc rw 0 0\nnonsense\n", |_| String::new());
        assert_eq!(none, Places::default());
    }

    #[test]
    fn a_group_of_one_hierarchy_has_one_folder() {
        let unified = place(Version::Two, "/sys/fs/cgroup");
        let places = Places { memory: unified.clone(), cpu: unified };
        let group = Group { places, name: "a".to_owned() };
        assert_eq!(group.folders(), [PathBuf::from("/sys/fs/cgroup/offshoot/a")]);
        let places = Places::find(HYBRID, |_| String::new());
        assert_eq!(Group { places, name: "a".to_owned() }.folders().len(), 2);
    }

    #[test]
    fn the_machines_own_groups_take_limits_and_other_ones_while_they_are_there()
    -> anyhow::Result<()> {
        let cgroups = Cgroups::open();
        let bounds = cgroups.bounds();
        // Where nothing can be bounded, the reason is said.
        assert_eq!(bounds.memory.is_none() || bounds.cpu.is_none(), bounds.reason.is_some());
        let group = cgroups.make(&format!("test-{}", std::process::id()))?;
        let other = cgroups.make(&format!("test-other-{}", std::process::id()))?;
        for units in [1.0, 2.0, 0.5] {
            group.set_memory(Limits::new(units))?;
            group.set_cpu(Limits::new(units))?;
            if let Some(place) = &group.places.memory {
                let file = place.version.memory_file();
                let read = |group: &Group| fs::read_to_string(group.folder(place).join(file));
                let bytes = Limits::new(units).memory_bytes().to_string();
                assert_eq!(read(&group)?.trim(), bytes);
                assert_ne!(read(&other)?.trim(), bytes, "another one's limit was changed");
            }
        }
        for group in [group, other] {
            group.remove()?;
            assert!(group.folders().iter().all(|folder| !folder.exists()));
            group.remove()?;
        }
        Ok(())
    }
}
