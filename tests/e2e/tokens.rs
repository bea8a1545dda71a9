//! Every door of every process, tried with tokens that do not open it: behind none of them there is
//! anything, not even a sign that there is.

mod hang;
mod http;
mod pages;
mod renewal;
mod wal;

use std::time::{Duration, SystemTime};

use access::SigningKey;
use protocol::{
    TenantId, TenantTimeline,
    token::{Scope, Token},
};

use crate::harness::{Cluster, token_for};

/// A cluster with two tenants whose computes run.
struct Two {
    cluster: Cluster,
    ours: TenantTimeline,
    theirs: TenantTimeline,
}

impl Two {
    async fn start() -> anyhow::Result<Two> {
        let cluster = Cluster::start().await?;
        let mut timelines = Vec::new();
        for name in ["ours", "theirs"] {
            let (compute, database) = cluster.tenant(name).await?;
            database.run("CREATE TABLE t AS SELECT 42 n").await?;
            let (tenant, timeline) = (compute.tenant_id, compute.timeline_id);
            timelines.push(TenantTimeline { tenant, timeline });
        }
        Ok(Two { cluster, ours: timelines[0], theirs: timelines[1] })
    }

    /// Tokens that are not good for anything of the other tenant, each with what is wrong with it.
    fn wrong_tokens(&self) -> anyhow::Result<Vec<(&'static str, Option<Token>)>> {
        let other_key = SigningKey::load_or_make(&self.cluster.path("other-key"))?;
        let key = SigningKey::load(&self.cluster.path("key"))?;
        let life = Duration::from_secs(3600);
        let (now, long_ago) = (SystemTime::now(), SystemTime::now() - 2 * life);
        let theirs = Scope::Tenant(self.theirs.tenant);
        Ok(vec![
            ("none", None),
            ("no token at all", Some(Token::new("offshoot".to_owned()))),
            ("another tenant's", Some(token_for(Scope::Tenant(self.ours.tenant)))),
            ("nobody's", Some(token_for(Scope::Tenant(TenantId::from_bits(0))))),
            ("expired", Some(key.sign(theirs, long_ago, life))),
            ("an operator's that expired", Some(key.sign(Scope::Operator, long_ago, life))),
            ("of another key", Some(other_key.sign(theirs, now, life))),
            ("an operator's of another key", Some(other_key.sign(Scope::Operator, now, life))),
        ])
    }

    /// A token of this scope that ends soon.
    fn short(&self, scope: Scope, life: Duration) -> anyhow::Result<Token> {
        let key = SigningKey::load(&self.cluster.path("key"))?;
        Ok(key.sign(scope, SystemTime::now(), life))
    }
}
