//! Manifests: numbered objects that are created and never changed; the highest number is the truth.
#![doc = include_str!("../../docs/formats/manifest.md")]

mod sequence;
mod tenant;
mod timeline;

pub use sequence::{Body, NoChange, Prepared, Sequence, decode_checked, encode_checked};
pub use tenant::{AncestorEntry, BranchEntry, TenantKind, TenantManifest};
pub use timeline::TimelineManifest;
