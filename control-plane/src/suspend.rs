//! Computes that nobody uses are stopped; the proxy starts them again for the next client.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};

use crate::{
    Awake, Endpoints, Error,
    endpoint::Endpoint,
    metrics::METRICS,
    proxy::{answer, connect_as_superuser},
};

/// How often it is looked for computes that have been quiet for long enough.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many computes are asked, and stopped, at the same time.
const AT_ONCE: usize = 4;

/// Whether there is work that no client of the proxy waits for: sessions that came by the compute's
/// own port, walsenders, autovacuum, workers of queries and of subscriptions, and extensions' workers
/// that are in a transaction. A replication slot is a promise to whoever will come back for it; it is
/// on the compute's disk alone, and would be lost with that.
const IS_BUSY: &str = "\
SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots)
    OR EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity
        WHERE pid <> pg_catalog.pg_backend_pid()
        AND NOT (backend_type = 'client backend' AND usename = session_user
                 AND application_name = pg_catalog.current_setting('application_name'))
        AND CASE
            WHEN backend_type IN ('client backend', 'walsender', 'autovacuum worker', 'parallel worker')
                OR backend_type LIKE 'logical replication%worker' THEN true
            WHEN backend_type IN ('autovacuum launcher', 'logical replication launcher') THEN false
            ELSE xact_start IS NOT NULL OR state = 'active'
        END
    )";

/// Suspends computes that have been quiet for so long, until it is aborted.
pub(crate) async fn watch(endpoints: Arc<Endpoints>, after: Duration) {
    loop {
        tokio::time::sleep(LOOK_EVERY.min(after)).await;
        let quiet = stream::iter(endpoints.quiet(after));
        quiet
            .for_each_concurrent(AT_ONCE, |(endpoint, awake)| consider(endpoint, awake, after))
            .await;
    }
}

async fn consider(endpoint: Arc<Endpoint>, awake: Awake, after: Duration) {
    match is_busy(&endpoint, &awake).await {
        Ok(false) => {}
        Ok(true) => return endpoint.saw_work(),
        Err(error) => {
            // It may be ending by itself; whoever is unsure stops nothing.
            tracing::info!(%error, "a compute could not be asked whether it is busy");
            return endpoint.saw_work();
        }
    }
    // A start or stop that is under way decides for itself.
    let Ok(_turn) = endpoint.turn.try_lock() else { return };
    if endpoint.suspend(after).await {
        METRICS.suspends.inc();
        let view = endpoint.view();
        tracing::info!(tenant = view.tenant, branch = view.branch, "a compute was suspended");
    }
}

async fn is_busy(endpoint: &Endpoint, awake: &Awake) -> Result<bool, Arc<Error>> {
    let view = endpoint.view();
    let asked = async {
        let client = connect_as_superuser(awake).await?;
        client.query_one(IS_BUSY, &[]).await?.try_get(0)
    };
    answer(&view.tenant, &view.branch, asked).await
}
