//! Random histories on a store in bad weather: every operation may fail, come late, lose its answer,
//! end early or time out. What is answered is right, what was acknowledged stays, and when the
//! weather clears up, everything goes on by itself.

use std::{sync::Arc, time::Duration};

use object_store::memory::InMemory;
use protocol::{TenantId, TenantTimeline};
use rand::{Rng, SeedableRng, rngs::StdRng};
use wal_format::Lsn;

use super::{Fault, Weather, World, world::main_of};
use crate::{error::Error, key::Key};

const HISTORIES: u64 = 60;
const STEPS: usize = 80;
const BRANCHES_MAX: usize = 6;
/// How often something is tried that the weather lets fail.
const TRIES_MAX: usize = 200;

#[tokio::test(start_paused = true)]
async fn in_any_weather_nothing_is_lost_no_page_is_wrong_and_progress_resumes() {
    for seed in 0..HISTORIES {
        Story::begin(seed).await.tell().await;
    }
}

/// One operation in so many has a fault, from none in a calm history to every second in a storm.
fn faults(seed: u64) -> impl FnMut(u64) -> Fault + Send {
    let mut random = StdRng::seed_from_u64(seed ^ 0x57A1);
    let share = random.random_range(0.02..0.5);
    move |_| {
        if !random.random_bool(share) {
            return Fault::None;
        }
        match random.random_range(0..6) {
            0 => Fault::Fails,
            1 => Fault::Late(Duration::from_millis(random.random_range(1..5_000))),
            2 => Fault::LostAnswer,
            3 => Fault::TimesOut,
            4 => Fault::TimesOutUnseen,
            _ => Fault::Short,
        }
    }
}

struct Story {
    world: World,
    inner: Arc<InMemory>,
    weather: Weather,
    /// Makes the weather of the next life.
    seed: u64,
    tenant: TenantId,
    /// Branches by name, and how far each was acknowledged to be flushed.
    branches: Vec<(String, TenantTimeline, Lsn)>,
}

impl Story {
    /// The tenant is made in fair weather.
    async fn begin(seed: u64) -> Story {
        let inner = Arc::new(InMemory::new());
        let mut world = World::on(inner.clone(), seed);
        world.template("base").await.expect("the store works");
        let tenant = world.tenant("one", "base").await.expect("the store works");
        let main = main_of(&tenant);
        let branches = vec![("main".to_owned(), main, Lsn(0))];
        let weather = Weather::new(inner.clone(), faults(seed));
        world.restart_on(Arc::new(weather.clone()));
        Story { world, inner, weather, seed, tenant: tenant.id, branches }
    }

    async fn tell(mut self) {
        for step in 0..STEPS {
            match self.world.random.random_range(0..100) {
                0..50 => self.write().await,
                50..65 => self.flush().await,
                65..72 => self.branch(step).await,
                72..78 => self.restart().await,
                _ => self.read().await,
            }
        }
        self.weather.clear_up();
        for (_, id, _) in self.branches.clone() {
            let timeline = self.world.timeline(id).await.expect("the weather is fair");
            let end = self.world.model.end(id).lsn;
            // A failure from before may be heard once more; the flush that was wanted goes on.
            let mut stored = timeline.watch_remote_consistent_lsn();
            let _heard = timeline.flush().await;
            let caught_up = stored.wait_for(|lsn| *lsn == end);
            tokio::time::timeout(Duration::from_secs(60), caught_up)
                .await
                .expect("flushing goes on by itself")
                .expect("the timeline is there");
        }
        self.restart().await;
        self.weather.clear_up();
        for (_, id, _) in self.branches.clone() {
            self.compare(id, self.world.model.end(id).lsn).await;
        }
    }

    fn any(&mut self) -> usize {
        self.world.random.random_range(0..self.branches.len())
    }

    fn any_branch(&mut self) -> (String, TenantTimeline, Lsn) {
        let any = self.any();
        self.branches[any].clone()
    }

    async fn write(&mut self) {
        let (_, id, _) = self.any_branch();
        for _ in 0..TRIES_MAX {
            match self.world.write(id).await {
                Ok(()) => return,
                Err(error) => assert_bad_weather(&error),
            }
        }
        panic!("{id} could not be loaded in {TRIES_MAX} tries");
    }

    async fn flush(&mut self) {
        let any = self.any();
        match self.world.timeline(self.branches[any].1).await {
            Ok(timeline) => match timeline.flush().await {
                Ok(lsn) => self.branches[any].2 = lsn,
                Err(error) => assert_bad_weather(&error),
            },
            Err(error) => assert_bad_weather(&error),
        }
    }

    /// A branch whose making failed may be there all the same: then it is taken as it is.
    async fn branch(&mut self, step: usize) {
        if self.branches.len() >= BRANCHES_MAX {
            return;
        }
        let (from, parent, _) = self.any_branch();
        let points = self.world.model.points(parent);
        let point = points[self.world.random.random_range(0..points.len())];
        let name = format!("branch-{step}");
        for _ in 0..TRIES_MAX {
            match self.world.tenants.create_branch(self.tenant, &name, &from, point).await {
                Ok(_) | Err(Error::Exists(_)) => {
                    if let Some(id) = self.find_branch(&name).await {
                        self.world.model.add(id, Some(parent), point);
                        self.branches.push((name, id, Lsn(0)));
                        return;
                    }
                }
                Err(error) => assert_bad_weather(&error),
            }
        }
        panic!("{name} could not be made in {TRIES_MAX} tries");
    }

    async fn find_branch(&self, name: &str) -> Option<TenantTimeline> {
        match self.world.tenants.tenant("one").await {
            Ok(tenant) => Some(tenant.branch(name).expect("it was made").timeline),
            Err(error) => {
                assert_bad_weather(&error);
                None
            }
        }
    }

    /// What was acknowledged to be flushed is in the store after a crash.
    async fn restart(&mut self) {
        self.weather.end();
        self.seed += HISTORIES;
        self.weather = Weather::new(self.inner.clone(), faults(self.seed));
        self.world.restart_on(Arc::new(self.weather.clone()));
        for (name, id, flushed) in self.branches.clone() {
            for _ in 0..TRIES_MAX {
                match self.world.tenants.timeline(id).await {
                    Ok(timeline) => {
                        let stored = timeline.remote_consistent_lsn();
                        assert!(stored >= flushed, "{name} has {stored}, {flushed} was told");
                        break;
                    }
                    Err(error) => assert_bad_weather(&error),
                }
            }
        }
    }

    async fn read(&mut self) {
        let (_, id, _) = self.any_branch();
        let points = self.world.model.points(id);
        let at = points[self.world.random.random_range(0..points.len())].lsn;
        self.compare(id, at).await;
    }

    async fn compare(&mut self, id: TenantTimeline, at: Lsn) {
        for _ in 0..TRIES_MAX {
            let read = match self.world.timeline(id).await {
                Ok(timeline) => timeline.scan(Key::MIN..Key::MAX, at).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(state) => {
                    assert!(state.into_iter().eq(self.world.model.state(id, at)), "{id} at {at}");
                    return;
                }
                Err(error) => assert_bad_weather(&error),
            }
        }
        // A storm may let a long read never through; it is read when the weather is fair.
    }
}

/// Nothing but the weather is to blame: no damage is seen where there is none, nobody is fenced.
fn assert_bad_weather(error: &Error) {
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}
