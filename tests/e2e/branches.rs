//! A branch is its parent at a moment, and then its own.

use serde_json::{Value, json};

use crate::harness::{Cluster, amcheck};

#[tokio::test(flavor = "multi_thread")]
async fn branch_and_parent_do_not_see_each_others_writes() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (compute, parent) = cluster.tenant("acme").await?;
    parent.run("CREATE TABLE t (n int PRIMARY KEY, who text)").await?;
    parent.run("INSERT INTO t SELECT i, 'both' FROM generate_series(1, 1000) i").await?;
    cluster.api.create_branch("acme", "try").await?;
    let (branch_compute, branch) = cluster.connect("acme", "try").await?;
    branch.run("INSERT INTO t VALUES (2000, 'branch'); DELETE FROM t WHERE n <= 500").await?;
    parent
        .run("INSERT INTO t VALUES (3000, 'parent'); UPDATE t SET who = 'p' WHERE n > 900")
        .await?;
    let of = "SELECT string_agg(who || c, ' ' ORDER BY who) FROM (SELECT who, count(*) c FROM t GROUP BY who) x";
    assert_eq!(parent.one::<String>(of).await?, "both900 p101");
    assert_eq!(branch.one::<String>(of).await?, "both500 branch1");
    amcheck(compute.port)?;
    amcheck(branch_compute.port)?;
    drop((parent, branch));

    for compute in [compute, branch_compute] {
        cluster.kill_compute(&compute).await?;
    }
    let (_, parent) = cluster.connect("acme", "main").await?;
    let (_, branch) = cluster.connect("acme", "try").await?;
    assert_eq!(parent.one::<String>(of).await?, "both900 p101");
    assert_eq!(branch.one::<String>(of).await?, "both500 branch1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_at_head_has_the_commit_acknowledged_just_before() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, parent) = cluster.tenant("acme").await?;
    parent.run("CREATE TABLE t (n int)").await?;
    for number in 1..=10 {
        parent.run(&format!("INSERT INTO t VALUES ({number})")).await?;
        let name = format!("b{number}");
        cluster.api.create_branch("acme", &name).await?;
        let (_, branch) = cluster.connect("acme", &name).await?;
        assert_eq!(branch.one::<i32>("SELECT max(n) FROM t").await?, number);
        drop(branch);
        cluster.api.stop("acme", &name).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_at_head_of_a_branch_without_a_compute_has_its_last_commit() -> anyhow::Result<()>
{
    let cluster = Cluster::start().await?;
    let (compute, parent) = cluster.tenant("acme").await?;
    parent.run("CREATE TABLE t AS SELECT 1 AS n").await?;
    cluster.kill_compute(&compute).await?;
    cluster.api.create_branch("acme", "after").await?;
    let (_, branch) = cluster.connect("acme", "after").await?;
    assert_eq!(branch.one::<i32>("SELECT n FROM t").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_of_a_branch_of_a_branch_reads_through_all() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, mut database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int PRIMARY KEY)").await?;
    let mut parent = "main".to_owned();
    for depth in 1..=4 {
        database
            .run(&format!("INSERT INTO t SELECT generate_series({depth}000, {depth}099)"))
            .await?;
        let name = format!("depth{depth}");
        let body = json!({ "name": name, "from": parent });
        cluster.api.storage(reqwest::Method::POST, "tenants/acme/branches", Some(body)).await?;
        (_, database) = cluster.connect("acme", &name).await?;
        assert_eq!(database.one::<i64>("SELECT count(*) FROM t").await?, depth * 100);
        parent = name;
    }
    let compute = cluster.api.compute("acme", &parent).await?;
    amcheck(compute.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_at_an_lsn_has_exactly_the_rows_of_that_moment() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (_, database) = cluster.tenant("acme").await?;
    database.run("CREATE TABLE t (n int)").await?;
    let mut moments = Vec::new();
    for number in 1..=4 {
        database.run(&format!("INSERT INTO t SELECT generate_series(1, {number}00)")).await?;
        moments.push((database.lsn().await?, database.one::<i64>("SELECT count(*) FROM t").await?));
    }
    database.run("DROP TABLE t").await?;
    for (number, (lsn, rows)) in moments.iter().enumerate() {
        let name = format!("at{number}");
        let made = cluster.api.create_branch_at("acme", &name, lsn).await?;
        assert_eq!(made["rounded_from"], Value::Null, "{lsn} is the end of a record: {made}");
        let (_, branch) = cluster.connect("acme", &name).await?;
        assert_eq!(branch.one::<i64>("SELECT count(*) FROM t").await?, *rows, "at {lsn}");
        cluster.api.stop("acme", &name).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_created_listed_and_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    for name in ["acme", "zeta"] {
        cluster.api.create_tenant(name).await?;
    }
    let (status, said) = cluster.api.refused("tenants", json!({ "name": "acme" })).await?;
    assert_eq!(status.as_u16(), 409, "{said}");
    assert!(said.contains("acme"), "{said}");
    let get = reqwest::Method::GET;
    let list = cluster.api.storage(get.clone(), "tenants", None).await?.to_string();
    assert!(list.contains("acme") && list.contains("zeta"), "{list}");
    cluster.api.storage(reqwest::Method::DELETE, "tenants/acme", None).await?;
    let (status, _) = cluster.api.ask(cluster.api.pageserver, get, "tenants/acme", None).await?;
    assert_eq!(status.as_u16(), 404);
    cluster.api.create_tenant("acme").await?;
    let (_, database) = cluster.connect("acme", "main").await?;
    assert_eq!(database.one::<i32>("SELECT 1").await?, 1);
    Ok(())
}
