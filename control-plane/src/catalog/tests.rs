//! The catalog on a real file.

mod used;

use anyhow::Context;
use serde_json::json;

use super::{
    branches::Branch,
    consumption::Used,
    endpoints::{Endpoint, Kind, READ_ONLY_MAX},
    operations::{Action, New, Status},
    projects::{Listed, Project},
    rebuild::{Tenant, TenantTimeline},
    roles::{Change, Role, Seen},
    templates::Template,
    timelines::{Moment, State, Timeline},
    *,
};
use crate::RegionId;

const NOW: Time = 1_772_366_400_000_000;

fn here() -> RegionId {
    "here".parse().expect("a good id")
}

fn there() -> RegionId {
    "there".parse().expect("a good id")
}

fn project(id: &str) -> Project {
    Project {
        id: id.to_owned(),
        region: here(),
        name: format!("Shop {id}"),
        template: None,
        history_seconds: 3600,
        settings: json!({ "quota": {} }),
        endpoint_settings: json!({}),
        default_branch: ids::first_branch(id),
        tenant: None,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
    }
}

fn branch(id: &str, project: &str, timeline: &str) -> Branch {
    Branch::new(id, project, timeline, NOW)
}

fn timeline(project: &str, name: &str, parent: Option<&str>) -> Timeline {
    let moment = parent.map(|_| Moment::Lsn("0/16B3748".to_owned()));
    Timeline {
        project: project.to_owned(),
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        moment,
    }
}

fn role(branch: &str, name: &str) -> Role {
    Role::new(branch, name, Some("secret".to_owned()), NOW)
}

/// A project `p` with its first branch.
fn insert_project(catalog: &Connection, id: &str) -> Result<Branch, Error> {
    projects::insert(catalog, &project(id))?;
    timelines::insert(catalog, &timeline(id, timelines::FIRST, None), State::Wanted)?;
    let branch = branch(&ids::first_branch(id), id, timelines::FIRST);
    branches::insert(catalog, &branch)?;
    Ok(branch)
}

