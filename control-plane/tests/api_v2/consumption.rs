//! What projects used, as the pageserver tells it; and quotas, where no compute is needed to see them.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde_json::{Value, json};

use crate::Fixture;

/// A project's frame of this month.
async fn month(fixture: &Fixture, project: &str) -> anyhow::Result<Value> {
    let path = format!("consumption_history/projects?granularity=monthly&project_ids={project}");
    let shown = fixture.get(&path).await?;
    Ok(shown["projects"][0]["periods"][0]["consumption"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_counted_once_however_often_the_control_plane_starts()
-> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let projects = [fixture.project().await?, fixture.project().await?];
    // Nothing is read before the next start; the others are no projects.
    for (name, used) in
        [(&*projects[0], [100, 8192]), (&projects[1], [7, 64]), ("a-tenant", [1; 2])]
    {
        fixture.pageserver.usage.lock().insert(name.to_owned(), used);
    }
    let mut fixture = fixture.again().await?;
    for (written, expected) in [(100, 100), (250, 250), (240, 250), (260, 260)] {
        fixture.pageserver.usage.lock().insert(projects[0].clone(), [written, 8192]);
        fixture = fixture.again().await?;
        let shown = crate::eventually(async || {
            let shown = month(&fixture, &projects[0]).await?;
            anyhow::ensure!(shown["written_data_bytes"] == expected, "{shown}");
            Ok(shown)
        })
        .await?;
        assert_eq!(shown["logical_size_bytes"], 8192);
        assert_eq!(shown["synthetic_storage_size_bytes"], 4096);
        let path = format!("projects/{}", projects[0]);
        let project = fixture.get(&path).await?["project"].clone();
        assert_eq!(project["written_data_bytes"], expected);
        let branch = fixture.get(&format!("{path}/branches/br-{}", projects[0])).await?;
        assert_eq!(branch["branch"]["written_data_bytes"], expected);
        assert_eq!(project["synthetic_storage_size"], 4096);
    }
    let other = month(&fixture, &projects[1]).await?;
    assert_eq!(
        (&other["written_data_bytes"], &other["active_time_seconds"]),
        (&7.into(), &0.into())
    );

    let all = fixture.get("consumption_history/account?granularity=monthly").await?;
    assert_eq!(all["periods"][0]["consumption"][0]["written_data_bytes"], 267);
    // A page at a time, in the order of the ids.
    let mut sorted = projects.clone();
    sorted.sort_unstable();
    let mut cursor = String::new();
    for id in &sorted {
        let path = format!("consumption_history/projects?limit=1&cursor={cursor}");
        let page = fixture.get(&path).await?;
        assert_eq!(page["projects"][0]["project_id"], *id);
        cursor = crate::text(&page["pagination"]["cursor"]);
    }
    let path = format!("consumption_history/projects?cursor={cursor}");
    assert_eq!(fixture.get(&path).await?["projects"], json!([]));

    // What a deleted project used stays.
    fixture.done(Method::DELETE, &format!("projects/{}", projects[0]), Value::Null).await?;
    assert_eq!(month(&fixture, &projects[0]).await?["written_data_bytes"], 260);
    for bad in ["granularity=weekly", "from=yesterday", "from=1999-01-01T00:00:00Z", "limit=0"] {
        let path = format!("consumption_history/projects?{bad}");
        fixture.refused(Method::GET, &path, Value::Null, 400).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pageserver_could_not_tell_at_the_start_is_read_when_it_is_back()
-> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    fixture.pageserver.usage.lock().insert(project.clone(), [100, 8192]);
    fixture.pageserver.is_away.store(true, Ordering::SeqCst);
    let fixture = fixture.again().await?;
    crate::eventually(async || {
        let refused = fixture.pageserver.refused_lists.load(Ordering::SeqCst);
        anyhow::ensure!(refused > 0, "it was not asked");
        Ok(())
    })
    .await?;
    fixture.pageserver.is_away.store(false, Ordering::SeqCst);
    crate::eventually(async || {
        let shown = month(&fixture, &project).await?;
        anyhow::ensure!(shown["written_data_bytes"] == 100, "{shown}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_above_its_quota_is_told_so_everywhere_and_starts_again_when_it_is_raised()
-> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let project = fixture.project().await?;
    fixture.pageserver.usage.lock().insert(project.clone(), [500, 9000]);
    let fixture = fixture.again().await?;
    let path = format!("projects/{project}");
    let start = format!("{path}/endpoints/ep-{project}/start");
    let set = async |quota: Value| {
        let body = json!({ "project": { "settings": { "quota": quota } } });
        fixture.done(Method::PATCH, &path, body).await
    };
    for (quota, limit, code) in [
        ("written_data_bytes", 500, "WRITTEN_DATA_QUOTA_EXCEEDED"),
        ("logical_size_bytes", 8999, "LOGICAL_SIZE_QUOTA_EXCEEDED"),
    ] {
        set(json!({ quota: limit })).await?;
        let (status, refused) = crate::eventually(async || {
            let (status, answer) = fixture.ask(Method::POST, &start, None).await?;
            anyhow::ensure!(!status.is_success(), "{answer}");
            Ok((status, answer))
        })
        .await?;
        assert_eq!((status.as_u16(), &refused["code"]), (422, &code.into()), "{refused}");
        let said = crate::text(&refused["message"]);
        assert!(said.contains(quota) && said.contains(&limit.to_string()), "{said}");
        let shown = fixture.get(&path).await?["project"]["quota_states"].clone();
        let state = shown.as_array().into_iter().flatten().find(|state| state["quota"] == quota);
        let state = state.ok_or_else(|| anyhow::anyhow!("{shown}"))?;
        assert_eq!((&state["exceeded"], &state["reason"]), (&true.into(), &refused["message"]));
        for (of, field) in [
            (format!("{path}/endpoints/ep-{project}"), "/endpoint/quota_exceeded"),
            (format!("{path}/endpoints"), "/endpoints/0/quota_exceeded"),
            (format!("{path}/branches/br-{project}"), "/branch/quota_exceeded"),
            (format!("{path}/branches"), "/branches/0/quota_exceeded"),
        ] {
            let shown = fixture.get(&of).await?;
            assert_eq!(shown.pointer(field), Some(&refused["message"]), "{of}");
        }
        // What is not said of a quota stays as it is.
        let shown = set(json!({ "data_transfer_bytes": 1 })).await?;
        assert_eq!(shown["project"]["settings"]["quota"][quota], limit);
        set(json!({ quota: 1 << 20, "data_transfer_bytes": 0 })).await?;
        fixture.done(Method::POST, &start, Value::Null).await?;
        let shown = fixture.get(&format!("{path}/branches/br-{project}")).await?;
        assert_eq!(shown["branch"].get("quota_exceeded"), None, "{shown}");
    }
    let bad = json!({ "project": { "settings": { "quota": { "active_time_seconds": "1h" } } } });
    fixture.refused(Method::PATCH, &path, bad.clone(), 400).await?;
    fixture.refused(Method::POST, "projects", bad, 400).await?;
    Ok(())
}
