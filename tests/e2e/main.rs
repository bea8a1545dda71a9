//! The whole road with real processes and real Postgres: what must survive, and what must never
//! happen. Each test has a cluster of its own and waits for its turn.

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the benches use other parts of it")]
mod harness;
#[path = "../../pageserver/tests/services/page_client.rs"]
#[allow(dead_code, reason = "the pageserver's own tests use other parts of it")]
mod page_client;

mod api_access;
mod bad_input;
mod branches;
mod command_line;
mod compute_loss;
mod consumption;
mod fencing;
mod handover;
mod held_commits;
mod isolation;
mod kept;
mod kept_relations;
mod kinds_of_data;
mod limits;
mod machine;
mod moments;
mod moving;
mod object_store_loss;
mod pages_that_come_back;
mod pageserver_loss;
mod projects;
mod proxy;
mod read_only;
mod regions;
mod restore;
mod s3;
mod safekeeper_loss;
mod schema_only;
mod scrub;
mod secrets;
mod standby;
mod starts;
mod suspend;
mod templates;
mod tls;
mod tokens;
mod trace;
mod up;
mod usage;
