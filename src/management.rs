//! Projects and all that belongs to them, on the command line: the management API's client. All that
//! can be done is done by a running control plane; here it is said, and shown.

mod api_key;
mod branch;
mod client;
mod connect;
mod contents;
mod endpoint;
mod logs;
mod names;
mod operation;
mod progress;
mod project;
mod region;
mod say;
mod template;
mod usage;

pub use api_key::api_key;
pub use branch::branch;
pub use client::Client;
pub use connect::{connection_string, psql};
pub use contents::{database, role};
pub use endpoint::endpoint;
pub use logs::logs;
pub use operation::operation;
pub use project::project;
pub use region::region;
pub use template::template;
