//! Sequence's record (Postgres: `src/include/commands/sequence.h`).

use super::{INFO_MASK, relation};
use crate::{Relation, fields::Fields};

/// `xl_seq_rec`: the sequence's whole tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceLog<'a> {
    /// The sequence.
    pub relation: Relation,
    /// Its tuple, with its header.
    pub tuple: &'a [u8],
}

impl<'a> SequenceLog<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<SequenceLog<'a>> {
        if info & INFO_MASK != 0 {
            return None;
        }
        let mut fields = Fields::new(main);
        Some(SequenceLog { relation: relation(&mut fields)?, tuple: fields.rest() })
    }
}
