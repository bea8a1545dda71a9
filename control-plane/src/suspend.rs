//! Computes that nobody uses are stopped; the proxy starts them again for the next client.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};

use crate::{
    Awake, Endpoints, Error,
    endpoint::Endpoint,
    metrics::METRICS,
    proxy::{answer, connect_as_superuser},
    v2::Context,
};

/// How often it is looked for computes that have been quiet for long enough.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a compute of a moment may be unused where no other is ever suspended.
const MOMENT_IDLE_MAX: Duration = Duration::from_secs(300);

/// How many computes are asked, and stopped, at the same time.
const AT_ONCE: usize = 4;

/// Whether there is work that no client of the proxy waits for: sessions that came by the compute's
/// own port, walsenders, autovacuum, workers of queries and of subscriptions, and extensions' workers
/// that are in a transaction. A replication slot that nobody reads is kept, and is none.
const IS_BUSY: &str = "\
SELECT EXISTS (
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

/// Suspends computes that have been quiet for as long as their endpoints say, until it is aborted.
/// `default` is for those that say nothing; `None` is never.
pub(crate) async fn watch(
    endpoints: Arc<Endpoints>,
    management: Option<Arc<Context>>,
    default: Option<Duration>,
) {
    loop {
        tokio::time::sleep(default.map_or(LOOK_EVERY, |after| LOOK_EVERY.min(after))).await;
        endpoints.drop_ended_moments();
        let unused = endpoints.unused();
        let of = unused.iter().map(|(endpoint, _)| endpoint.name()).collect();
        let said = match &management {
            Some(context) => context.suspend_timeouts(of).await,
            None => Ok(vec![0; unused.len()]),
        };
        let said = match said {
            Ok(said) => said,
            Err(error) => {
                // Whoever is unsure stops nothing.
                tracing::info!(error = error.message, "when computes are suspended is not known");
                continue;
            }
        };
        let due = unused.into_iter().zip(said).filter_map(|((endpoint, awake), seconds)| {
            // A moment's compute is there for its clients alone.
            let moment = endpoint.served().is_moment().then_some(MOMENT_IDLE_MAX);
            let after = timeout(seconds, default).or(moment)?;
            endpoint.is_quiet(after).then_some((endpoint, awake, after))
        });
        let (management, endpoints) = (&management, &endpoints);
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, move |(endpoint, awake, after)| async move {
                let name = endpoint.name();
                if consider(endpoints, endpoint, awake, after).await
                    && let Some(context) = management
                {
                    context.was_suspended(name).await;
                }
            })
            .await;
    }
}

/// How long a compute may be unused whose endpoint says so many seconds: `0` is the default, `-1` and
/// `None` are for ever.
fn timeout(seconds: i64, default: Option<Duration>) -> Option<Duration> {
    match u64::try_from(seconds) {
        Ok(0) => default,
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => None,
    }
}

/// Suspends a compute where it is not busy; whether it was suspended.
async fn consider(
    endpoints: &Endpoints,
    endpoint: Arc<Endpoint>,
    awake: Awake,
    after: Duration,
) -> bool {
    match is_busy(&endpoint, &awake).await {
        Ok(false) => {}
        Ok(true) => {
            endpoint.saw_work();
            return false;
        }
        Err(error) => {
            // It may be ending by itself; whoever is unsure stops nothing.
            tracing::info!(%error, "a compute could not be asked whether it is busy");
            endpoint.saw_work();
            return false;
        }
    }
    // A start or stop that is under way decides for itself.
    let Ok(_turn) = endpoint.turn.try_lock() else { return false };
    let suspended = endpoint.suspend(after).await;
    if suspended {
        METRICS.suspends.inc();
        let view = endpoint.view();
        tracing::info!(tenant = view.tenant, branch = view.branch, "a compute was suspended");
        if endpoint.served().is_moment() {
            endpoints.drop_endpoint(&endpoint);
        }
    }
    suspended
}

async fn is_busy(endpoint: &Endpoint, awake: &Awake) -> Result<bool, Arc<Error>> {
    let view = endpoint.view();
    let asked = async {
        let client = connect_as_superuser(awake).await?;
        client.query_one(IS_BUSY, &[]).await?.try_get(0)
    };
    answer(&view.tenant, &view.branch, asked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_says_nothing_has_the_servers_default() {
        let default = Some(Duration::from_secs(300));
        assert_eq!(timeout(0, default), default);
        assert_eq!(timeout(0, None), None);
        assert_eq!(timeout(-1, default), None);
        assert_eq!(timeout(5, default), Some(Duration::from_secs(5)));
        assert_eq!(timeout(5, None), Some(Duration::from_secs(5)));
    }
}
