//! MultiXact's records (Postgres: `src/include/access/multixact.h`).

use super::INFO_MASK;
use crate::fields::Fields;

/// Bytes of a member in a record: its transaction and its status.
const MEMBER_BYTES: usize = 8;

/// What a MultiXact record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiXact<'a> {
    /// `XLOG_MULTIXACT_ZERO_OFF_PAGE`.
    ZeroOffsetsPage(u32),
    /// `XLOG_MULTIXACT_ZERO_MEM_PAGE`.
    ZeroMembersPage(u32),
    /// `XLOG_MULTIXACT_CREATE_ID`.
    Create(Create<'a>),
    /// `XLOG_MULTIXACT_TRUNCATE_ID`.
    Truncate(Truncate),
}

/// `xl_multixact_create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create<'a> {
    /// The new multixact.
    pub id: u32,
    /// Where its members begin.
    pub first_member: u32,
    members: &'a [u8],
}

impl<'a> Create<'a> {
    /// The number of members.
    pub fn len(&self) -> u32 {
        (self.members.len() / MEMBER_BYTES) as u32
    }

    /// Whether it has none, which Postgres never writes.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Each member's transaction and status.
    pub fn members(&self) -> impl Iterator<Item = (u32, u32)> + use<'a> {
        self.members.chunks_exact(MEMBER_BYTES).filter_map(|bytes| {
            let mut fields = Fields::new(bytes);
            Some((fields.u32()?, fields.u32()?))
        })
    }
}

/// `xl_multixact_truncate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// The database that has the oldest multixact.
    pub database: u32,
    /// The oldest multixact that stays.
    pub end_offsets: u32,
    /// The first member that goes.
    pub start_members: u32,
    /// The first member that stays.
    pub end_members: u32,
}

impl<'a> MultiXact<'a> {
    /// Reads the record's main data.
    pub fn parse(info: u8, main: &'a [u8]) -> Option<MultiXact<'a>> {
        let mut fields = Fields::new(main);
        match info & INFO_MASK {
            0x00 => Some(MultiXact::ZeroOffsetsPage(fields.u32()?)),
            0x10 => Some(MultiXact::ZeroMembersPage(fields.u32()?)),
            0x20 => {
                let (id, first_member) = (fields.u32()?, fields.u32()?);
                let count = usize::try_from(fields.i32()?).ok()?;
                let members = fields.take(count.checked_mul(MEMBER_BYTES)?)?;
                Some(MultiXact::Create(Create { id, first_member, members }))
            }
            0x30 => {
                let database = fields.u32()?;
                fields.skip(4)?;
                Some(MultiXact::Truncate(Truncate {
                    database,
                    end_offsets: fields.u32()?,
                    start_members: fields.u32()?,
                    end_members: fields.u32()?,
                }))
            }
            _ => None,
        }
    }
}
