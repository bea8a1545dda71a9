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

/// What Postgres is told, as its superuser and by psql from its own machine, when it goes to a server.
async fn answer(from: &Database, host: &str, port: u16, role: &str) -> anyhow::Result<String> {
    let connection = format!("host={host} port={port} user={role} dbname=app");
    let ask = format!("psql -wXAtc ''SELECT 40 + 2'' ''{connection}'' 2>&1 | tr ''\\t'' '' ''");
    let fill = format!("COPY said FROM PROGRAM '{}'", ask.replace("''", "\""));
    from.run(&format!("CREATE TEMP TABLE said (line text); {fill}")).await?;
    let said = from.one("SELECT string_agg(line, ' ') FROM said").await?;
    from.run("DROP TABLE said").await?;
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_lets_nobody_in_without_a_password_but_by_its_own_socket() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (ours, database) = cluster.tenant("ours").await?;
    let (theirs, their_database) = cluster.tenant("theirs").await?;
    let theirs_folder = theirs.sockets.display().to_string();
    for role in ["app", "postgres"] {
        let own = answer(&database, &ours.sockets.display().to_string(), ours.port, role).await?;
        ensure!(own == "42", "its own socket: {own}");
        let foreign = answer(&database, &theirs_folder, theirs.port, role).await?;
        ensure!(foreign.contains("Permission denied"), "another's socket as {role}: {foreign}");
        for compute in [&ours, &theirs] {
            let by_port = answer(&database, "127.0.0.1", compute.port, role).await?;
            ensure!(by_port.contains("no password supplied"), "by the port as {role}: {by_port}");
        }
    }
    // With a password the port is a way in, and the right one is asked for.
    their_database.run("ALTER ROLE app PASSWORD 'secret'").await?;
    let connect = async |password: &str| {
        let config =
            format!("host=127.0.0.1 port={} user=app dbname=app password={password}", theirs.port);
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("SELECT 1").await
    };
    connect("secret").await?;
    ensure!(connect("other").await.is_err(), "a wrong password is taken");
    Ok(())
}
