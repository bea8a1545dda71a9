//! What the projects of a region use is collected: how long computes ran and what clients were sent from this process,
//! what was written and is held from the pageservers. All but what is held is told by timeline, and counted for the
//! project and the branch at once.
//!
//! - Time and transfer are written to the catalog every second that there is some: what a control plane
//!   used that is killed since then is not counted, and nothing is counted twice.
//! - The pageservers' meters go on without us. Those of projects whose computes run, or did until a
//!   minute ago, are asked for every two seconds; all at the start, for what a killed control plane did
//!   not see, and every hour: of others only what is stored changes, as layers are merged.
//! - Each pageserver is asked for the tenants that it serves, in lists: the first time for all, then for
//!   those that changed since. Many take some time, a part of each second, in which nothing else waits.
//!   One that could not be read to the end is read on soon, for as long as it takes: only then is its
//!   hour over.
//! - Whoever gives a timeline away [waits](Counting::all_of) until what was used on it is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::{context::Context, error::ApiError, time::now};
use crate::{
    PageserverAt, Region,
    catalog::{
        self, Time,
        consumption::{self, Hour, Reading, Sizes, Used},
        projects,
    },
    endpoints::Taken,
    metering::{
        period::{by_hour, hour_of},
        quota::{Meter, Quota},
    },
};

/// How often time and transfer are written down.
const EVERY: Duration = Duration::from_secs(1);
/// How often the meters of projects in use are read.
const READ_EVERY: Duration = Duration::from_secs(2);
/// How long after its last use a project's meters are read so often.
const IN_USE: Duration = Duration::from_secs(60);
/// How often the meters of all projects are read.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// How long after a failure they are read again: the first time, and at most, doubling from one to the
/// other. A pageserver that hangs takes [`LIST_MAX`] of each attempt, in which nothing else is done.
const SWEEP_AGAIN_FIRST: Duration = Duration::from_secs(2);
const SWEEP_AGAIN_MAX: Duration = Duration::from_secs(120);
/// How long the meters of all projects are read before those in use have their turn.
const SWEEP_SPELL: Duration = Duration::from_millis(500);
/// Tenants of one list, and readings of one write.
const PAGE: usize = 256;
/// The longest that a pageserver may take for a list.
const LIST_MAX: Duration = Duration::from_secs(30);
/// How long whoever waits for what is counted waits for sessions to end whose compute has ended.
const SESSIONS_END_MAX: Duration = Duration::from_secs(5);

/// `POST /v1/usage` and `GET /v1/usage` of a pageserver.
#[derive(Deserialize)]
struct UsageList {
    tenants: Vec<TenantUsage>,
    /// Where a page ends; all that follows is in no page where it is absent.
    next: Option<String>,
    /// The moment of the list, to ask what changed since; absent where that cannot be asked.
    #[serde(default)]
    as_of: Option<String>,
}

#[derive(Deserialize)]
struct TenantUsage {
    name: String,
    total: Usage,
    branches: Vec<BranchUsage>,
}

#[derive(Deserialize)]
struct Usage {
    logical_size_bytes: u64,
    stored_bytes: u64,
    wal_written_bytes: u64,
}

#[derive(Deserialize)]
struct BranchUsage {
    name: String,
    logical_size_bytes: u64,
    wal_written_bytes: u64,
}

/// What the meters of a project say, and those of its timelines.
struct Told {
    project: String,
    reading: Reading,
    /// Bytes of WAL that each timeline has written.
    written: BTreeMap<String, u64>,
}

impl From<TenantUsage> for Told {
    fn from(usage: TenantUsage) -> Told {
        let all = &usage.branches;
        let held = all.iter().map(|branch| (branch.name.clone(), branch.logical_size_bytes));
        let written = all.iter().map(|branch| (branch.name.clone(), branch.wal_written_bytes));
        let reading = Reading {
            written_bytes: Some(usage.total.wal_written_bytes),
            sizes: Sizes {
                logical_bytes: usage.total.logical_size_bytes,
                stored_bytes: usage.total.stored_bytes,
            },
            held_bytes: held.collect(),
        };
        Told { written: written.collect(), project: usage.name, reading }
    }
}

/// Who waits for what is counted in a region.
#[derive(Default)]
pub(crate) struct Counting {
    waiting: Mutex<Vec<Waiting>>,
    wake: Notify,
}

