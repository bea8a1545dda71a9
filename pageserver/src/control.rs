//! The value of [`Key::CONTROL`](crate::key::Key::CONTROL): what `pg_control` would say at an LSN.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | end of the last shutdown checkpoint, u64 little-endian; 0 where there was none |
//! | … | `wal_format::ControlState`, encoded |
//!
//! Each transaction changes the next one's id, and most change nothing else: so that has a key of its
//! own, [`Key::NEXT_XID`], whose value is the id with its epoch, u64 little-endian. Where that key has a
//! value, what the other says of it does not count. It is written ahead, as Postgres itself logs OIDs
//! ahead of their use: [`xid_ahead`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wal_format::{ControlState, FIRST_NORMAL_XID, Lsn};

use crate::{error::Error, key::Key, timeline::Timeline};

/// How far the next transaction's id is written ahead, at most.
const XIDS_AHEAD: u64 = 64;

/// The counters of `pg_control`, and where the WAL last ended in a clean shutdown.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Control {
    /// The end of the last `CHECKPOINT_SHUTDOWN` record.
    pub shutdown_checkpoint_end: Lsn,
    /// The counters.
    pub state: ControlState,
}

impl Control {
    /// The control value of a timeline that begins: its template's own checkpoint does not count,
    /// since no WAL of the timeline holds it.
    pub fn new(state: ControlState) -> Control {
        Control { shutdown_checkpoint_end: Lsn::INVALID, state }
    }

    /// The stored value.
    pub fn encode(&self) -> Bytes {
        let state = self.state.encode();
        let mut value = BytesMut::with_capacity(8 + state.len());
        value.put_u64_le(self.shutdown_checkpoint_end.0);
        value.put_slice(&state);
        value.freeze()
    }

    /// The control as of `at`; `None` where what is stored is none.
    pub async fn read(timeline: &Timeline, at: Lsn) -> Result<Option<Control>, Error> {
        let values = (timeline.get(Key::CONTROL, at), timeline.get(Key::NEXT_XID, at));
        let (value, next_xid) = tokio::try_join!(values.0, values.1)?;
        Ok(value.and_then(|value| Control::decode(&value, next_xid.as_deref())))
    }

    fn decode(value: &[u8], next_xid: Option<&[u8]>) -> Option<Control> {
        let (mut end, state) = value.split_at_checked(8)?;
        let mut state = ControlState::decode(state)?;
        if let Some(next_xid) = next_xid {
            state.next_xid = u64::from_le_bytes(next_xid.try_into().ok()?);
        }
        Some(Control { shutdown_checkpoint_end: Lsn(end.get_u64_le()), state })
    }
}

/// What is written as the next transaction's id where it is `next`, with its epoch: at least that, and good
/// for what comes after it too. A Postgres that starts from it leaves out some ids, as if they had been
/// taken by transactions that did nothing.
pub(crate) fn xid_ahead(next: u64) -> u64 {
    match next.checked_next_multiple_of(XIDS_AHEAD) {
        // The ids below the first normal one are no transaction's.
        Some(ahead) if (ahead as u32) < FIRST_NORMAL_XID => ahead | u64::from(FIRST_NORMAL_XID),
        Some(ahead) => ahead,
        None => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_ahead_to_the_next_of_a_few_that_a_transaction_can_have() {
        let epoch = 5 << 32;
        let ahead = [(3, 64), (64, 64), (65, 128), (epoch | 0xFFFF_FFC0, epoch | 0xFFFF_FFC0)];
        for (next, expected) in ahead {
            assert_eq!(xid_ahead(next), expected, "{next}");
        }
        assert_eq!(xid_ahead(epoch | 0xFFFF_FFC1), 6 << 32 | 3);
        assert_eq!(xid_ahead(u64::MAX), u64::MAX);
    }
}
