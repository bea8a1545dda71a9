//! The roles, each started and kept until it is told to stop.

mod access;
mod compute;
mod control_plane;
mod data_folder;
mod default_template;
mod head;
mod machine;
mod machine_share;
mod regions;
mod stop;
mod storage;
mod tls;
mod up;

pub use compute::compute;
pub use control_plane::control_plane;
pub use storage::{open_store, pageserver, safekeeper};
pub use tls::trust;
pub use up::up;
