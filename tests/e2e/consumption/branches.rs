//! What each branch used, against what the wire, the clock and the safekeepers say of it alone, wherever it
//! ran: all branches together used what the project did.

use super::*;

const COUNTED: [&str; 5] = [
    "active_time_seconds",
    "compute_time_seconds",
    "cpu_used_sec",
    "written_data_bytes",
    "data_transfer_bytes",
];

/// A branch, by whom it is reached, and what it used by other counts.
struct Side {
    branch: String,
    endpoint: String,
    units: u32,
    wire: Wire,
    at: SocketAddr,
    /// How long its computes ran at least and at most; and those times, times their units.
    active: [Duration; 2],
    compute: [Duration; 2],
}

impl Side {
    async fn new(up: &Up, branch: &str, endpoint: &str, units: u32) -> anyhow::Result<Side> {
        let wire = Wire::default();
        let at = wire.before(up.address("proxy")?).await?;
        Ok(Side {
            branch: branch.to_owned(),
            endpoint: endpoint.to_owned(),
            units,
            wire,
            at,
            active: [Duration::ZERO; 2],
            compute: [Duration::ZERO; 2],
        })
    }

    async fn connect(&self, up: &Up, project: &Project) -> anyhow::Result<Client> {
        let options = format!("endpoint={}", self.endpoint);
        Ok(up.connect_to(project, &options, self.at).await?)
    }

    /// A compute of so many thousandths of a unit ran so long.
    fn ran(&mut self, milli_units: u32, least: Duration, most: Duration) {
        for (number, time) in [least, most].into_iter().enumerate() {
            self.active[number] += time;
            self.compute[number] += time * milli_units / 1000;
        }
    }

    /// Fills a table of its own, reads it, and sleeps; where it was then.
    async fn work(&mut self, up: &Up, project: &Project, rows: u32) -> anyhow::Result<String> {
        let asked = Instant::now();
        let client = self.connect(up, project).await?;
        let connected = Instant::now();
        let fill = format!(
            "CREATE TABLE t AS SELECT n, repeat('x', 100) FROM generate_series(1, {rows}) n"
        );
        client.batch_execute(&fill).await?;
        client.query("SELECT * FROM t", &[]).await?;
        let lsn = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?.get(0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(client);
        let least = connected.elapsed();
        suspend(up, project, &self.endpoint).await?;
        self.ran(1000 * self.units, least, asked.elapsed());
        Ok(lsn)
    }

    /// Asks what it holds, of its head or a moment of it; how long that took, with the session alone first.
    async fn look(
        &self,
        up: &Up,
        project: &Project,
        moment: &str,
    ) -> anyhow::Result<(Client, Duration)> {
        let options = format!("{moment} endpoint={}", self.endpoint);
        let client = up.connect_to(project, options.trim(), self.at).await?;
        let connected = Instant::now();
        client.query("SELECT * FROM t LIMIT 100", &[]).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok((client, connected.elapsed()))
    }
}

pub(super) fn is_the_same(now: &Value, before: &Value) -> anyhow::Result<()> {
    ensure!(COUNTED.iter().all(|field| now[field] == before[field]), "{now}, {before} before");
    Ok(())
}

async fn suspend(up: &Up, project: &Project, endpoint: &str) -> anyhow::Result<()> {
    let path = format!("projects/{}/endpoints/{endpoint}/suspend", project.id);
    up.api.post(&path, Value::Null).await?;
    up.is_suspended(project, endpoint).await.map(drop)
}

impl Up {
    pub(super) async fn branch(&self, project: &Project, id: &str) -> anyhow::Result<Value> {
        let path = format!("projects/{}/branches/{id}", project.id);
        Ok(self.api.get(&path).await?["branch"].clone())
    }

    /// All branches of a project, which are shown alike one by one.
    async fn branches(&self, project: &Project) -> anyhow::Result<Vec<Value>> {
        let path = format!("projects/{}/branches", project.id);
        let all = self.api.get(&path).await?["branches"].as_array().cloned();
        let all = all.context("a list")?;
        for shown in &all {
            let alone = self.branch(project, shown["id"].as_str().context("an id")?).await?;
            is_the_same(shown, &alone)?;
        }
        Ok(all)
    }

    /// A side's branch used what the other counts say, but for its WAL.
    async fn agrees(&self, project: &Project, side: &Side) -> anyhow::Result<Value> {
        let shown = self.branch(project, &side.branch).await?;
        let sent = number(&shown, "data_transfer_bytes")?;
        ensure!(sent == side.wire.bytes(), "{} were sent: {shown}", side.wire.bytes());
        is_within(number(&shown, "active_time_seconds")?, side.active[0], side.active[1])?;
        is_within(number(&shown, "compute_time_seconds")?, side.compute[0], side.compute[1])?;
        ensure!(shown["cpu_used_sec"] == shown["compute_time_seconds"], "{shown}");
        Ok(shown)
    }

