//! Branches with their parent's tables and none of its rows.

use anyhow::ensure;

use crate::projects::Up;

const TABLES: &str = "\
CREATE TABLE customer (id serial PRIMARY KEY, name text);
CREATE TABLE bill (id int, customer int REFERENCES customer, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE bill_2026 PARTITION OF bill FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE item (bill int, at date, FOREIGN KEY (bill, at) REFERENCES bill (id, at));
CREATE UNLOGGED TABLE \"odd name\" (n int);
CREATE SEQUENCE lone START 7;
CREATE MATERIALIZED VIEW names AS SELECT name FROM customer WITH NO DATA;
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
CREATE TRIGGER never BEFORE TRUNCATE ON customer EXECUTE FUNCTION never()";

const ROWS: &str = "\
INSERT INTO customer (name) SELECT 'customer ' || n FROM generate_series(1, 1000) n;
INSERT INTO bill SELECT n, n, '2026-03-01' FROM generate_series(1, 1000) n;
INSERT INTO item SELECT n, '2026-03-01' FROM generate_series(1, 1000) n;
INSERT INTO \"odd name\" VALUES (1);
SELECT nextval('lone'), lo_create(4711);
REFRESH MATERIALIZED VIEW names;
ANALYZE customer, bill, item";

const COUNTS: &str = "\
SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM bill), (SELECT count(*) FROM item),
       (SELECT count(*) FROM \"odd name\"), (SELECT count(*) FROM pg_largeobject_metadata),
       (SELECT count(*) FROM pg_stats WHERE schemaname = 'public')";

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_only_branch_has_the_tables_and_no_row_of_its_parent() -> anyhow::Result<()> {
    let up = Up::start_with(&[]).await?;
    up.json(&["project", "create", "acme"])?;
    // The database may be read-only, where nobody says otherwise.
    let writes = "SET default_transaction_read_only = off";
    let sql = |branch: &str, sql: &str| {
        up.table(&["psql", "acme", branch, "--", "-XqAt", "-c", writes, "-c", sql])
    };
    sql("main", TABLES)?;
    sql("main", ROWS)?;
    sql("main", "ALTER DATABASE app SET default_transaction_read_only = on")?;
    let counts = sql("main", COUNTS)?;
    ensure!(counts.trim().starts_with("1000|1000|1000|1|1|"), "{counts}");
    ensure!(!counts.trim().ends_with("|0"), "there are no statistics: {counts}");

    let with_rows = sql("main", "SELECT pg_current_wal_lsn()")?;
    sql("main", "CREATE TABLE later ()")?;
    up.json(&["branch", "create", "acme", "empty", "--schema-only"])?;
    // Made of one that was never started: its rows wait to be removed, too.
    up.json(&["branch", "create", "acme", "again", "--parent", "empty"])?;
    let (_, said) =
        up.refused(&["template", "create", "t", "--project", "acme", "--branch", "empty"])?;
    ensure!(said.contains("start it first"), "{said}");
    let then = ["--lsn", with_rows.trim()];
    let gone = "is before the retained history";
    // Not by the first connection either: a password is looked up in the branch as it is now.
    let (_, said) = up.refused(&[&["psql", "acme", "again"][..], &then].concat())?;
    ensure!(said.contains(gone), "{said}");
    let schema = up.table(&["branch", "schema", "acme", "main", "--database", "app"])?;
    for branch in ["empty", "again"] {
        let counts = sql(branch, COUNTS)?;
        ensure!(counts.trim() == "0|0|0|0|0|0", "{branch}: {counts}");
        let next = "SELECT nextval('lone'), nextval('customer_id_seq')";
        ensure!(sql(branch, next)?.trim() == "7|1");
        ensure!(sql(branch, "SELECT ispopulated FROM pg_matviews")?.trim() == "f");
        let of_branch = up.table(&["branch", "schema", "acme", branch, "--database", "app"])?;
        ensure!(of_branch == schema, "{branch} has another schema:\n{of_branch}");
    }
    // Rows of its own stay.
    sql("empty", "INSERT INTO customer (name) VALUES ('own')")?;
    up.json(&["endpoint", "suspend", "acme", "empty"])?;
    ensure!(sql("empty", COUNTS)?.trim().starts_with("1|0|0|0|0|"));
    ensure!(sql("main", COUNTS)? == counts, "the parent lost rows");

    // Nobody comes back to the rows: not as a branch, not by a restore, not as a template, not to read.
    for command in [
        &["branch", "create", "acme", "past", "--parent", "empty"][..],
        &["branch", "restore", "acme", "empty"],
        &["psql", "acme", "empty"],
        &["template", "create", "t", "--project", "acme", "--branch", "empty"],
    ] {
        let (_, said) = up.refused(&[command, &then].concat())?;
        ensure!(said.contains(gone), "{command:?}: {said}");
    }
    // The parent's own history stays.
    up.json(&[&["branch", "create", "acme", "past", "--parent", "main"][..], &then].concat())?;
    // Unlogged tables are empty in a branch.
    ensure!(sql("past", COUNTS)?.trim().starts_with("1000|1000|1000|0|"));
    up.stop()
}
