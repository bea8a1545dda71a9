//! Stock Postgres on the mount, its pages from a page server over TCP; its WAL is a plain folder.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::{HBA, Machine, Postmaster, Stop, command_line};
use crate::{
    base_backup,
    folder::{Folder, own},
    fuse::{self, FuseMount, RelationFiles},
    mounts,
    overlay::Backing,
    page_client::{PageClient, RemotePages},
    path::{self, FileName},
    test_page_server::{BASE, Content, PageServer, timeline},
};

/// What the cluster holds before it is stopped.
const BEFORE: &str = "\
create table kept as select i, repeat('x', 100) as filler from generate_series(1, 5000) i;
create index on kept (i);
create unlogged table passing as select i from generate_series(1, 1000) i;
create index on passing (i);
";

/// A cluster, stopped cleanly, as a page server's content.
fn cluster(machine: &Machine, folder: &Path) -> (PathBuf, Content) {
    let data = folder.join("initdb");
    let bin = machine.postgres.parent().expect("a program is in a folder");
    let run = |program: &str, arguments: &[&str], input: &str| {
        let mut child = Command::new(bin.join(program))
            .args(arguments)
            .arg("-D")
            .arg(&data)
            .uid(machine.owner.uid)
            .gid(machine.owner.gid)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program is there");
        let mut stdin = child.stdin.take().expect("it is piped");
        std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("it is read");
        drop(stdin);
        assert!(child.wait().expect("it ends").success(), "{program} failed");
    };
    run("initdb", &["--no-sync", "--no-instructions", "--auth=trust", "--data-checksums"], "");
    run("postgres", &["--single", "-F", "-j"], "");
    let single = BEFORE.replace(";\n", ";\n\n");
    run("postgres", &["--single", "-F", "-j", "postgres"], &single);
    let content = content_of(&data);
    (data, content)
}

fn content_of(data: &Path) -> Content {
    let mut content = Content {
        control_file: std::fs::read(data.join("global/pg_control")).expect("initdb wrote it"),
        ..Content::default()
    };
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(data.join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            let name = path.to_str().expect("a plain name").to_owned();
            if entry.file_type().expect("it has a type").is_dir() {
                if let Some(database) = name.strip_prefix("base/").and_then(|d| d.parse().ok()) {
                    content.databases.push((1663, database));
                }
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(entry.path()).expect("a file");
            match path::parse(&name) {
                FileName::Relation { fork, segment } => {
                    assert_eq!(segment, 0, "the cluster is small");
                    content.forks.insert(fork, bytes);
                }
                FileName::Temporary => {}
                FileName::Other => {
                    let kept = ["PG_VERSION", "base/", "global/", "pg_xact/", "pg_multixact/"];
                    let passing = ["pg_control", "pg_internal.init"];
                    if kept.iter().any(|folder| name.starts_with(folder))
                        && !passing.iter().any(|file| name.ends_with(file))
                    {
                        content.files.push((name, bytes));
                    }
                }
            }
        }
    }
    content
}

/// A compute but for its WAL.
struct Compute {
    folder: Folder,
    mount: FuseMount,
    postmaster: Postmaster,
    machine: Machine,
}

impl Compute {
    async fn start(server: &PageServer, machine: Machine, folder: &Path, initdb: &Path) -> Compute {
        let folder = Folder::take(folder).expect("the folder is free");
        folder.check(&machine.user, machine.owner).expect("it can be reached");
        folder.empty(machine.owner).expect("it is made");
        let (client, _) = PageClient::connect(
            server.address,
            (timeline(), None),
            &access::Bearer::nobody(),
            Duration::from_secs(60),
        )
        .await
        .expect("the server is there");
        let source = RemotePages { client: client.clone(), base: BASE, commit: Box::new(|| BASE) };
        let backing = Arc::new(Backing::new(folder.overlay()));
        let files = RelationFiles::new(backing, Arc::new(source), machine.owner, Handle::current());
        let backup =
            base_backup::receive(&client, BASE, &folder.data(), &files, machine.owner, |_| ())
                .await
                .expect("the base backup is served");
        files.append_local_file("global/pg_control", &backup.head.control_file).expect("written");
        for name in ["postgresql.conf", "pg_ident.conf"] {
            folder.write(name, b"", machine.owner).expect("written");
        }
        folder.write("pg_hba.conf", HBA.as_bytes(), machine.owner).expect("written");
        for segment in std::fs::read_dir(initdb.join("pg_wal")).expect("initdb made it") {
            let segment = segment.expect("an entry");
            if segment.file_type().is_ok_and(|file| file.is_file()) {
                let to = folder.data().join("pg_wal").join(segment.file_name());
                std::fs::copy(segment.path(), &to).expect("copied");
                own(&to, machine.owner).expect("given");
            }
        }
        let mount = fuse::mount(files, &folder.mountpoint()).expect("root may mount");
        for name in ["base", "global", "pg_tblspc"] {
            mounts::bind(&folder.mountpoint().join(name), &folder.data().join(name))
                .expect("root may bind");
        }
        let arguments =
            command_line(&folder.data(), &folder.sockets(), machine.listen, &[], &[], &[]);
        let mut postmaster = Postmaster::start(
            &machine.postgres,
            &arguments,
            &[],
            machine.owner,
            &[],
            &folder.data(),
            &folder.log(),
        )
        .await
        .expect("Postgres starts");
        postmaster.ready().await.expect("Postgres accepts connections");
        Compute { folder, mount, postmaster, machine }
    }