fn open() -> anyhow::Result<(tempfile::TempDir, Catalog)> {
    let folder = tempfile::tempdir()?;
    let (catalog, is_new) = Catalog::open(&folder.path().join("catalog"))?;
    assert!(is_new);
    Ok((folder, catalog))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_the_file_is_opened_again() -> anyhow::Result<()> {
    let (folder, catalog) = open()?;
    let writes = (0..100).map(|number| {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            let id = format!("p{number:03}");
            catalog.write(move |catalog| insert_project(catalog, &id)).await
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await??;
    }
    catalog.close();
    let refused = catalog.write(|_| Ok(())).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    drop(catalog);
    let (catalog, is_new) = Catalog::open(&folder.path().join("catalog"))?;
    assert!(!is_new);
    let listed = Listed { limit: 1000, ..Listed::default() };
    let found = catalog.read(move |catalog| projects::list(catalog, &listed)).await?;
    assert_eq!(found.len(), 100);
    assert_eq!(found[7], project("p007"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_leaves_nothing_and_spares_those_that_share_its_commit()
-> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let writes = (0..50).map(|number| {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            let id = format!("p{number:02}");
            let write = move |catalog: &Connection| {
                insert_project(catalog, &id)?;
                if number % 2 == 1 { Err(Error::Refused("odd".to_owned())) } else { Ok(()) }
            };
            catalog.write(write).await
        })
    });
    let mut refused = 0;
    for write in writes.collect::<Vec<_>>() {
        refused += usize::from(write.await?.is_err());
    }
    assert_eq!(refused, 25);
    let listed = Listed { limit: 1000, ..Listed::default() };
    let found = catalog.read(move |catalog| projects::list(catalog, &listed)).await?;
    assert_eq!(found.len(), 25);
    assert!(found.iter().all(|project| project.id.ends_with(['0', '2', '4', '6', '8'])));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_program_or_version_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("other");
    Connection::open(&path)?.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (a)")?;
    assert!(matches!(Catalog::open(&path), Err(Error::Corrupt(_))));
    std::fs::write(folder.path().join("text"), "x".repeat(4096))?;
    assert!(matches!(Catalog::open(&folder.path().join("text")), Err(Error::Corrupt(_))));
    let path = folder.path().join("newer");
    drop(Catalog::open(&path)?);
    Connection::open(&path)?.execute_batch("PRAGMA user_version = 99")?;
    let refused = Catalog::open(&path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("99"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn projects_are_found_by_a_part_of_their_name_and_listed_in_pages() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    for id in ["a", "b", "c"] {
        catalog.write(move |catalog| insert_project(catalog, id)).await?;
    }
    catalog
        .write(|catalog| {
            projects::update(catalog, &Project { deleted_at: Some(NOW), ..project("b") })
        })
        .await?;
    let ids = async |listed: Listed| -> anyhow::Result<Vec<String>> {
        let found = catalog.read(move |catalog| projects::list(catalog, &listed)).await?;
        Ok(found.into_iter().map(|project| project.id).collect())
    };
    let all = Listed { limit: 10, ..Listed::default() };
    assert_eq!(ids(all.clone()).await?, ["a", "c"]);
    assert_eq!(ids(Listed { limit: 1, ..all.clone() }).await?, ["a"]);
    assert_eq!(ids(Listed { after: Some("a".to_owned()), ..all.clone() }).await?, ["c"]);
    assert_eq!(ids(Listed { search: Some("sHOP C".to_owned()), ..all.clone() }).await?, ["c"]);
    assert_eq!(ids(Listed { deleted: true, ..all }).await?, ["b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_branchs_timeline_stays_until_nothing_came_from_it() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let names = |found: Vec<Timeline>| -> Vec<String> {
        found.into_iter().map(|timeline| timeline.name).collect()
    };
    let removable =
        async || catalog.read(|catalog| timelines::removable(catalog, &here(), 10)).await;
    catalog
        .write(|catalog| {
            let first = insert_project(catalog, "p")?;
            timelines::insert(catalog, &timeline("p", "parent", Some("main")), State::Made)?;
            timelines::insert(catalog, &timeline("p", "child", Some("parent")), State::Made)?;
            branches::insert(catalog, &branch("parent", "p", "parent"))?;
            let mut child = branch("child", "p", "child");
            child.parent = Some("parent".to_owned());
            branches::insert(catalog, &child)?;
            branches::remove(catalog, &branch("parent", "p", "parent"))?;
            assert_eq!(branches::get(catalog, "p", "child")?.parent, None);
            // The first timeline goes only with its tenant.
            branches::remove(catalog, &first)
        })
        .await?;
    assert_eq!(names(removable().await?), Vec::<String>::new());
    catalog
        .write(|catalog| branches::remove(catalog, &branches::get(catalog, "p", "child")?))
        .await?;
    assert_eq!(names(removable().await?), ["child"]);
    catalog.write(|catalog| timelines::remove(catalog, "p", "child")).await?;
    assert_eq!(names(removable().await?), ["parent"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_found_by_the_verifier_that_postgres_has() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        let branch = insert_project(catalog, "p")?.id;
        let first = role(&branch, "app");
        roles::put(catalog, &first)?;
        assert_eq!(roles::password(catalog, &first)?.as_deref(), Some("secret"));
        assert!(roles::set_verifier(catalog, "p", &first, "V1")?);
        // Reset: the first verifier's password is still known.
        let second = Role { password: Some("other".to_owned()), ..role(&branch, "app") };
        roles::put(catalog, &second)?;
        assert!(!roles::set_verifier(catalog, "p", &first, "V1")?, "an old password came back");
        assert!(roles::set_verifier(catalog, "p", &second, "V2")?);
        let known =
            |catalog: &Connection| roles::password(catalog, &roles::get(catalog, &branch, "app")?);
        assert_eq!(known(catalog)?.as_deref(), Some("other"));
        // A branch of the past gets today's.
        roles::put(catalog, &Role { login: false, password: None, ..role(&branch, "group") })?;
        roles::keep_verifiers(catalog, &branch)?;
        let waiting = roles::waiting(catalog, &branch)?;
        let keep = Change::Verifier { name: "app".to_owned() };
        assert_eq!(waiting.into_iter().map(|(_, change)| change).collect::<Vec<_>>(), [keep]);
        // By SQL: Postgres has the first one again, a role of SQL's making, and no other.
        let seen = |name: &str, verifier: &str| Seen {
            name: name.to_owned(),
            verifier: Some(verifier.to_owned()),
            login: true,
        };
        roles::put(catalog, &role(&branch, "gone"))?;
        let all = [seen("app", "V1"), seen("by-sql", "V3")];
        roles::take_over(catalog, &branch, &all, NOW + 1)?;
        assert_eq!(known(catalog)?.as_deref(), Some("secret"));
        let names: Vec<_> = roles::list(catalog, &branch)?.into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["app", "by-sql"]);
        let by_sql = roles::get(catalog, &branch, "by-sql")?;
        assert_eq!(roles::password(catalog, &by_sql)?, None);
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_begins_with_its_parents_roles_databases_and_waiting_changes() -> anyhow::Result<()>
{
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        let parent = insert_project(catalog, "p")?.id;
        roles::put(catalog, &role(&parent, "app"))?;
        databases::insert(catalog, &parent, "shop", "app", NOW)?;
        let change = Change::First { role: "app".to_owned(), database: "shop".to_owned() };
        let number = roles::wait(catalog, &parent, &change)?;
        branches::copy_contents(catalog, &parent, "child")?;
        roles::done(catalog, number)?;
        assert_eq!(roles::waiting(catalog, &parent)?, []);
        let waiting = roles::waiting(catalog, "child")?;
        assert_eq!(waiting.into_iter().map(|(_, change)| change).collect::<Vec<_>>(), [change]);
        assert_eq!(databases::get(catalog, "child", "shop")?.owner, "app");
        assert_eq!(roles::get(catalog, "child", "app")?.password.as_deref(), Some("secret"));
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_over_stays_as_it_ended() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        insert_project(catalog, "p")?;
        let new = |id: &str, action| New {
            id: id.to_owned(),
            project: "p".to_owned(),
            branch: None,
            endpoint: None,
            action,
            status: Status::Running,
        };
        operations::insert(catalog, &new("a", Action::ApplyConfig), NOW)?;
        operations::insert(catalog, &new("b", Action::StartCompute), NOW)?;
        operations::insert(catalog, &new("c", Action::CreateBranch), NOW)?;
        operations::set_status(catalog, "a", Status::Failed, Some("no"), NOW + 1)?;
        operations::end_after_crash(catalog, NOW + 2)?;
        let all = operations::list(catalog, "p", None, 10)?;
        let ends: Vec<_> =
            all.iter().map(|operation| (&*operation.id, &*operation.status)).collect();
        // What makes a branch is finished or undone by who knows the pageserver.
        assert_eq!(ends, [("c", "running"), ("b", "failed"), ("a", "failed")]);
        assert_eq!(all[2].error.as_deref(), Some("no"));
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_tried_again_finds_what_it_made() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        assert_eq!(retries::find(catalog, "key", &[1; 32])?, None);
        retries::keep(catalog, "key", &[1; 32], "p", NOW)?;
        assert_eq!(retries::find(catalog, "key", &[1; 32])?.as_deref(), Some("p"));
        let other = retries::find(catalog, "key", &[2; 32]);
        assert!(matches!(other, Err(Error::Refused(_))), "{other:?}");
        retries::prune(catalog, NOW + 1)?;
        assert_eq!(retries::find(catalog, "key", &[2; 32])?, None);
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_made_of_the_tenants_and_keeps_the_endpoints_ids() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let timeline = |name: &str, parent: Option<&str>| TenantTimeline {
        name: name.to_owned(),
        parent: parent.map(str::to_owned),
        branch_point: "0/16B3748".to_owned(),
        created_at: NOW,
    };
    let tenant = Tenant {
        region: here(),
        name: "misty-lake-1".to_owned(),
        id: "00000000000000000000000000000001".to_owned(),
        history_seconds: 60,
        created_at: NOW,
        // The branch br-x was put back once: its newest timeline is what it stands for.
        timelines: vec![
            timeline("main", None),
            timeline("br-x_0", Some("main")),
            timeline("br-x_1", Some("br-x_0")),
            timeline("by-hand", Some("main")),
        ],
    };
    let write = move |catalog: &Connection| {
        rebuild::add(catalog, &tenant)?;
        let copied = Tenant { region: there(), ..tenant.clone() };
        let twice = rebuild::add(catalog, &copied).expect_err("it is in another region");
        assert!(twice.to_string().contains("region here and region there both have"), "{twice}");
        let project = projects::get(catalog, "misty-lake-1")?;
        assert_eq!(project.tenant.as_deref(), Some("00000000000000000000000000000001"));
        assert_eq!(project.default_branch, "br-misty-lake-1");
        let first = branches::get(catalog, "misty-lake-1", "br-misty-lake-1")?;
        assert_eq!((first.name.as_str(), first.timeline.as_str()), ("main", "main"));
        let again = branches::get(catalog, "misty-lake-1", "br-x")?;
        assert_eq!(again.timeline, "br-x_1");
        assert_eq!(again.parent.as_deref(), Some("br-x-0"));
        let ids: Vec<_> =
            endpoints::list(catalog, "misty-lake-1")?.into_iter().map(|e: Endpoint| e.id).collect();
        assert_eq!(ids, ["ep-misty-lake-1", "ep-misty-lake-1-by-hand", "ep-x", "ep-x-0",]);
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

/// The default branch, too, whose first timeline has no number.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_timeline_of_a_branch_that_was_put_back_is_found_again() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let (lost, new) = ("br-lost", "br-new");
    let write = move |catalog: &Connection| {
        let names = ["main", "br-lost_0", "br-lost_1", "br-lost_7", "by-hand"];
        let mut timelines: Vec<_> = names.map(|name| timeline("lost", name, None)).into();
        for timeline in &timelines {
            timelines::insert(catalog, timeline, State::Made)?;
        }
        // One that is gone leaves no gap to be filled: it would be older than the newest.
        let put_back = timelines::next_name(catalog, "lost", lost)?;
        assert_eq!(put_back, "br-lost_8");
        assert_eq!(timelines::next_name(catalog, "lost", new)?, "br-new_0");
        timelines.push(timeline("lost", &put_back, None));
        let found = |timeline: &Timeline| TenantTimeline {
            name: timeline.name.clone(),
            parent: None,
            branch_point: "0/16B3748".to_owned(),
            created_at: NOW,
        };
        catalog.execute_batch("DELETE FROM timelines")?;
        let tenant = Tenant {
            region: here(),
            name: "lost".to_owned(),
            id: "00000000000000000000000000000001".to_owned(),
            history_seconds: 60,
            created_at: NOW,
            timelines: timelines.iter().map(found).collect(),
        };
        rebuild::add(catalog, &tenant)?;
        let first = branches::get(catalog, "lost", lost)?;
        assert_eq!((first.name.as_str(), first.timeline), ("main", put_back));
        let kept = branches::get(catalog, "lost", "br-lost-main")?;
        assert_eq!(kept.timeline, "main");
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

/// A file as an earlier version wrote it, with a project, an endpoint, and from version 2 on a template.
fn write_old(path: &Path, version: usize) -> anyhow::Result<()> {
    let tables = [
        include_str!("schema.sql"),
        include_str!("schema_2.sql"),
        include_str!("schema_3.sql"),
        include_str!("schema_4.sql"),
    ];
    let old = Connection::open(path)?;
    old.execute_batch(&tables.get(..version).context("an earlier version")?.concat())?;
    let here = if version > 3 { "'here'," } else { "" };
    let region = if version > 3 { ", 'here'" } else { "" };
    old.execute_batch(&format!(
        "PRAGMA application_id = 0x6f666673; PRAGMA user_version = {version}; \
         INSERT INTO projects \
         VALUES ('p', 'Shop', NULL, 60, '{{}}', '{{}}', 'br-p', NULL, 1, 1, NULL{region}); \
         INSERT INTO timelines VALUES ('p', 'main', NULL, NULL, 'made'); \
         INSERT INTO branches \
         VALUES ('br-p', 'p', 'main', 'main', NULL, NULL, NULL, 0, '{{}}', NULL, NULL, 1, 1)"
    ))?;
    let kind = if version > 2 { ", 'read_write'" } else { "" };
    old.execute_batch(&format!(
        "INSERT INTO endpoints \
         VALUES ('ep-p'{kind}, 'p', 'br-p', NULL, 0.25, 1, 0, '{{}}', 0, 1, 1, NULL, NULL)"
    ))?;
    if version > 1 {
        old.execute_batch(&format!(
            "INSERT INTO templates VALUES ({here} 'shop', 'p', 'br-p', 'o', 'made', 1)"
        ))?;
        // What it has written until then was counted.
        old.execute_batch("INSERT INTO meters VALUES ('p', 100, 8, 8, '{}')")?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_wrote_is_in_the_default_region_and_stays_there()
-> anyhow::Result<()> {
    for version in [1, 2, 3, 4] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("catalog");
        write_old(&path, version)?;
        // Of another default later, too.
        for default in [here(), there()] {
            let (catalog, is_new) = Catalog::open(&path)?;
            assert!(!is_new);
            let write = move |catalog: &Connection| {
                regions::adopt(catalog, &default)?;
                assert_eq!(consumption::used_since(catalog, "p", 0)?, Used::default());
                // What there was is to read and write.
                let endpoint = endpoints::of_branch(catalog, "br-p")?;
                assert_eq!(endpoint.map(|it| it.kind), Some(Kind::ReadWrite));
                assert_eq!(projects::get(catalog, "p")?.region, here(), "version {version}");
                assert_eq!(projects::without_tenant(catalog, &here(), 10)?.len(), 1);
                assert_eq!(projects::without_tenant(catalog, &there(), 10)?, []);
                let template = templates::find(catalog, &here(), "shop")?;
                assert_eq!(template.is_some(), version > 1);
                assert_eq!(regions::counts(catalog)?, [(here(), 1)]);
                let elsewhere = regions::elsewhere(catalog, &there())?;
                assert_eq!(elsewhere, [("p".to_owned(), here())]);
                Ok(())
            };
            catalog.write(write).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_goes_only_where_no_project_uses_it_and_one_that_goes_is_not_used()
-> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        let here = here();
        let template = |name: &str| Template {
            region: here.clone(),
            name: name.to_owned(),
            project: "p".to_owned(),
            branch: "br-p".to_owned(),
            operation: "o".to_owned(),
            is_making: true,
            created_at: NOW,
        };
        for name in ["shop", "other"] {
            templates::insert(catalog, &template(name))?;
            assert!(matches!(templates::insert(catalog, &template(name)), Err(Error::Exists(_))));
            let early = templates::begin_removal(catalog, &here, [name, "id"], NOW);
            assert!(matches!(early, Err(Error::Exists(_))), "{early:?}");
        }
        templates::set_made(catalog, &here, "shop")?;
        projects::insert(catalog, &Project { template: Some("shop".to_owned()), ..project("a") })?;
        projects::insert(catalog, &Project { template: Some("id".to_owned()), ..project("b") })?;
        for (names, user) in [(["shop", "none"], "a"), (["none", "id"], "b")] {
            let used =
                templates::begin_removal(catalog, &here, names, NOW).expect_err("it is used");
            assert!(used.to_string().contains(&format!("projects {user}")), "{used}");
        }
        // One that can be recovered uses it still.
        let deleted = Project { deleted_at: Some(NOW), ..projects::get(catalog, "a")? };
        projects::update(catalog, &deleted)?;
        assert!(templates::begin_removal(catalog, &here, ["shop", "id"], NOW).is_err());
        // Another region's is another template.
        templates::begin_removal(catalog, &there(), ["shop", "id"], NOW)?;
        templates::refuse_going(catalog, &here, "shop")?;
        projects::remove(catalog, "a")?;
        projects::remove(catalog, "b")?;
        templates::begin_removal(catalog, &here, ["shop", "id"], NOW)?;
        assert!(templates::refuse_going(catalog, &here, "shop").is_err());
        assert!(templates::refuse_going(catalog, &here, "id").is_err());
        assert_eq!(templates::find(catalog, &here, "shop")?, None);
        // The pageserver refused.
        templates::end_removal(catalog, &here, ["shop", "id"])?;
        templates::refuse_going(catalog, &here, "shop")?;
        templates::refuse_going(catalog, &here, "id")?;
        assert!(templates::find(catalog, &here, "shop")?.is_some());
        templates::begin_removal(catalog, &here, ["shop", "id"], NOW)?;
        templates::end_after_crash(catalog)?;
        let left: Vec<_> = templates::list(catalog, &here)?.into_iter().map(|it| it.name).collect();
        assert_eq!(left, ["shop"], "what was being made is forgotten");
        templates::refuse_going(catalog, &here, "shop")
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_has_one_endpoint_to_write_and_some_to_read_only() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        let read_only = || Endpoint::of_kind(Kind::ReadOnly, "p", "br-p", NOW);
        let first = read_only();
        endpoints::insert(catalog, &first)?;
        assert_eq!(endpoints::of_branch(catalog, "br-p")?, None, "it is not to write");
        let to_write = Endpoint::new("p", "br-p", NOW + 1);
        endpoints::insert(catalog, &to_write)?;
        assert!(matches!(endpoints::insert(catalog, &to_write), Err(Error::Exists(_))));
        assert_eq!(endpoints::all_of_branch(catalog, "br-p")?, [to_write.clone(), first.clone()]);
        for _ in 1..READ_ONLY_MAX {
            endpoints::insert(catalog, &read_only())?;
        }
        assert!(matches!(endpoints::insert(catalog, &read_only()), Err(Error::Refused(_))));
        endpoints::remove(catalog, &first.id)?;
        endpoints::insert(catalog, &read_only())?;
        assert_eq!(endpoints::of_branch(catalog, "br-p")?, Some(to_write));
        Ok(())
    };
    Ok(catalog.write(write).await?)
}
