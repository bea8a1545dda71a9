//! Which tenants' usage may have changed, and when: so whoever has read that of all needs to read
//! only those later.
//!
//! When is counted in changes, which only this process knows of: another one that serves a tenant
//! counts its own.

use std::collections::HashMap;

use parking_lot::Mutex;
use protocol::TenantId;

/// The most tenants that are remembered, some 40 bytes each.
const REMEMBERED_MAX: usize = 1 << 20;

#[derive(Default)]
struct Known {
    changes: u64,
    /// The last change of each tenant.
    last: HashMap<TenantId, u64>,
    /// Changes up to this one are forgotten.
    forgotten: u64,
}

/// The tenants that changed.
#[derive(Default)]
pub struct Changed(Mutex<Known>);

impl Changed {
    /// Something of the tenant changed.
    pub fn note(&self, id: TenantId) {
        let mut known = self.0.lock();
        known.changes += 1;
        if known.last.len() >= REMEMBERED_MAX {
            known.last.clear();
            known.forgotten = known.changes - 1;
        }
        let change = known.changes;
        known.last.insert(id, change);
    }

    /// How many changes there were: asked before anything is read.
    pub fn count(&self) -> u64 {
        self.0.lock().changes
    }

    /// The tenants that changed after so many changes; `None` where that is forgotten.
    pub fn since(&self, count: u64) -> Option<Vec<TenantId>> {
        let known = self.0.lock();
        let later = known.last.iter().filter(|(_, change)| **change > count);
        (known.forgotten <= count && count <= known.changes)
            .then(|| later.map(|(id, _)| *id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_tenant_that_changed_again_and_again_only_the_last_change_counts() {
        let changed = Changed::default();
        let [a, b] = [1, 2].map(TenantId::from_bits);
        changed.note(a);
        changed.note(b);
        let count = changed.count();
        assert_eq!(changed.since(count), Some(Vec::new()));
        changed.note(a);
        assert_eq!(changed.since(count), Some(vec![a]));
        assert_eq!(changed.since(0).map(|all| all.len()), Some(2));
        assert_eq!(changed.since(count + 2), None, "of another process");
    }

    #[test]
    fn what_was_forgotten_is_not_told_as_unchanged() {
        let changed = Changed::default();
        for bits in 0..=REMEMBERED_MAX as u128 {
            changed.note(TenantId::from_bits(bits));
        }
        assert_eq!(changed.since(0), None);
        let last = TenantId::from_bits(REMEMBERED_MAX as u128);
        assert_eq!(changed.since(REMEMBERED_MAX as u64), Some(vec![last]));
    }
}
