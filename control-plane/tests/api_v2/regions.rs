//! Several regions behind one control plane: what is where, and what one of them being gone does.

use super::*;

/// Two regions, each with a pageserver of its own; `here` is the default.
struct Two {
    folder: tempfile::TempDir,
    here: Pageserver,
    there: Pageserver,
}

impl Two {
    fn new() -> anyhow::Result<Two> {
        let (here, there) = (Pageserver::default(), Pageserver::default());
        Ok(Two { folder: tempfile::tempdir()?, here, there })
    }

    async fn configs(&self) -> anyhow::Result<Vec<RegionConfig>> {
        let path = self.folder.path();
        let mut there = region("there", &path.join("there"), self.there.serve().await?)?;
        there.safekeepers = vec!["127.0.0.1:2".parse()?];
        there.computes.ports = "6980-6989".parse().map_err(anyhow::Error::msg)?;
        Ok(vec![region("here", &path.join("here"), self.here.serve().await?)?, there])
    }

    async fn start(self) -> anyhow::Result<(Fixture, Pageserver)> {
        let default = "here".parse().map_err(anyhow::Error::msg)?;
        let regions = RegionConfigs::new(self.configs().await?, default);
        let regions = regions.map_err(anyhow::Error::msg)?;
        let control_plane = start_with(self.folder.path(), regions).await?;
        let Two { folder, here, there } = self;
        Ok((Fixture::over(folder, here, control_plane)?, there))
    }

    async fn again(fixture: Fixture, there: Pageserver) -> anyhow::Result<(Fixture, Pageserver)> {
        fixture.control_plane.shutdown().await;
        Two { folder: fixture.folder, here: fixture.pageserver, there }.start().await
    }
}

