//! Histories in which the tenant goes from one pageserver to another and back, while the older one
//! goes on: it publishes nothing that counts, removes nothing that is read, and serves no wrong page.

use protocol::TenantTimeline;
use rand::Rng;

use super::{FUTURE, History, Met};
use crate::{
    clock,
    error::Error,
    key::Key,
    simulation::{how_many, world::Other},
    tenants::{LiveTimeline, Tenants},
};

/// More of them with `OFFSHOOT_HISTORIES`.
const HISTORIES: u64 = 40;

#[tokio::test]
async fn every_read_equals_the_model_also_while_the_tenant_goes_from_one_pageserver_to_another() {
    let mut met = Met::default();
    for seed in 0..how_many(HISTORIES) {
        // The last one that is printed is the one that fails.
        println!("history {seed}");
        History::new(seed, true).await.run(&mut met).await;
    }
    assert!(met.moves > 0, "no tenant was moved");
    assert!(met.refused > 0, "no older pageserver was ever refused");
    assert!(met.crossed > 0, "no older pageserver ever ended something during a move");
    assert!(met.gone > 0 && met.crashes > 0, "nothing was ever given up, or nothing crashed");
}

/// What an older pageserver does that does not know that it is one.
enum Doing {
    Flush(TenantTimeline),
    Compact(TenantTimeline),
    Retain(TenantTimeline, i64),
    Branch { name: String, from: String, point: protocol::BranchPoint },
    Delete(String),
}

impl History {
    /// Another pageserver takes the tenant while the one that has it does something.
    pub(super) async fn move_tenant(&mut self) {
        let random = &mut self.world.random;
        let mut next = match self.older.take().filter(|_| random.random_bool(0.5)) {
            Some(older) => older,
            None => {
                let name = format!("pageserver-{}", random.random::<u32>());
                self.world.another(&name)
            }
        };
        let loaded = self.world.tenants.loaded().into_iter();
        let live: Vec<LiveTimeline> = loaded
            .filter(|timeline| !timeline.is_read_only())
            .map(|timeline| LiveTimeline {
                timeline: timeline.id().timeline,
                last_record_lsn: timeline.last_record_lsn(),
            })
            .collect();
        let doing = self.any_doing();
        self.world.swap(&mut next);
        let older = next;
        let (taken, done) = tokio::join!(
            self.world.take(self.tenant, &live),
            do_it(&older.tenants, self.tenant, &doing)
        );
        taken.expect("the store works, and the older one does one thing");
        self.met.moves += 1;
        self.met.crossed += usize::from(done.is_ok());
        self.older = Some(older);
        self.take_stock_after(doing).await;
    }

    /// The older pageserver, where there is one, goes on as if nothing had happened.
    pub(super) async fn use_the_older(&mut self) {
        let Some(older) = self.older.take() else { return };
        self.read_at_the_older(&older).await;
        let doing = self.any_doing();
        if do_it(&older.tenants, self.tenant, &doing).await.is_err() {
            self.met.refused += 1;
        }
        self.take_stock_after(doing).await;
        if self.world.random.random_bool(0.3) {
            older.tenants.look(self.tenant).await.expect("the store works");
            for (_, id) in &self.branches {
                let moved = older.tenants.timeline(*id).await;
                assert!(matches!(moved, Err(Error::Moved { .. })), "it serves what it lost");
            }
        }
        self.older = Some(older);
    }

    fn any_doing(&mut self) -> Doing {
        let (name, id) = self.any_branch();
        match self.world.random.random_range(0..6) {
            0 | 1 => Doing::Flush(id),
            2 => Doing::Compact(id),
            3 => Doing::Retain(id, clock::now() + self.world.random.random_range(0..FUTURE)),
            4 if self.branches.len() < super::BRANCHES_MAX => {
                let point = self.any_point(id);
                Doing::Branch { name: self.new_name("branch"), from: name, point }
            }
            _ => Doing::Delete(name),
        }
    }

    /// It may have been done, or half of it.
    async fn take_stock_after(&mut self, doing: Doing) {
        self.under_way = match &doing {
            Doing::Retain(id, _) => Some(*id),
            Doing::Delete(name) => {
                self.branches.iter().find(|(branch, _)| branch == name).map(|(_, id)| *id)
            }
            Doing::Flush(_) | Doing::Compact(_) | Doing::Branch { .. } => None,
        };
        self.take_stock().await;
    }

    /// It answers what is right, or nothing.
    async fn read_at_the_older(&mut self, older: &Other) {
        for timeline in older.tenants.loaded() {
            let id = timeline.id();
            if timeline.is_read_only() || !self.branches.iter().any(|(_, known)| *known == id) {
                continue;
            }
            let at = self.any_point(id).lsn.min(timeline.last_record_lsn());
            if let Ok(scanned) = timeline.scan(Key::MIN..Key::MAX, at).await {
                let model: Vec<_> = self.world.model.state(id, at).into_iter().collect();
                super::assert_same(&scanned, &model, at);
            }
        }
    }
}

async fn do_it(older: &Tenants, tenant: protocol::TenantId, doing: &Doing) -> Result<(), Error> {
    let loaded = |id: &TenantTimeline| {
        let found = older.loaded().into_iter().find(|timeline| timeline.id() == *id);
        found.ok_or_else(|| Error::NotFound(format!("timeline {id}")))
    };
    match doing {
        Doing::Flush(id) => loaded(id)?.flush().await.map(|_| ()),
        Doing::Compact(id) => {
            let timeline = loaded(id)?;
            while timeline.compact().await? {}
            timeline.remove_retired().await;
            Ok(())
        }
        Doing::Retain(id, now) => older.retain(&loaded(id)?, *now).await,
        Doing::Branch { name, from, point } => {
            older.create_branch(tenant, name, from, *point).await.map(|_| ())
        }
        Doing::Delete(name) => older.delete_branch(tenant, name).await,
    }
}
