//! The page service.

use std::time::Duration;

use anyhow::{Context, ensure};
use protocol::{
    TenantId, TenantTimeline,
    page_service::{PageError, Request, Response},
    token::Scope,
};
use wal_format::{Fork, Relation, RelationFork};

use super::Two;
use crate::{
    harness::{PATIENCE, eventually, token, token_for},
    page_client::{PageClient, at},
};

/// A request of each kind: a new kind does not compile until it is here.
fn one_of_each(client: &PageClient) -> Vec<Request> {
    let at = at(client.welcome.last_record_lsn);
    let relation = Relation { tablespace: 1663, database: 5, number: 1259 };
    let fork = RelationFork { relation, fork: Fork::Main };
    let all = [
        Request::Range { at, fork, first: 0, count: 1 },
        Request::Batch { at, pages: vec![fork.block(0)] },
        Request::Relations { at },
        Request::BaseBackup { lsn: client.welcome.last_record_lsn },
        Request::Renew { token: token_for(Scope::Tenant(TenantId::from_bits(0))) },
    ];
    for request in &all {
        match request {
            Request::Range { .. }
            | Request::Batch { .. }
            | Request::Relations { .. }
            | Request::BaseBackup { .. }
            | Request::Renew { .. } => {}
        }
    }
    all.into()
}

fn nothing(timeline: TenantTimeline) -> PageError {
    PageError::NotFound(format!("tenant {} does not exist", timeline.tenant))
}

async fn answer(client: &mut PageClient, request: Request) -> anyhow::Result<Response> {
    client.send(request).await?;
    let (frame, payload) = client.receive().await?.context("an answer")?;
    let is_failure = matches!(frame.response, Response::Failed(_));
    ensure!(!is_failure || payload.is_empty(), "a failure brings {} bytes", payload.len());
    Ok(frame.response)
}

#[tokio::test(flavor = "multi_thread")]
async fn for_another_tenants_token_the_page_service_has_no_such_tenant() -> anyhow::Result<()> {
    let two = Two::start().await?;
    let server = two.cluster.pageserver;
    // What is said of a tenant that there is not, to somebody who may know.
    let nobody = TenantTimeline { tenant: TenantId::from_bits(7), ..two.theirs };
    let refused = PageClient::connect_showing(server, nobody, None, token()).await?.err();
    ensure!(refused == Some(nothing(nobody)), "{refused:?}");
    for (what, token) in two.wrong_tokens()? {
        for timeline in [two.theirs, nobody] {
            if what == "nobody's" && timeline == nobody {
                continue;
            }
            let refused =
                PageClient::connect_showing(server, timeline, None, token.clone()).await?.err();
            ensure!(refused == Some(nothing(timeline)), "{what}: {refused:?}");
        }
    }
    // A tenant's token is not good for a timeline that it puts into its own name.
    let mixed = TenantTimeline { tenant: two.ours.tenant, timeline: two.theirs.timeline };
    let ours = Some(token_for(Scope::Tenant(two.ours.tenant)));
    let refused = PageClient::connect_showing(server, mixed, None, ours).await?.err();
    ensure!(matches!(refused, Some(PageError::NotFound(_))), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_request_is_checked_and_a_newer_token_counts_on_the_same_connection()
-> anyhow::Result<()> {
    let two = Two::start().await?;
    let scope = Scope::Tenant(two.theirs.tenant);
    let short = two.short(scope, Duration::from_secs(2))?;
    let connected =
        PageClient::connect_showing(two.cluster.pageserver, two.theirs, None, Some(short));
    let mut client = connected.await??;
    // It ends while the connection is open.
    eventually("the token ends", PATIENCE, async || {
        let request = one_of_each(&client).swap_remove(0);
        let answer = answer(&mut client, request).await?;
        ensure!(answer == Response::Failed(nothing(two.theirs)), "{answer:?}");
        Ok(())
    })
    .await?;
    for request in one_of_each(&client) {
        let answer = answer(&mut client, request.clone()).await?;
        ensure!(answer == Response::Failed(nothing(two.theirs)), "{request:?}: {answer:?}");
    }
    for (what, token) in two.wrong_tokens()? {
        let Some(token) = token else { continue };
        let answer = answer(&mut client, Request::Renew { token }).await?;
        ensure!(answer == Response::Failed(nothing(two.theirs)), "{what}: {answer:?}");
    }
    let renewed = answer(&mut client, Request::Renew { token: token_for(scope) }).await?;
    ensure!(renewed == Response::Renewed, "{renewed:?}");
    let kinds = one_of_each(&client);
    for request in kinds.into_iter().take(3) {
        let answer = answer(&mut client, request.clone()).await?;
        ensure!(!matches!(answer, Response::Failed(_)), "{request:?}: {answer:?}");
    }
    Ok(())
}
