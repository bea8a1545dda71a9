//! Manifests: numbered objects that are created and never changed; the highest number is the truth.
#![doc = include_str!("../../docs/formats/manifest.md")]

mod owner;
mod sequence;
mod tenant;
mod timeline;

pub use owner::{NAME_DEFAULT, Owner, Place};
pub use sequence::{Body, NoChange, Prepared, Resting, Sequence, decode_checked, encode_checked};
pub use tenant::{AncestorEntry, BranchEntry, SnapshotEntry, TenantKind, TenantManifest};
pub use timeline::TimelineManifest;
