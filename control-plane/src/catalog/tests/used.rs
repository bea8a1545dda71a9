//! What projects and branches used.

use super::*;
use crate::catalog::consumption::{Hour, Reading, Sizes, Used};

/// The month in which it is counted, and the hour of it.
const MONTH: Hour = 490_896;
const HOUR: Hour = MONTH + 3;

/// What was used on one of a project's timelines.
fn use_of(catalog: &Connection, timeline: &str, bytes: u64) -> Result<(), Error> {
    let used = Used { active_us: bytes, transfer_bytes: bytes, ..Used::default() };
    consumption::add(catalog, "p", timeline, HOUR, used)
}

/// What a branch used this month, and the bytes of WAL of it.
fn used_by(catalog: &Connection, branch: &str) -> Result<(u64, u64), Error> {
    let used = branch_consumption::used_in(catalog, branch, MONTH)?;
    assert_eq!(used.active_us, used.transfer_bytes);
    Ok((used.transfer_bytes, used.written_bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grew_is_counted_once_and_a_meter_that_fell_counts_again_above_where_it_was()
-> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let reading = |written: u64, held: u64| Reading {
        written_bytes: Some(written),
        sizes: Sizes { logical_bytes: held, stored_bytes: held },
        held_bytes: [("main".to_owned(), held)].into(),
    };
    let write = move |catalog: &Connection| {
        insert_project(catalog, "p")?;
        insert_project(catalog, "rebuilt")?;
        consumption::begin_anew(catalog, "rebuilt")?;
        let used = |project| consumption::used_since(catalog, project, 0);
        for (hour, written, expected) in
            [(10, 100, 100), (10, 100, 100), (11, 150, 150), (11, 120, 150), (12, 160, 160)]
        {
            for project in ["p", "rebuilt"] {
                let by_timeline = [(timelines::FIRST.to_owned(), written)].into();
                let new = reading(written, 8);
                consumption::read(catalog, project, hour, new.clone(), &by_timeline)?;
                assert!(!consumption::is_new(catalog, project, &new, &by_timeline)?);
            }
            assert_eq!(used("p")?.written_bytes, expected);
            // What it used before is not known.
            assert_eq!(used("rebuilt")?.written_bytes, expected - 100);
            let of_branch =
                |id: &str| branch_consumption::used_in(catalog, &ids::first_branch(id), 0);
            assert_eq!(of_branch("p")?, used("p")?);
            assert_eq!(of_branch("rebuilt")?, used("rebuilt")?);
        }
        assert_eq!(consumption::used_since(catalog, "p", 11)?.written_bytes, 60);
        consumption::read(catalog, "p", 13, reading(160, 9), &[].into())?;
        let used = Used { active_us: 5, compute_mcu_us: 6, written_bytes: 0, transfer_bytes: 7 };
        consumption::add(catalog, "p", timelines::FIRST, 13, used)?;
        consumption::add(catalog, "p", timelines::FIRST, 13, used)?;
        let (rows, before) = consumption::between(catalog, "p", 11, 14)?;
        assert_eq!(before.stored_bytes, 8);
        assert_eq!(rows.iter().map(|row| row.hour).collect::<Vec<_>>(), [11, 12, 13]);
        assert_eq!((rows[0].sizes, rows[0].used.written_bytes), (None, 50));
        assert_eq!(rows[2].sizes.map(|sizes| sizes.logical_bytes), Some(9));
        assert_eq!((rows[2].used.active_us, rows[2].used.transfer_bytes), (10, 14));

        // The hours of a project outlive it, until they are old.
        projects::remove(catalog, "p")?;
        assert_eq!(consumption::projects(catalog, "", 10)?, ["p", "rebuilt"]);
        consumption::prune(catalog, 12)?;
        assert_eq!(consumption::between(catalog, "p", 0, 20)?.0.len(), 2);
        // How large one is that is there is said by its last hour, however old.
        consumption::prune(catalog, 1000)?;
        assert_eq!(consumption::projects(catalog, "", 10)?, ["rebuilt"]);
        let (rows, _) = consumption::between(catalog, "rebuilt", 0, 20)?;
        assert_eq!(rows.iter().map(|row| row.hour).collect::<Vec<_>>(), [10]);
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_on_a_timeline_is_its_branchs_and_that_of_who_left_it_until_all_is_counted()
-> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        let first = insert_project(catalog, "p")?;
        timelines::insert(catalog, &timeline("p", "br-x_0", Some("main")), State::Made)?;
        branches::insert(catalog, &branch("br-x", "p", "br-x_0"))?;
        use_of(catalog, "main", 1)?;
        use_of(catalog, "br-x_0", 10)?;
        let written = [("main".to_owned(), 100), ("br-x_0".to_owned(), 1000)].into();
        let total = |bytes| Reading { written_bytes: Some(bytes), ..Reading::default() };
        consumption::read(catalog, "p", HOUR, total(1100), &written)?;
        assert_eq!(used_by(catalog, &first.id)?, (1, 100));
        assert_eq!(used_by(catalog, "br-x")?, (10, 1000));

        // It is put back, and what it was is a branch of its own, which has used nothing.
        timelines::insert(catalog, &timeline("p", "br-x_1", Some("main")), State::Made)?;
        timelines::count_for(catalog, "p", "br-x_0", "br-x")?;
        branches::update(catalog, &branch("br-x", "p", "br-x_1"))?;
        branches::insert(catalog, &branch("br-kept", "p", "br-x_0"))?;
        use_of(catalog, "br-x_0", 20)?;
        use_of(catalog, "br-x_1", 40)?;
        let written = [("br-x_0".to_owned(), 1200), ("br-x_1".to_owned(), 30)].into();
        consumption::read(catalog, "p", HOUR, total(1330), &written)?;
        assert_eq!(used_by(catalog, "br-x")?, (70, 1230));
        assert_eq!(used_by(catalog, "br-kept")?, (0, 0));
        assert_eq!(timelines::left(catalog, &here())?, [("p".to_owned(), "br-x_0".to_owned())]);
        timelines::leave(catalog, "p", "br-x_0")?;
        assert_eq!(timelines::left(catalog, &here())?, []);
        use_of(catalog, "br-x_0", 80)?;
        assert_eq!(used_by(catalog, "br-x")?, (70, 1230));
        assert_eq!(used_by(catalog, "br-kept")?, (80, 0));

        // It is put back once more, and what it was goes: what is counted late is its own still.
        timelines::insert(catalog, &timeline("p", "br-x_2", Some("main")), State::Made)?;
        timelines::count_for(catalog, "p", "br-x_1", "br-x")?;
        branches::update(catalog, &branch("br-x", "p", "br-x_2"))?;
        timelines::leave(catalog, "p", "br-x_1")?;
        assert_eq!(timelines::left(catalog, &here())?, []);
        let removable = timelines::removable(catalog, &here(), 10)?;
        assert_eq!(removable.into_iter().map(|it| it.name).collect::<Vec<_>>(), ["br-x_1"]);
        use_of(catalog, "br-x_1", 160)?;
        assert_eq!(used_by(catalog, "br-x")?, (230, 1230));

        // Of what is looked at it is told of which branch it is.
        timelines::insert(catalog, &timeline("p", "schema-1", Some("br-x_2")), State::Wanted)?;
        timelines::count_for(catalog, "p", "schema-1", "br-x")?;
        use_of(catalog, "schema-1", 320)?;
        assert_eq!(used_by(catalog, "br-x")?, (550, 1230));

        // All branches together used what the project did.
        let all = consumption::used_since(catalog, "p", MONTH)?;
        let used = |id: &str| branch_consumption::used_in(catalog, id, MONTH);
        let mut sum = used(&first.id)?;
        sum += used("br-x")?;
        sum += used("br-kept")?;
        assert_eq!(sum, all);

        // What a deleted branch used is the project's alone, also what is counted later.
        branches::remove(catalog, &branches::get(catalog, "p", "br-x")?)?;
        use_of(catalog, "br-x_2", 1)?;
        use_of(catalog, "schema-1", 1)?;
        use_of(catalog, "not-in-the-catalog", 1)?;
        assert_eq!(used_by(catalog, "br-x")?, (0, 0));
        let later = consumption::used_since(catalog, "p", MONTH)?;
        assert_eq!(later.transfer_bytes, all.transfer_bytes + 3);
        projects::remove(catalog, "p")?;
        let count = "SELECT count(*) FROM branch_consumption";
        assert_eq!(catalog.query_row(count, [], |row| row.get::<_, u64>(0))?, 0);
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_branch_used_begins_anew_with_each_month() -> anyhow::Result<()> {
    let (_folder, catalog) = open()?;
    let write = |catalog: &Connection| {
        let branch = insert_project(catalog, "p")?.id;
        let next = MONTH + 31 * 24;
        let used = |month| branch_consumption::used_in(catalog, &branch, month);
        let one = Used { active_us: 1, compute_mcu_us: 2, written_bytes: 3, transfer_bytes: 4 };
        let add = |hour| consumption::add(catalog, "p", timelines::FIRST, hour, one);
        add(MONTH)?;
        add(next - 1)?;
        assert_eq!(used(MONTH)?.transfer_bytes, 8);
        assert_eq!(used(next)?, Used::default());
        add(next)?;
        // What comes late is the month's that is over.
        add(next - 1)?;
        assert_eq!(used(next)?, one);
        assert_eq!(consumption::used_since(catalog, "p", MONTH)?.written_bytes, 12);
        branch_consumption::prune(catalog, next)?;
        assert_eq!(used(next)?, one);
        branch_consumption::prune(catalog, next + 30 * 24)?;
        assert_eq!(used(next)?, Used::default());
        Ok(())
    };
    Ok(catalog.write(write).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_an_earlier_version_wrote_a_branch_used_what_comes_from_now_on()
-> anyhow::Result<()> {
    for version in [1, 2, 3, 4] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("catalog");
        write_old(&path, version)?;
        let (catalog, _) = Catalog::open(&path)?;
        let write = move |catalog: &Connection| {
            let reading = |bytes| Reading {
                written_bytes: Some(bytes),
                sizes: Sizes { logical_bytes: 8, stored_bytes: 8 },
                ..Reading::default()
            };
            let read = |bytes| {
                let written = [(timelines::FIRST.to_owned(), bytes)].into();
                // As it was to the project; to the branch it is from where it counts.
                assert!(consumption::is_new(catalog, "p", &reading(bytes), &written)?);
                consumption::read(catalog, "p", HOUR, reading(bytes), &written)
            };
            read(100)?;
            assert_eq!(used_by(catalog, "br-p")?, (0, 0), "version {version}");
            read(107)?;
            use_of(catalog, "main", 5)?;
            assert_eq!(used_by(catalog, "br-p")?, (5, 7), "version {version}");
            // One that is made now began with nothing.
            timelines::insert(catalog, &timeline("p", "br-x_0", Some("main")), State::Made)?;
            branches::insert(catalog, &branch("br-x", "p", "br-x_0"))?;
            let written = [("br-x_0".to_owned(), 9)].into();
            consumption::read(catalog, "p", HOUR, reading(116), &written)?;
            assert_eq!(used_by(catalog, "br-x")?, (0, 9), "version {version}");
            Ok(())
        };
        catalog.write(write).await?;
    }
    Ok(())
}