/// Who waits for what a project used.
struct Waiting {
    project: String,
    since: Instant,
    tell: oneshot::Sender<()>,
}

impl Counting {
    /// Waits until all is counted that a project used before this, as far as the pageservers that can be
    /// asked know of it.
    pub(super) async fn all_of(&self, project: &str) {
        let (tell, told) = oneshot::channel();
        let waiting = Waiting { project: project.to_owned(), since: Instant::now(), tell };
        self.waiting.lock().push(waiting);
        self.wake.notify_one();
        // Where it was not counted, nobody is told: there is no more to wait for either.
        let _counted = told.await;
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Tells those who waited that it is counted, but for projects of which sessions end still.
    fn tell(&self, waiting: Vec<Waiting>, ends_sessions: impl Fn(&str) -> bool) {
        for one in waiting {
            if ends_sessions(&one.project) && one.since.elapsed() < SESSIONS_END_MAX {
                self.waiting.lock().push(one);
                continue;
            }
            // It may not wait any more.
            let _unheard = one.tell.send(());
        }
    }
}

/// What was used and is not written down yet, and when what was looked at.
#[derive(Default)]
struct Collector {
    /// By project, timeline and hour.
    pending: BTreeMap<(String, String, Hour), Used>,
    /// When each project was last in use, of those whose meters are read often.
    in_use: HashMap<String, Instant>,
    read_at: Option<Instant>,
    /// When all meters of each pageserver are read next; at once where nothing is said.
    sweeps: HashMap<SocketAddr, Sweep>,
}

/// When all meters of one pageserver are read next, and how far that is.
struct Sweep {
    due: Instant,
    /// How long after that again, where it fails.
    pause: Duration,
    /// As of when all that it serves were read: then only what changed is asked for.
    read_as_of: Option<String>,
    /// The next page, of a sweep that is under way.
    page: Page,
}

/// A place in a sweep: the first where it is the default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Page {
    after: String,
    /// As of when the sweep's first page was read.
    as_of: Option<String>,
}

/// How a page was read.
#[derive(Debug)]
enum Swept {
    /// There are more.
    Until(Page),
    /// It was the last one of a sweep as of then.
    All(Option<String>),
    /// The pageserver does not know what changed since: it was started anew.
    Unknown,
    Failed,
}

impl Sweep {
    fn new(now: Instant) -> Sweep {
        Sweep { due: now, pause: SWEEP_AGAIN_FIRST, read_as_of: None, page: Page::default() }
    }

    /// The path of the next page.
    fn path(&self) -> String {
        let since = self.read_as_of.as_ref().map(|since| format!("&since={since}"));
        let (since, after) = (since.unwrap_or_default(), &self.page.after);
        format!("usage?served=true&limit={PAGE}&after={after}{since}")
    }

    /// Takes note of a page. One that failed is asked for again.
    fn note(&mut self, swept: Swept, now: Instant) {
        match swept {
            Swept::Until(page) => (self.page, self.pause) = (page, SWEEP_AGAIN_FIRST),
            Swept::All(as_of) => {
                *self = Sweep { due: now + SWEEP_EVERY, read_as_of: as_of, ..Sweep::new(now) };
            }
            Swept::Unknown => *self = Sweep::new(now),
            Swept::Failed => {
                self.due = now + self.pause;
                self.pause = (self.pause * 2).min(SWEEP_AGAIN_MAX);
            }
        }
    }
}

/// Collects until it is told to stop; then what is left of this process' own, by which time no compute
/// runs.
pub(super) async fn run(of: (Arc<Context>, Arc<Region>), stop: CancellationToken) {
    let (context, region) = of;
    let mut collector = Collector::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = region.counting.wake.notified() => {}
            () = stop.cancelled() => break,
        }
        if let Err(error) = collector.round(&context, &region).await {
            let (region, error) = (&region.id, error.message);
            tracing::warn!(%region, error, "what projects use is collected later");
        }
    }
    collector.take(&region, Instant::now(), now());
    if let Err(error) = collector.write(&context).await {
        tracing::error!(error = error.message, "what projects used last is not counted");
    }
}

