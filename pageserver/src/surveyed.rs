//! What a survey of the store has found out about tenants, and how long that holds.
//!
//! A tenant that is served here changes only by manifests that this process writes; whoever writes
//! one says so here, and from then on nothing is known of the tenant. One that another pageserver
//! serves, or nobody, becomes this process' only by such a manifest.

use std::collections::HashMap;

use parking_lot::Mutex;
use protocol::TenantId;

/// The most tenants that are remembered, some 40 bytes each; the others are read at each survey.
const REMEMBERED_MAX: usize = 1 << 20;

/// The tenants that were found without work.
#[derive(Default)]
pub struct Surveyed {
    /// Until when each needs not be looked at; `None` while it is.
    until: Mutex<HashMap<TenantId, Option<i64>>>,
}

impl Surveyed {
    /// Whether a tenant has to be looked at, at a moment in microseconds since 2000.
    pub fn wants(&self, id: TenantId, now: i64) -> bool {
        self.until.lock().get(&id).copied().flatten().is_none_or(|until| until <= now)
    }

    /// A look at the tenant begins: before anything of it is read.
    pub fn begin(&self, id: TenantId) {
        let mut known = self.until.lock();
        if known.len() < REMEMBERED_MAX || known.contains_key(&id) {
            known.insert(id, None);
        }
    }

    /// The look found nothing to do until then; that is forgotten at once where something was
    /// written since it began.
    pub fn end(&self, id: TenantId, until: i64) {
        if let Some(known) = self.until.lock().get_mut(&id) {
            *known = Some(until);
        }
    }

    /// A manifest of the tenant or of one of its timelines was written, or a look at it failed.
    pub fn forget(&self, id: TenantId) {
        self.until.lock().remove(&id);
    }

    /// Forgets the tenants that are not there any more.
    pub fn retain(&self, is_there: impl Fn(TenantId) -> bool) {
        self.until.lock().retain(|id, _| is_there(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_looked_at_again_when_its_time_has_come_or_something_was_written() {
        let (surveyed, id) = (Surveyed::default(), TenantId::from_bits(1));
        assert!(surveyed.wants(id, 0));
        surveyed.begin(id);
        assert!(surveyed.wants(id, 0), "the look has not ended");
        surveyed.end(id, 10);
        assert_eq!([9, 10].map(|now| surveyed.wants(id, now)), [false, true]);
        surveyed.begin(id);
        surveyed.forget(id);
        surveyed.end(id, 10);
        assert!(surveyed.wants(id, 0), "something was written while it was looked at");
    }
}
