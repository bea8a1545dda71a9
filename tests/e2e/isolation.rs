//! What one tenant's Postgres can reach of another's.

use std::path::Path;

use anyhow::ensure;

use crate::harness::{Cluster, Database};

/// Whether Postgres can read a file of its machine: as its superuser, through a program.
async fn can_read(database: &Database, file: &Path) -> anyhow::Result<bool> {
    let read = format!("COPY seen FROM PROGRAM 'cat {}'", file.display());
    match database
        .run(&format!("CREATE TEMP TABLE seen (line text); {read}; DROP TABLE seen"))
        .await
    {
        Ok(()) => Ok(true),
        Err(refused) => {
            let refused = format!("{refused:#}");
            ensure!(refused.contains("failed"), "{refused}");
            Ok(false)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_reads_no_file_of_another_even_as_superuser() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (ours, _) = cluster.tenant("ours").await?;
    let (theirs, _) = cluster.tenant("theirs").await?;
    let (our_user, their_user) = (cluster.compute_user(&ours)?, cluster.compute_user(&theirs)?);
    assert_ne!(our_user, their_user, "two computes run as one user");

    let database = Database::connect(ours.port).await?;
    for file in ["data/PG_VERSION", "data/global/1262", "data/pg_hba.conf", "postgres.log"] {
        let own = cluster.compute_folder(&ours).join(file);
        let foreign = cluster.compute_folder(&theirs).join(file);
        assert!(foreign.exists(), "{} is not there", foreign.display());
        assert!(!can_read(&database, &foreign).await?, "{} was read", foreign.display());
        // What is refused is the other's, not the way of asking.
        if file == "data/PG_VERSION" {
            assert!(can_read(&database, &own).await?, "{} was not read", own.display());
        }
    }
    Ok(())
}
