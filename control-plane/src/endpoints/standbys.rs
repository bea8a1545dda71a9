//! Computes that follow the one of their branch's head.

use std::{io, time::Duration};

use super::{Endpoints, head_key};
use crate::{
    EndpointRef, Error, StartRequest, pageserver_client::Branch, proxy::connect_as_superuser,
};

/// How long a compute may take for the checkpoint that a standby of it begins at.
const CHECKPOINT_MAX: Duration = Duration::from_secs(60);

impl Endpoints {
    /// Has the compute of a branch's head write a checkpoint, if it runs: where its record begins.
    pub(super) async fn checkpoint(&self, branch: &Branch) -> Result<Option<String>, Error> {
        let head = self.all.lock().get(&head_key(branch)).cloned();
        let Some(head) = head else { return Ok(None) };
        let Some((port, served, stay)) = head.enter() else { return Ok(None) };
        if served.timeline != branch.timeline_id {
            return Ok(None);
        }
        let awake = self.awake(&head, port, &served, Box::new(stay));
        let asked = async {
            let client = connect_as_superuser(&awake).await?;
            client.batch_execute("CHECKPOINT").await?;
            let query = "SELECT checkpoint_lsn::text FROM pg_catalog.pg_control_checkpoint()";
            client.query_one(query, &[]).await?.try_get(0)
        };
        let EndpointRef { tenant, branch } = head.name();
        let failed = |reason| Error::Compute { tenant, branch, reason };
        match tokio::time::timeout(CHECKPOINT_MAX, asked).await {
            Ok(Ok(lsn)) => Ok(Some(lsn)),
            Ok(Err(error)) => Err(failed(io::Error::other(error))),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    /// Whether a standby of a branch lives.
    pub(crate) fn has_standby(&self, tenant: &str, branch: &str) -> bool {
        let beside = self.beside(tenant, branch);
        beside.iter().any(|beside| beside.served().is_standby() && beside.living().is_some())
    }

    /// Starts the standbys of a branch anew that run on a timeline that it no longer stands for.
    pub(super) async fn follow_by_standbys(
        &self,
        tenant: &str,
        branch: &Branch,
    ) -> Result<(), Error> {
        for standby in self.beside(tenant, &branch.name) {
            let served = standby.served();
            let is_old = served.is_standby() && served.timeline != branch.timeline_id;
            if !is_old || standby.living().is_none() {
                continue;
            }
            {
                let _turn = standby.turn.lock().await;
                standby.end().await;
            }
            let EndpointRef { tenant, branch } = standby.name();
            self.start(&StartRequest::of(tenant, branch)).await?;
        }
        Ok(())
    }
}