    /// All branches together used what the project did. Of seconds each shows those that are whole.
    async fn add_up(&self, project: &Project) -> anyhow::Result<()> {
        let (month, all) = (self.month(project).await?, self.branches(project).await?);
        for field in COUNTED.into_iter().filter(|field| *field != "cpu_used_sec") {
            let each = all.iter().map(|shown| number(shown, field));
            let sum: u64 = each.sum::<anyhow::Result<u64>>()?;
            let whole = number(&month, field)?;
            let lost = if field.ends_with("_seconds") { all.len() as u64 } else { 1 };
            ensure!((sum..sum + lost).contains(&whole), "{field}: {sum}, together {month}");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_branch_used_is_its_own_also_beside_its_head_and_after_it_was_put_back()
-> anyhow::Result<()> {
    let mut up = Up::start().await?;
    let settings = json!({ "suspend_timeout_seconds": -1, "autoscaling_limit_max_cu": 2 });
    let project = up.project(json!({ "default_endpoint_settings": settings })).await?;
    let below = format!("projects/{}", project.id);
    let endpoint = json!({ "type": "read_write", "autoscaling_limit_max_cu": 1 });
    let asked = json!({ "branch": { "name": "other" }, "endpoints": [endpoint] });
    let made = up.api.post(&format!("{below}/branches"), asked).await?;
    ensure!(COUNTED.iter().all(|field| made["branch"][field] == 0), "{made}");
    let id = |at: &str| made.pointer(at).and_then(Value::as_str).context("an id");
    let mut other = Side::new(&up, id("/branch/id")?, id("/endpoints/0/id")?, 1).await?;
    let [branch, endpoint] = ["br", "ep"].map(|kind| format!("{kind}-{}", project.id));
    let mut first = Side::new(&up, &branch, &endpoint, 2).await?;

    // Both at once.
    let (_, lsn) =
        tokio::try_join!(first.work(&up, &project, 20_000), other.work(&up, &project, 5_000))?;
    let old = format!("{}_0", other.branch);
    eventually("all is counted", PATIENCE, async || {
        for (side, timeline) in [(&first, "main"), (&other, old.as_str())] {
            let shown = up.agrees(&project, side).await?;
            let written = up.written_on(&project, timeline).await?;
            ensure!(number(&shown, "written_data_bytes")? == written, "{written}: {shown}");
        }
        up.add_up(&project).await
    })
    .await?;

    // An endpoint to read only counts for its branch.
    let asked = json!({ "branch_id": first.branch, "type": "read_only",
        "autoscaling_limit_max_cu": 1 });
    let made = up.api.post(&format!("{below}/endpoints"), json!({ "endpoint": asked })).await?;
    let reader = made["endpoint"]["id"].as_str().context("an id")?.to_owned();
    let asked = Instant::now();
    let (head, _) = first.look(&up, &project, "").await?;
    let running = Instant::now();
    let asked_to_read = Instant::now();
    let client = up.connect_to(&project, &format!("endpoint={reader}"), first.at).await?;
    let reading = Instant::now();
    client.query("SELECT * FROM t LIMIT 1000", &[]).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let least = reading.elapsed();
    suspend(&up, &project, &reader).await?;
    first.ran(1000, least, asked_to_read.elapsed());
    let least = running.elapsed();
    suspend(&up, &project, &first.endpoint).await?;
    first.ran(2000, least, asked.elapsed());
    drop((client, head));

    // So does a moment of it, which goes on until the branch is put back; what it was is a branch of its
    // own that has used nothing yet. For a moment the head is woken, too: it says whose passwords are good.
    let asked = Instant::now();
    let (moment, of_moment) = other.look(&up, &project, &format!("neon_lsn:{lsn}")).await?;
    let (head, of_head) = other.look(&up, &project, "").await?;
    let put_back = json!({ "source_branch_id": first.branch, "preserve_under_name": "kept" });
    let path = format!("{below}/branches/{}/restore", other.branch);
    let restored = up.api.post(&path, put_back).await?;
    other.ran(1000, of_moment, asked.elapsed());
    let kept = restored["branch"]["parent_id"].as_str().context("it has a parent")?.to_owned();
    drop((moment, head));
    let (head, of_new) = other.look(&up, &project, "").await?;
    drop(head);
    suspend(&up, &project, &other.endpoint).await?;
    other.ran(1000, of_head + of_new, asked.elapsed());
    let new = format!("{}_1", other.branch);
    let used = eventually("all is counted", PATIENCE, async || {
        up.agrees(&project, &first).await?;
        let shown = up.agrees(&project, &other).await?;
        let kept = up.branch(&project, &kept).await?;
        for field in COUNTED.into_iter().filter(|field| *field != "written_data_bytes") {
            ensure!(kept[field] == 0, "{kept}");
        }
        let [old, new] = [&old, &new].map(|timeline| up.written_on(&project, timeline));
        let written = old.await? + new.await?;
        let field = "written_data_bytes";
        let counted = number(&shown, field)? + number(&kept, field)?;
        ensure!(counted == written, "{written}: {shown}, {kept}");
        up.add_up(&project).await?;
        Ok(shown)
    })
    .await?;

    // What it was goes, and stays counted.
    let put_back = json!({ "source_branch_id": first.branch });
    up.api.post(&path, put_back).await?;
    eventually("the timeline is gone", PATIENCE, async || {
        ensure!(up.written_on(&project, &new).await.is_err(), "it is there");
        Ok(())
    })
    .await?;
    is_the_same(&up.branch(&project, &other.branch).await?, &used)?;
    up.add_up(&project).await?;

    // Nor does a stop and a start change anything, or the end of a branch what the project used.
    let month = up.month(&project).await?;
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    up.again()?;
    is_the_same(&up.month(&project).await?, &month)?;
    let path = format!("{below}/branches/{}", other.branch);
    let deleted = up.api.done(Method::DELETE, &path, Value::Null).await?;
    is_the_same(&deleted["branch"], &used)?;
    is_the_same(&up.month(&project).await?, &month)?;
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}