async fn project_in(fixture: &Fixture, region: Option<&str>) -> anyhow::Result<(String, Value)> {
    let body = json!({ "project": { "region_id": region } });
    let made = fixture.done(Method::POST, "projects", body).await?;
    Ok((text(&made["project"]["id"]), made))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_and_all_that_belongs_to_it_are_in_the_region_that_was_asked_for()
-> anyhow::Result<()> {
    let (fixture, there) = Two::new()?.start().await?;
    let regions = fixture.get("regions").await?;
    let listed: Vec<_> = regions["regions"].as_array().into_iter().flatten().collect();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[0]["region_id"], &listed[0]["default"]), (&json!("here"), &json!(true)));
    assert_eq!((&listed[1]["region_id"], &listed[1]["default"]), (&json!("there"), &json!(false)));

    let (near, made) = project_in(&fixture, None).await?;
    fixture.finished(&near, &made["operations"][0]).await?;
    let (far, made) = project_in(&fixture, Some("there")).await?;
    fixture.finished(&far, &made["operations"][0]).await?;
    assert_eq!(made["project"]["region_id"], "there");
    assert_eq!(made["endpoints"][0]["region_id"], "there");
    let branch = json!({ "branch": {}, "endpoints": [{ "type": "read_write" }] });
    let made = fixture.done(Method::POST, &format!("projects/{far}/branches"), branch).await?;
    assert_eq!(made["endpoints"][0]["region_id"], "there");
    assert_eq!(there.branches(&far).len(), 2);
    assert_eq!(there.branches(&near).len(), 0);
    assert_eq!(fixture.pageserver.branches(&far).len(), 0);
    assert_eq!(fixture.pageserver.branches(&near).len(), 1);

    let message = fixture
        .refused(Method::POST, "projects", json!({ "project": { "region_id": "moon" } }), 422)
        .await?;
    assert!(message.contains("one of here, there"), "{message}");
    let all = fixture.get("projects").await?;
    assert_eq!(all["projects"].as_array().map(Vec::len), Some(2));

    // Whichever is the default by then, and also where the catalog is lost.
    let (fixture, there) = Two::again(fixture, there).await?;
    let shown = fixture.get(&format!("projects/{far}")).await?;
    assert_eq!(shown["project"]["region_id"], "there");
    fixture.control_plane.shutdown().await;
    for end in ["", "-wal", "-shm"] {
        let file = fixture.folder.path().join(format!("catalog/catalog.sqlite{end}"));
        let _absent = fs::remove_file(file);
    }
    let lost = Two { folder: fixture.folder, here: fixture.pageserver, there };
    let (fixture, _there) = lost.start().await?;
    for (project, region) in [(&near, "here"), (&far, "there")] {
        let shown = fixture.get(&format!("projects/{project}")).await?;
        assert_eq!(shown["project"]["region_id"], region);
    }
    fixture.control_plane.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_hangs_delays_no_other_and_is_named_to_who_needs_it() -> anyhow::Result<()> {
    let (fixture, there) = Two::new()?.start().await?;
    let (far, made) = project_in(&fixture, Some("there")).await?;
    fixture.finished(&far, &made["operations"][0]).await?;
    there.is_hanging.store(true, Ordering::SeqCst);
    // What only the catalog knows is answered, and is written down.
    let (waiting, made) = project_in(&fixture, Some("there")).await?;
    let waits_for = made["operations"][0].clone();
    assert_eq!(fixture.get(&format!("projects/{far}")).await?["project"]["region_id"], "there");
    // The other region's tenants are made meanwhile, and all else works there.
    let near = fixture.project().await?;
    fixture.done(Method::POST, &format!("projects/{near}/branches"), json!({})).await?;
    fixture.get("templates").await?;
    // What needs the region ends, and says which it is.
    let path = format!("projects/{far}/branches");
    let message = fixture.refused(Method::POST, &path, json!({}), 503).await?;
    assert!(message.contains("region there cannot be used now"), "{message}");
    let regions = fixture.get("regions").await?;
    assert_eq!(regions["regions"][0]["available"], true);
    assert_eq!(regions["regions"][1]["available"], false);
    // It comes back: what waited is done.
    there.is_hanging.store(false, Ordering::SeqCst);
    fixture.finished(&waiting, &waits_for).await?;
    fixture.control_plane.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_used_in_its_own_region_alone() -> anyhow::Result<()> {
    let (fixture, there) = Two::new()?.start().await?;
    there.templates.lock().insert("shop".to_owned());
    let of = |region: &str| json!({ "project": { "region_id": region, "template": "shop" } });
    fixture.done(Method::POST, "projects", of("there")).await?;
    let message = fixture.refused(Method::POST, "projects", of("here"), 422).await?;
    let expected = "is in region there, and the project would be in region here";
    assert!(message.contains(expected), "{message}");
    let shown = fixture.get("templates/shop").await?;
    assert_eq!(shown["template"]["region_id"], "there");
    let path = "templates/shop?region_id=here";
    fixture.refused(Method::GET, path, Value::Null, 404).await?;
    // Each region's is another one.
    fixture.pageserver.templates.lock().insert("shop".to_owned());
    fixture.done(Method::POST, "projects", of("here")).await?;
    assert_eq!(fixture.get("templates/shop").await?["template"]["region_id"], "here");
    let all = fixture.get("templates").await?;
    let regions: Vec<_> = all["templates"].as_array().into_iter().flatten().collect();
    assert_eq!(regions.len(), 2);
    assert_eq!(regions[0]["region_id"], "here", "the default one's first");
    fixture.control_plane.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_cannot_be_left_out_that_has_projects() -> anyhow::Result<()> {
    let (fixture, _there) = Two::new()?.start().await?;
    project_in(&fixture, Some("there")).await?;
    fixture.control_plane.shutdown().await;
    let folder = fixture.folder.path();
    let one = RegionConfigs::one(region("here", folder, fixture.pageserver.serve().await?)?);
    let refused = start_with(folder, one).await.err().map(|error| error.to_string());
    let message = refused.unwrap_or_default();
    assert!(message.contains("1 project is in region there"), "{message:?}");
    assert!(message.contains("configured: here"), "{message:?}");
    Ok(())
}
