//! How much of the machine a compute may take: what its endpoint's compute units come to, and the
//! kernel's control groups, which hold it to that where the machine has them.
//!
//! Bounded is Postgres, not the shim beside it: a file system whose server waits for memory that only
//! the file system can free would never go on.

mod cgroup;

use crate::Settings;

pub use self::cgroup::Bounds;
pub(crate) use self::cgroup::{Cgroups, Group};

/// What one compute unit is: a processor, and so much memory.
const UNIT_BYTES: u64 = 4 << 30;
/// Postgres does not start with much less.
const MEMORY_BYTES_MIN: u64 = 256 << 20;
/// How much processor time the kernel counts together, and the least that it gives of it.
const CPU_PERIOD_MICROS: u64 = 100_000;
const CPU_QUOTA_MICROS_MIN: u64 = 1_000;

/// What a compute may take at most, in compute units.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Limits {
    units: f64,
}

impl Limits {
    /// So many compute units.
    pub(crate) fn new(units: f64) -> Limits {
        Limits { units }
    }

    /// The most memory, in bytes.
    fn memory_bytes(self) -> u64 {
        ((self.units * UNIT_BYTES as f64) as u64).max(MEMORY_BYTES_MIN)
    }

    /// The most processor time, in microseconds of each [`CPU_PERIOD_MICROS`].
    fn cpu_quota_micros(self) -> u64 {
        ((self.units * CPU_PERIOD_MICROS as f64) as u64).max(CPU_QUOTA_MICROS_MIN)
    }

    /// What Postgres is told of it when it starts; what the endpoint says itself goes before. A quarter
    /// of the memory for shared buffers, as Postgres' manual advises; the rest is the kernel's cache, of
    /// which the planner should know, and the sessions'.
    pub(crate) fn settings(self) -> Settings {
        const MIB: u64 = 1 << 20;
        let memory = self.memory_bytes() / MIB;
        let settings = [
            ("shared_buffers", memory / 4),
            ("effective_cache_size", memory * 3 / 4),
            ("maintenance_work_mem", (memory / 16).clamp(16, 1024)),
        ];
        settings.map(|(name, value)| (name.to_owned(), format!("{value}MB"))).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compute_unit_is_a_processor_and_four_gib() {
        let limits = |units| {
            let limits = Limits::new(units);
            (limits.memory_bytes(), limits.cpu_quota_micros())
        };
        assert_eq!(limits(1.0), (4 << 30, 100_000));
        assert_eq!(limits(0.25), (1 << 30, 25_000));
        assert_eq!(limits(8.0), (32 << 30, 800_000));
        assert_eq!(limits(0.000_001), (256 << 20, 1_000), "the kernel and Postgres want some");
    }

    #[test]
    fn postgres_is_told_how_large_it_may_be() {
        let told = |units: f64, name: &str| Limits::new(units).settings().get(name).cloned();
        assert_eq!(told(1.0, "shared_buffers").as_deref(), Some("1024MB"));
        assert_eq!(told(1.0, "effective_cache_size").as_deref(), Some("3072MB"));
        assert_eq!(told(0.25, "shared_buffers").as_deref(), Some("256MB"));
        assert_eq!(told(0.25, "maintenance_work_mem").as_deref(), Some("64MB"));
        assert_eq!(told(64.0, "maintenance_work_mem").as_deref(), Some("1024MB"));
    }
}