fn is_due(last: Option<Instant>, every: Duration, at: Instant) -> bool {
    last.is_none_or(|last| at.saturating_duration_since(last) >= every)
}

impl Collector {
    async fn round(&mut self, context: &Context, region: &Region) -> Result<(), ApiError> {
        // First: what is taken from now on has all that they wait for.
        let waiting = region.counting.take();
        let at = Instant::now();
        self.take(region, at, now());
        let written = self.write(context).await;
        let mut outcomes = vec![written, self.sweep(context, region, at).await];
        if !waiting.is_empty() || is_due(self.read_at, READ_EVERY, at) {
            self.read_at = Some(at);
            self.in_use.retain(|_, last| at.saturating_duration_since(*last) < IN_USE);
            let waited_for = waiting.iter().map(|one| &one.project);
            let projects: BTreeSet<_> = self.in_use.keys().chain(waited_for).cloned().collect();
            outcomes.push(read_some(context, region, projects).await);
        }
        region.counting.tell(waiting, |project| region.endpoints.ends_sessions(project));
        outcomes.into_iter().collect()
    }

    /// Takes over what computes and the proxy did since the last time.
    fn take(&mut self, region: &Region, at: Instant, now: Time) {
        for Taken { tenant, timeline, spells, sent_bytes } in region.endpoints.take_activity(at) {
            let mut add = |hour, used| {
                *self.pending.entry((tenant.clone(), timeline.clone(), hour)).or_default() += used;
            };
            for spell in spells {
                let ago = at.saturating_duration_since(spell.from).as_micros() as Time;
                for (hour, active_us) in by_hour(now - ago, spell.lasts_us) {
                    let compute_mcu_us = active_us * u64::from(spell.milli_cu);
                    add(hour, Used { active_us, compute_mcu_us, ..Used::default() });
                }
            }
            if sent_bytes > 0 {
                add(hour_of(now), Used { transfer_bytes: sent_bytes, ..Used::default() });
            }
            self.in_use.insert(tenant, at);
        }
    }

