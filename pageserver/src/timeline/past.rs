//! Finds places in a timeline's past: record ends, and the state as of a time.

use std::sync::Arc;

use protocol::BranchPoint;
use wal_format::Lsn;

use super::Timeline;
use crate::{
    clock,
    error::Error,
    layer::{
        history::{History, Span},
        memory::MemoryLayer,
        reader::Layer,
    },
};

/// The layers of one moment; the memory's from the oldest to the open one.
struct View {
    layers: Arc<Vec<Arc<Layer>>>,
    frozen: Vec<Arc<MemoryLayer>>,
    last_record: BranchPoint,
}

impl Timeline {
    /// The last record's end at or before `lsn`, here or in an ancestor of the same tenant.
    /// Fails with [`Error::Gone`] before the oldest, with [`Error::NotYet`] beyond the end.
    pub async fn round_down(&self, lsn: Lsn) -> Result<BranchPoint, Error> {
        let mut timeline = self;
        timeline.check_cutoff(lsn)?;
        while lsn < timeline.facts.origin.point.lsn {
            timeline = timeline
                .ancestor_in_tenant()
                .ok_or(Error::Gone { asked: lsn, oldest: timeline.facts.origin.point.lsn })?;
            timeline.check_cutoff(lsn)?;
        }
        let point = timeline.round_down_here(lsn).await?;
        // Again: what was looked into may have been given up meanwhile.
        timeline.check_cutoff(lsn)?;
        Ok(point)
    }

    /// The state before the first commit later than `time` (microseconds since 2000); the end
    /// where there is none. Times before the tenant's creation and after now are refused.
    pub async fn point_at_time(&self, time: i64) -> Result<BranchPoint, Error> {
        self.point_at_time_as_of(time, clock::now()).await
    }

    /// [`Timeline::point_at_time`] with `now` given.
    pub(crate) async fn point_at_time_as_of(
        &self,
        time: i64,
        now: i64,
    ) -> Result<BranchPoint, Error> {
        if time > now {
            let (time, now) = (clock::text(time), clock::text(now));
            return Err(Error::Invalid(format!("{time} is in the future: it is now {now}")));
        }
        let created_at = self.facts.tenant_created_at;
        if time < created_at {
            let (time, created) = (clock::text(time), clock::text(created_at));
            let sentence = format!("{time} is before the tenant's creation at {created}");
            return Err(Error::Invalid(sentence));
        }
        // From the oldest timeline on: each up to where the next one leaves it.
        let mut line = vec![(self, Lsn::MAX)];
        let (mut timeline, mut limit) = (self, Lsn::MAX);
        while let Some(ancestor) = timeline.ancestor_in_tenant() {
            limit = limit.min(timeline.facts.origin.point.lsn);
            line.push((ancestor, limit));
            timeline = ancestor;
        }
        for (timeline, limit) in line.into_iter().rev() {
            timeline.check_time(time)?;
            if limit != Lsn::MAX && limit > timeline.last_record_lsn() {
                let ingested = timeline.last_record_lsn();
                return Err(Error::NotYet { asked: limit, ingested });
            }
            let commit = timeline.first_commit_after(time, limit).await?;
            // Again: what was looked into may have been given up meanwhile.
            timeline.check_time(time)?;
            if let Some(commit) = commit {
                return self.round_down(commit.start).await;
            }
        }
        Ok(self.last_record())
    }

    fn ancestor_in_tenant(&self) -> Option<&Timeline> {
        let ancestor = self.facts.ancestor.as_ref()?;
        (ancestor.timeline.id().tenant == self.id().tenant).then_some(&*ancestor.timeline)
    }

    /// Refuses an LSN below the cutoff, also one at which others begin: no branch is made there.
    fn check_cutoff(&self, lsn: Lsn) -> Result<(), Error> {
        let oldest = self.state.read().retained.cutoff_lsn();
        if lsn < oldest { Err(Error::Gone { asked: lsn, oldest }) } else { Ok(()) }
    }

