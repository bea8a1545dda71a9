//! Moving a tenant from one pageserver to another while its computes run.
//!
//! 1. The pageserver that serves the tenant is asked which of its timelines are in use, and how far
//!    their ingest is. One that does not answer is not waited for.
//! 2. The other one takes the tenant: it ingests so far first, then writes the tenant's next
//!    manifest, which fences the one before.
//! 3. The one before is told to look. It drops the tenant, and names the new one to the computes,
//!    which connect there. Where it is not told, it finds out by itself; where it is gone, computes
//!    ask the others.
//!
//! A move that breaks off leaves the tenant with one of the two, and can be asked for again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use protocol::{TenantId, TimelineId};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    pageserver_client::{PageserverClient, Place, Tenant},
};

/// How long a pageserver may take to say what it does.
const STATUS_MAX: Duration = Duration::from_secs(5);
/// How long taking a tenant may take: all WAL that is not in layers is ingested.
const TAKE_MAX: Duration = Duration::from_secs(180);

/// `POST /v1/tenants/{tenant}/move`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The name of the pageserver that is to serve it.
    pub to: String,
}

/// A move that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Move {
    /// The tenant's name.
    pub tenant: String,
    /// Its id.
    pub tenant_id: TenantId,
    /// Who served it until now; `None` where nobody did.
    pub from: Option<String>,
    /// Who serves it now.
    pub to: String,
    /// Timelines that were in use, and were brought up to date before.
    pub timelines: usize,
}

/// What of a pageserver's status matters here.
#[derive(Deserialize)]
struct Status {
    pageserver: Place,
    timelines: Vec<TimelineStatus>,
}

#[derive(Deserialize)]
struct TimelineStatus {
    tenant_id: TenantId,
    timeline_id: TimelineId,
    last_record_lsn: String,
}

#[derive(Serialize)]
struct Take {
    timelines: Vec<TakenTimeline>,
}

#[derive(Serialize)]
struct TakenTimeline {
    timeline_id: TimelineId,
    last_record_lsn: String,
}

impl PageserverClient {
    /// Has the pageserver of this name serve a tenant from now on.
    pub(crate) async fn move_tenant(&self, tenant: &str, to: &str) -> Result<Move, Error> {
        let tenant = self.tenant(tenant).await?;
        let all = self.statuses().await;
        let named = |name: &str| {
            all.iter().find(|(_, status)| status.pageserver.name == name).map(|(http, _)| *http)
        };
        let new = named(to).ok_or_else(|| {
            let names: Vec<&str> =
                all.iter().map(|(_, status)| status.pageserver.name.as_str()).collect();
            let names = names.join(", ");
            Error::NotFound(format!("no pageserver {to:?} answers; these do: {names}"))
        })?;
        let owner = tenant.pageserver.as_ref();
        let old = owner.and_then(|place| place.http.or_else(|| named(&place.name)));
        let before = all.iter().find(|(http, _)| Some(*http) == old).map(|(_, status)| status);
        let timelines = before.map(|status| live(status, &tenant)).unwrap_or_default();
        let (live, id) = (timelines.len(), tenant.id);
        let began = Instant::now();
        let taken: Result<Tenant, Error> = self
            .ask_one(
                new,
                Method::POST,
                &format!("tenants/{id}/take"),
                Some(&Take { timelines }),
                TAKE_MAX,
            )
            .await;
        // In any case: where the new one failed half way, the old one learns whose the tenant is.
        if let Some(old) = old.filter(|old| *old != new) {
            let path = format!("tenants/{id}/look");
            let told: Result<Tenant, Error> =
                self.ask_one(old, Method::POST, &path, None::<&()>, STATUS_MAX).await;
            if let Err(error) = told {
                tracing::warn!(tenant = %id, %old, %error, "the pageserver before was not told");
            }
        }
        let taken = taken?;
        self.note(id, new);
        let took = began.elapsed();
        tracing::info!(tenant = %id, to, ?took, timelines = live, "a tenant was moved");
        Ok(Move {
            tenant: taken.name,
            tenant_id: id,
            from: owner.map(|place| place.name.clone()),
            to: to.to_owned(),
            timelines: live,
        })
    }

    /// What all pageservers say that answer.
    async fn statuses(&self) -> Vec<(SocketAddr, Status)> {
        let asked = self.all().iter().map(async |at| {
            let status =
                self.ask_one(at.http, Method::GET, "status", None::<&()>, STATUS_MAX).await;
            status.ok().map(|status| (at.http, status))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

fn live(status: &Status, tenant: &Tenant) -> Vec<TakenTimeline> {
    let own = status.timelines.iter().filter(|timeline| timeline.tenant_id == tenant.id);
    own.map(|timeline| TakenTimeline {
        timeline_id: timeline.timeline_id,
        last_record_lsn: timeline.last_record_lsn.clone(),
    })
    .collect()
}
