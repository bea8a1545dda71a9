//! Two computes of one timeline: the later wins, the earlier can acknowledge nothing more.

use tokio::time::timeout;

use crate::harness::{Cluster, Database, PATIENCE, Process, amcheck, eventually, mounts_below};

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_compute_is_fenced_says_so_and_stops_its_postgres() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (first, zombie) = cluster.tenant("acme").await?;
    zombie.run("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await?;

    // A second compute of the same timeline, started behind the control plane's back.
    let folder = cluster.path("second");
    let port = first.port + 1;
    let arguments = [
        "--json".to_owned(),
        "compute".to_owned(),
        "run".to_owned(),
        "--timeline".to_owned(),
        format!("{}/{}", first.tenant_id, first.timeline_id),
        "--pageserver".to_owned(),
        cluster.pageserver.to_string(),
        "--safekeepers".to_owned(),
        cluster.safekeeper_list(),
        "--folder".to_owned(),
        folder.display().to_string(),
        "--listen".to_owned(),
        format!("127.0.0.1:{port}"),
        "--auth-token".to_owned(),
        cluster.path("operator-token").display().to_string(),
    ];
    let mut second = Process::spawn(&arguments, &cluster.path("second.log"))?;
    second.wait_for_line("\"ready\"")?;
    let winner = Database::connect(port).await?;
    winner.run("INSERT INTO t VALUES (2)").await?;

    // Whatever the zombie answers, it does not acknowledge.
    let write = timeout(PATIENCE, zombie.run("INSERT INTO t VALUES (666)")).await;
    assert!(!matches!(write, Ok(Ok(()))), "a fenced compute acknowledged a commit");
    let fenced = eventually("the zombie ends", PATIENCE, async || {
        let compute = cluster.api.compute("acme", "main").await?;
        anyhow::ensure!(compute.state == control_plane::State::Failed, "it is {:?}", compute.state);
        Ok(compute.reason.unwrap_or_default())
    })
    .await?;
    assert!(fenced.contains("term"), "it does not say that it was fenced: {fenced}");
    assert!(Database::connect(first.port).await.is_err(), "the zombie's Postgres lives on");
    assert_eq!(winner.one::<i64>("SELECT sum(n) FROM t").await?, 3);
    amcheck(port)?;
    drop(winner);
    let status = second.stop()?;
    assert!(status.success(), "the winner ended with {status}");
    assert_eq!(mounts_below(&folder), Vec::<std::path::PathBuf>::new());

    let (_, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i64>("SELECT sum(n) FROM t").await?, 3);
    Ok(())
}