    /// Writes that down; what cannot be written now is kept.
    async fn write(&mut self, context: &Context) -> Result<(), ApiError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = self.pending.clone();
        let written = context.catalog.write(move |catalog| {
            for ((project, timeline, hour), used) in pending {
                // Tenants that are no projects have nobody to whom it is counted.
                if projects::find(catalog, &project)?.is_some() {
                    consumption::add(catalog, &project, &timeline, hour, used)?;
                }
            }
            Ok(())
        });
        written.await?;
        self.pending.clear();
        Ok(())
    }

    /// Reads the meters of all projects at the pageservers whose time has come, for a while.
    async fn sweep(
        &mut self,
        context: &Context,
        region: &Region,
        at: Instant,
    ) -> Result<(), ApiError> {
        let mut failure = None;
        for pageserver in region.endpoints.pageservers().all() {
            let sweep = self.sweeps.entry(pageserver.http).or_insert_with(|| Sweep::new(at));
            while sweep.due <= at && at.elapsed() < SWEEP_SPELL {
                let (swept, error) = read_page(context, region, pageserver, sweep).await;
                sweep.note(swept, Instant::now());
                failure = error.or(failure);
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Reads the meters of these projects.
async fn read_some(
    context: &Context,
    region: &Region,
    projects: BTreeSet<String>,
) -> Result<(), ApiError> {
    // How large what is in memory is costs a pageserver work: only where it may end something.
    let read = context.catalog.read(move |catalog| {
        let (mut measured, mut others) = (Vec::new(), Vec::new());
        for id in projects {
            let Some(project) = projects::find(catalog, &id)? else { continue };
            let quota = Quota::of_settings(&project.settings).unwrap_or_default();
            let of = if quota.bounds(Meter::LogicalSize) { &mut measured } else { &mut others };
            of.push(id);
        }
        Ok([(measured, true), (others, false)])
    });
    for (names, measure) in read.await? {
        for names in names.chunks(PAGE) {
            let body = json!({ "tenants": names, "measure": measure });
            let ask = async |at: &PageserverAt| {
                let pageservers = region.endpoints.pageservers();
                let (path, body) = ("usage", Some(&body));
                let asked = pageservers.ask_one(at.http, Method::POST, path, body, LIST_MAX);
                asked.await.map(|list: UsageList| list.tenants)
            };
            let all = region.endpoints.pageservers().all();
            note(context, join_all(all.iter().map(ask)).await).await?;
        }
    }
    Ok(())
}

/// Reads the next page of the projects that this pageserver serves; and why that failed.
async fn read_page(
    context: &Context,
    region: &Region,
    at: &PageserverAt,
    sweep: &Sweep,
) -> (Swept, Option<ApiError>) {
    let pageservers = region.endpoints.pageservers();
    let body = None::<&()>;
    let list = pageservers.ask_one(at.http, Method::GET, &sweep.path(), body, LIST_MAX).await;
    let UsageList { tenants, next, as_of } = match list {
        Ok(list) => list,
        Err(crate::Error::Invalid(_)) if sweep.read_as_of.is_some() => {
            return (Swept::Unknown, None);
        }
        Err(error) => return (Swept::Failed, Some(error.into())),
    };
    if let Err(error) = take_over(context, tenants).await {
        return (Swept::Failed, Some(error));
    }
    let is_first = sweep.page == Page::default();
    let as_of = if is_first { as_of } else { sweep.page.as_of.clone() };
    let swept = match next {
        Some(after) => Swept::Until(Page { after, as_of }),
        None => Swept::All(as_of),
    };
    (swept, None)
}

/// Takes over what pageservers said. Those that did not answer are asked again.
async fn note(
    context: &Context,
    answers: Vec<Result<Vec<TenantUsage>, crate::Error>>,
) -> Result<(), ApiError> {
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(tenants) => take_over(context, tenants).await?,
            Err(error) => failure = Some(ApiError::from(error)),
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn take_over(context: &Context, tenants: Vec<TenantUsage>) -> Result<(), ApiError> {
    let told: Vec<Told> = tenants.into_iter().map(Told::from).collect();
    // Most say what they said before: the thread that writes has nothing to do with them.
    let read = context.catalog.read(move |catalog| {
        let mut changed = Vec::new();
        for told in told {
            let Told { project, reading, written } = &told;
            let is_new = consumption::is_new(catalog, project, reading, written)?;
            if is_new && projects::find(catalog, project)?.is_some() {
                changed.push(told);
            }
        }
        Ok(changed)
    });
    let changed = read.await?;
    if changed.is_empty() {
        return Ok(());
    }
    let written = context.catalog.write(move |catalog| {
        let hour = hour_of(now());
        changed.into_iter().try_for_each(|Told { project, reading, written }| {
            consumption::read(catalog, &project, hour, reading, &written)
        })
    });
    Ok(written.await.map_err(|error: catalog::Error| error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_failed_is_made_again_soon_and_ever_more_rarely_until_it_succeeds() {
        let now = Instant::now();
        let mut sweep = Sweep::new(now);
        sweep.note(Swept::All(None), now);
        assert_eq!(sweep.due, now + SWEEP_EVERY);
        let mut pause = SWEEP_AGAIN_FIRST;
        for _ in 0..10 {
            sweep.note(Swept::Failed, now);
            assert_eq!(sweep.due, now + pause);
            pause = (pause * 2).min(SWEEP_AGAIN_MAX);
        }
        sweep.note(Swept::All(None), now);
        assert_eq!((sweep.due, sweep.pause), (now + SWEEP_EVERY, SWEEP_AGAIN_FIRST));
    }

    #[test]
    fn after_a_sweep_of_all_only_what_changed_since_its_first_page_is_asked_for() {
        let now = Instant::now();
        let mut sweep = Sweep::new(now);
        let all = format!("usage?served=true&limit={PAGE}&after=");
        assert_eq!(sweep.path(), all);
        let page = Page { after: "m".to_owned(), as_of: Some("p-1".to_owned()) };
        sweep.note(Swept::Until(page), now);
        assert_eq!((sweep.path(), sweep.due), (format!("{all}m"), now));
        sweep.note(Swept::Failed, now);
        assert_eq!(sweep.path(), format!("{all}m"), "it begins anew");
        sweep.note(Swept::All(Some("p-1".to_owned())), now);
        assert_eq!(sweep.path(), format!("{all}&since=p-1"));
        sweep.note(Swept::Unknown, now);
        assert_eq!((sweep.path(), sweep.due), (all, now));
    }
}