    fn sql(&self, sql: &str) -> String {
        let psql = self.machine.postgres.with_file_name("psql");
        let output = Command::new(psql)
            .args(["-X", "-A", "-t", "-q", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(self.folder.sockets())
            .args(["-p", &self.machine.listen.port().to_string(), "-c", sql])
            .output()
            .expect("psql is there");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    async fn stop(self) {
        assert!(self.postmaster.stop(Stop::Fast).await, "Postgres did not stop cleanly");
        for name in ["base", "global", "pg_tblspc"] {
            mounts::unmount(&self.folder.data().join(name)).expect("unmounted");
        }
        self.mount.unmount().expect("unmounted");
    }
}

fn temporary_folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).expect("it is ours");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_postgres_runs_on_the_mount_and_leaves_nothing_behind() {
    let machine = Machine::check(None, None, SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("the machine can run computes");
    let temporary = temporary_folder();
    let (initdb, content) = cluster(&machine, temporary.path());
    let server = PageServer::start(content).await;
    let location = temporary.path().join("elsewhere");
    std::fs::create_dir(&location).expect("a new folder");
    own(&location, machine.owner).expect("given");

    let folder = temporary.path().join("compute");
    let compute = Compute::start(&server, machine, &folder, &initdb).await;
    let compute = tokio::task::spawn_blocking(move || {
        assert_eq!(compute.sql("select count(*), sum(i) from kept"), "5000|12502500");
        assert_eq!(compute.sql("select count(*) from passing"), "0");
        compute.sql("insert into passing select i from generate_series(1, 10) i");
        assert_eq!(compute.sql("select count(*) from passing where i > 5"), "5");
        compute.sql("update kept set filler = 'y' where i % 2 = 0");
        compute.sql("vacuum full kept");
        compute.sql("checkpoint");
        assert_eq!(compute.sql("select count(*) from kept where filler = 'y'"), "2500");
        compute.sql(&format!("create tablespace elsewhere location '{}'", location.display()));
        compute.sql("create table there tablespace elsewhere as select 1 as i");
        assert_eq!(compute.sql("select i from there"), "1");
        compute.sql("create database log strategy wal_log");
        compute.sql("create database copy strategy file_copy");
        compute.sql("drop table there");
        compute.sql("drop tablespace elsewhere");
        compute.sql("begin; create temp table t as select 1; commit");
        assert_eq!(compute.sql("select count(*) from pg_ls_dir('pg_tblspc')"), "0");
        compute
    })
    .await
    .expect("the test's expectations");
    let machine = compute.machine.clone();
    let data = compute.folder.data();
    compute.stop().await;
    assert_eq!(mounted_under(&data), 0);

    // Nothing of the folder is used again: the second compute starts where the first one did.
    let compute = Compute::start(&server, machine, &folder, &initdb).await;
    let compute = tokio::task::spawn_blocking(move || {
        assert_eq!(compute.sql("select count(*) from kept where filler = 'y'"), "0");
        assert!(Folder::take(&folder).is_err(), "two computes have one folder");
        compute
    })
    .await
    .expect("the test's expectations");
    // As an earlier run's remains are ended, when its process was killed.
    let Compute { folder, mount, postmaster, .. } = compute;
    let swept = tokio::task::spawn_blocking(move || folder.sweep());
    swept.await.expect("no panic").expect("all is ended");
    assert_eq!(mounted_under(&data), 0);
    postmaster.ended().await;
    drop(mount);
}

fn mounted_under(folder: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/mounts").expect("the kernel's table");
    let folder = folder.to_str().expect("a plain name");
    table.lines().filter(|line| line.contains(folder)).count()
}
