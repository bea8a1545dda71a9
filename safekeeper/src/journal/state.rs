//! What must survive of a timeline: the acceptor's promises, and where its WAL is.

use bytes::{Buf, BufMut, Bytes};
use protocol::quorum::{Configuration, Member, TermHistory, TermStart};
use protocol::{BranchPoint, Identity, NodeId, Term, TimelineOrigin};
use wal_format::Lsn;

use super::entry::EntryError;
use crate::acceptor::{AcceptorState, Standing};

/// The most members that a configuration may have; more is damage.
const MEMBERS_MAX: usize = 64;
/// Bytes of a state without its members and terms.
const FIXED_BYTES: usize = 32 + 1 + 8 + 17 + 8 + 4 + 48;

/// All that must survive of a timeline, but its WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimelineState {
    /// What it promised.
    pub acceptor: AcceptorState,
    /// The first byte of WAL that is in the journal.
    pub local_start: Lsn,
    /// WAL before this is in the object store.
    pub offloaded_lsn: Lsn,
    /// WAL before this is in layers, by the pageserver's word.
    pub remote_consistent_lsn: Lsn,
}

impl TimelineState {
    /// The length that [`TimelineState::encode`] takes.
    pub fn encoded_bytes(&self) -> usize {
        FIXED_BYTES
            + 20 * self.acceptor.configuration.members.len()
            + 16 * self.acceptor.history.entries().len()
    }

    /// Writes the state as `docs/formats/journal.md` says.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let acceptor = &self.acceptor;
        let origin = &acceptor.origin;
        out.put_u64_le(origin.point.lsn.0);
        out.put_u64_le(origin.point.last_record.0);
        out.put_u64_le(origin.system_id);
        out.put_u32_le(origin.segment_bytes);
        out.put_u32_le(origin.major);
        out.put_u8(u8::from(acceptor.standing == Standing::Member));
        out.put_u64_le(acceptor.term.0);
        out.put_u8(u8::from(acceptor.voted_for.is_some()));
        out.put_u128_le(acceptor.voted_for.unwrap_or(0));
        out.put_u32_le(acceptor.configuration.generation);
        out.put_u32_le(acceptor.configuration.members.len() as u32);
        for member in &acceptor.configuration.members {
            out.put_u32_le(member.node.0);
            out.put_u128(member.identity.bits());
        }
        out.put_u32_le(acceptor.history.entries().len() as u32);
        for entry in acceptor.history.entries() {
            out.put_u64_le(entry.term.0);
            out.put_u64_le(entry.start.0);
        }
        for lsn in [
            acceptor.flush_lsn,
            acceptor.commit_lsn,
            acceptor.end_lsn,
            self.local_start,
            self.offloaded_lsn,
            self.remote_consistent_lsn,
        ] {
            out.put_u64_le(lsn.0);
        }
    }

    /// The state that these bytes hold, all of them.
    pub fn decode(bytes: Bytes) -> Result<TimelineState, EntryError> {
        let mut fields = Fields(bytes);
        let point = BranchPoint { lsn: fields.lsn()?, last_record: fields.lsn()? };
        let origin = TimelineOrigin {
            point,
            system_id: fields.u64()?,
            segment_bytes: fields.u32()?,
            major: fields.u32()?,
        };
        let standing = if fields.flag()? { Standing::Member } else { Standing::Recovering };
        let term = Term(fields.u64()?);
        let has_voted = fields.flag()?;
        let proposer = fields.u128_le()?;
        let configuration = fields.configuration()?;
        let history = fields.history()?;
        let acceptor = AcceptorState {
            origin,
            configuration,
            standing,
            term,
            voted_for: has_voted.then_some(proposer),
            history,
            flush_lsn: fields.lsn()?,
            commit_lsn: fields.lsn()?,
            end_lsn: fields.lsn()?,
        };
        let state = TimelineState {
            acceptor,
            local_start: fields.lsn()?,
            offloaded_lsn: fields.lsn()?,
            remote_consistent_lsn: fields.lsn()?,
        };
        fields.finish()?;
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<(), EntryError> {
        let acceptor = &self.acceptor;
        let in_order = acceptor.origin.point.lsn <= acceptor.commit_lsn
            && acceptor.commit_lsn <= acceptor.flush_lsn
            && acceptor.flush_lsn <= acceptor.end_lsn
            && self.local_start <= acceptor.end_lsn
            && self.local_start <= self.offloaded_lsn.max(acceptor.origin.point.lsn)
            && acceptor.history.last_term() <= acceptor.term;
        if in_order {
            Ok(())
        } else {
            Err(EntryError::Senseless("a state whose positions or terms are not in order".into()))
        }
    }
}

/// Fields taken one by one off the front.
struct Fields(Bytes);

impl Fields {
    fn u32(&mut self) -> Result<u32, EntryError> {
        self.0.try_get_u32_le().map_err(short)
    }

    fn u64(&mut self) -> Result<u64, EntryError> {
        self.0.try_get_u64_le().map_err(short)
    }

    fn u128_le(&mut self) -> Result<u128, EntryError> {
        self.0.try_get_u128_le().map_err(short)
    }

    fn lsn(&mut self) -> Result<Lsn, EntryError> {
        self.u64().map(Lsn)
    }

    fn flag(&mut self) -> Result<bool, EntryError> {
        match self.0.try_get_u8().map_err(short)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(EntryError::Senseless(format!("a flag is {other}"))),
        }
    }

    fn configuration(&mut self) -> Result<Configuration, EntryError> {
        let generation = self.u32()?;
        let count = self.u32()? as usize;
        if count > MEMBERS_MAX {
            return Err(EntryError::Senseless(format!("{count} members")));
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let node = NodeId(self.u32()?);
            let identity = Identity::from_bits(self.0.try_get_u128().map_err(short)?);
            members.push(Member { node, identity });
        }
        Ok(Configuration { generation, members })
    }

    fn history(&mut self) -> Result<TermHistory, EntryError> {
        let mut history = TermHistory::default();
        for _ in 0..self.u32()? {
            let entry = TermStart { term: Term(self.u64()?), start: self.lsn()? };
            history.push(entry).map_err(|error| EntryError::Senseless(error.to_string()))?;
        }
        Ok(history)
    }

    fn finish(self) -> Result<(), EntryError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(EntryError::Senseless(format!("{} bytes are left over", self.0.len())))
        }
    }
}

fn short(_: bytes::TryGetError) -> EntryError {
    EntryError::Senseless("a state is too short".to_owned())
}
