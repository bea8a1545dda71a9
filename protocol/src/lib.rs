//! What Offshoot's processes say to each other, pure: ids, branch points, quorum messages, page
//! requests, framing.
//!
//! This crate does no I/O and holds no decision of a server: it is where the server crates meet.

mod branch_point;
mod id;
pub mod page_service;
pub mod quorum;
pub mod token;
pub mod wire;

pub use branch_point::{BranchPoint, TimelineOrigin};
pub use id::{IdParseError, Identity, NodeId, TenantId, TenantTimeline, Term, TimelineId};