    /// Refuses a time whose first later commit may be below the cutoff.
    fn check_time(&self, time: i64) -> Result<(), Error> {
        let cutoff = self.state.read().retained.cutoff;
        let oldest = cutoff.and_then(|cutoff| cutoff.last_commit_time);
        match (cutoff, oldest) {
            (Some(cutoff), Some(oldest)) if time < oldest => Err(Error::GoneTime {
                asked: clock::text(time),
                oldest: clock::text(oldest),
                lsn: cutoff.point.lsn,
            }),
            _ => Ok(()),
        }
    }

    pub(super) async fn round_down_here(&self, lsn: Lsn) -> Result<BranchPoint, Error> {
        let cutoff = self.state.read().retained.cutoff.map(|cutoff| cutoff.point);
        let origin = cutoff.unwrap_or(self.facts.origin.point);
        if lsn == origin.lsn {
            return Ok(origin);
        }
        let (view, from_memory) = self.view(|open| open.at_or_before(lsn));
        if lsn > view.last_record.lsn {
            return Err(Error::NotYet { asked: lsn, ingested: view.last_record.lsn });
        }
        if let Some(point) = from_memory {
            return Ok(point);
        }
        for frozen in view.frozen.iter().rev() {
            if let Some(point) = frozen.history().at_or_before(lsn) {
                return Ok(point);
            }
        }
        for layer in history_before(&view.layers, lsn).into_iter().rev() {
            if let Some(point) = layer.at_or_before(lsn).await? {
                return Ok(point);
            }
        }
        Ok(origin)
    }

    pub(super) async fn first_commit_after(
        &self,
        time: i64,
        limit: Lsn,
    ) -> Result<Option<Span>, Error> {
        let (view, from_memory) = self.view(|open| open.first_commit_after(time, limit));
        for layer in view.layers.iter() {
            if layer.from() >= limit {
                return Ok(None);
            }
            let may_have = layer.summary().last_commit_time.is_some_and(|last| last > time);
            if may_have && let Some(commit) = layer.first_commit_after(time, limit).await? {
                return Ok(Some(commit));
            }
        }
        for frozen in &view.frozen {
            if let Some(commit) = frozen.history().first_commit_after(time, limit) {
                return Ok(Some(commit));
            }
        }
        Ok(from_memory)
    }

    /// The latest commit's time among stored records up to `lsn`, or a little behind.
    pub(super) async fn latest_commit_at(&self, lsn: Lsn) -> Result<Option<i64>, Error> {
        let layers = self.state.read().layers.clone();
        let mut latest = None;
        for layer in history_before(&layers, lsn) {
            let is_whole = layer.summary().last_key.as_history().is_some_and(|(end, _)| end <= lsn);
            latest = latest.max(match is_whole {
                true => layer.summary().last_commit_time,
                false => layer.latest_commit_at(lsn).await?,
            });
        }
        Ok(latest)
    }

    /// The layers as of now, and what `ask` finds in the open layer at the same moment.
    fn view<T>(&self, ask: impl FnOnce(&History) -> T) -> (View, T) {
        let state = self.state.read();
        let frozen = state.frozen.iter().map(|frozen| frozen.layer.clone()).collect();
        let layers = state.layers.clone();
        let view = View { layers, frozen, last_record: state.last_record };
        (view, ask(state.open.history()))
    }
}

/// The layers with history, but for those whose records all end behind `lsn`.
fn history_before(layers: &[Arc<Layer>], lsn: Lsn) -> Vec<&Arc<Layer>> {
    let mut before: Option<&Arc<Layer>> = None;
    let mut found = Vec::new();
    for layer in layers.iter().filter(|layer| layer.may_have_history()) {
        let same_run = before.filter(|before| before.to() == layer.to());
        let begins = same_run.and_then(|before| before.summary().last_key.as_history());
        if begins.map_or(layer.from(), |(end, _)| end) < lsn {
            found.push(layer);
        }
        before = Some(layer);
    }
    found
}
