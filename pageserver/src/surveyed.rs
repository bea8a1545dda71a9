//! What a survey of the store has found out about tenants, and how long that holds.
//!
//! A tenant that is served here changes only by manifests that this process writes; whoever writes
//! one says so here, and from then on nothing is known of the tenant. One that another pageserver
//! serves, or nobody, becomes this process' only by such a manifest.
//!
//! So once all tenants were looked at, only those have to be known that may have something to do,
//! now or at some time: a tenant that has written nothing costs nothing.

use std::collections::HashMap;

use parking_lot::Mutex;
use protocol::TenantId;

/// The most tenants that are remembered, some 40 bytes each. Where there are more, all are looked at
/// by each survey.
const REMEMBERED_MAX: usize = 1 << 20;

/// When there may be something to do for a tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// It was written since it was looked at, or a look at it failed.
    Now,
    /// It is looked at, and was not written since that began.
    BeingLookedAt,
    /// From that moment on, in microseconds since 2000.
    At(i64),
}

#[derive(Default)]
struct Known {
    when: HashMap<TenantId, When>,
    /// Whether every tenant was looked at that is not among these.
    is_complete: bool,
}

/// The tenants that may have something to do.
#[derive(Default)]
pub struct Surveyed(Mutex<Known>);

impl Surveyed {
    /// The tenants that have to be looked at, at a moment in microseconds since 2000; `None`: all.
    pub fn wanted(&self, now: i64) -> Option<Vec<TenantId>> {
        let known = self.0.lock();
        let is_wanted = |when: &When| match when {
            When::Now | When::BeingLookedAt => true,
            When::At(moment) => *moment <= now,
        };
        let wanted = known.when.iter().filter(|(_, when)| is_wanted(when));
        known.is_complete.then(|| wanted.map(|(id, _)| *id).collect())
    }

    /// A look at all tenants begins.
    pub fn begin_all(&self) {
        self.0.lock().is_complete = true;
    }

    /// A look at the tenant begins: before anything of it is read.
    pub fn begin(&self, id: TenantId) {
        self.0.lock().note(id, When::BeingLookedAt);
    }

    /// The look found nothing to do before then, or `i64::MAX`: ever. That is forgotten at once
    /// where something was written since it began.
    pub fn end(&self, id: TenantId, until: i64) {
        let mut known = self.0.lock();
        if known.when.get(&id) != Some(&When::BeingLookedAt) {
            return;
        }
        match until {
            i64::MAX => drop(known.when.remove(&id)),
            moment => known.note(id, When::At(moment)),
        }
    }

    /// A manifest of the tenant or of one of its timelines was written, or a look at it failed.
    pub fn forget(&self, id: TenantId) {
        self.0.lock().note(id, When::Now);
    }
}

impl Known {
    fn note(&mut self, id: TenantId, when: When) {
        if self.when.len() < REMEMBERED_MAX || self.when.contains_key(&id) {
            self.when.insert(id, when);
        } else {
            self.is_complete = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_looked_at_again_when_its_time_has_come_or_something_was_written() {
        let (surveyed, id) = (Surveyed::default(), TenantId::from_bits(1));
        assert_eq!(surveyed.wanted(0), None, "nobody was looked at yet");
        surveyed.begin_all();
        surveyed.begin(id);
        assert_eq!(surveyed.wanted(0), Some(vec![id]), "the look has not ended");
        surveyed.end(id, 10);
        assert_eq!([9, 10].map(|now| surveyed.wanted(now)), [Some(vec![]), Some(vec![id])]);
        surveyed.begin(id);
        surveyed.forget(id);
        surveyed.end(id, 10);
        assert_eq!(surveyed.wanted(0), Some(vec![id]), "it was written while it was looked at");
    }

    #[test]
    fn a_tenant_that_will_never_have_anything_to_do_is_not_remembered() {
        let (surveyed, id) = (Surveyed::default(), TenantId::from_bits(1));
        surveyed.begin_all();
        surveyed.begin(id);
        surveyed.end(id, i64::MAX);
        assert_eq!(surveyed.wanted(i64::MAX - 1), Some(Vec::new()));
        assert!(surveyed.0.lock().when.is_empty());
    }
}
