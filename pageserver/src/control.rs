//! The value of [`Key::CONTROL`](crate::key::Key::CONTROL): what `pg_control` would say at an LSN.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | end of the last shutdown checkpoint, u64 little-endian; 0 where there was none |
//! | … | `wal_format::ControlState`, encoded |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wal_format::{ControlState, Lsn};

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

    /// The value that was stored; `None` where it is none.
    pub fn decode(value: &[u8]) -> Option<Control> {
        let (mut end, state) = value.split_at_checked(8)?;
        let state = ControlState::decode(state)?;
        Some(Control { shutdown_checkpoint_end: Lsn(end.get_u64_le()), state })
    }
}
