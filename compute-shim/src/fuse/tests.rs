//! The mount itself, as root: the kernel asks, a page server answers over TCP.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
};

use tempfile::TempDir;
use wal_format::{Fork, PAGE_BYTES, Relation, RelationFork};

use super::*;
use crate::{
    page_client::{PageClient, RemotePages},
    test_page_server::{BASE, Content, PageServer, page_of, timeline},
};

const OWNER: Owner = Owner { uid: 12345, gid: 12346 };
const BLOCKS: u32 = 600;
const FILE: &str = "base/5/16384";

fn fork() -> RelationFork {
    Relation { tablespace: 1663, database: 5, number: 16384 }.fork(Fork::Main)
}

/// A mount with one relation's file. Unmounted when it is dropped.
struct Mounted {
    server: PageServer,
    mount: Option<FuseMount>,
    folder: TempDir,
}

impl Mounted {
    async fn new() -> Mounted {
        let pages = (0..BLOCKS).flat_map(page_of).collect();
        let content = Content { forks: [(fork(), pages)].into(), ..Content::default() };
        let server = PageServer::start(content).await;
        let wait = Duration::from_secs(60);
        let (client, _) = PageClient::connect(
            server.address,
            (timeline(), None),
            &access::Bearer::nobody(),
            wait,
        )
        .await
        .expect("the server is there");
        let source = RemotePages { client, base: BASE, commit: Box::new(|| BASE) };
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["mnt", "overlay"] {
            std::fs::create_dir(folder.path().join(name)).expect("a new folder");
        }
        let backing = Arc::new(Backing::new(folder.path().join("overlay")));
        let files = RelationFiles::new(backing, Arc::new(source), OWNER, Handle::current());
        let origin = Origin { fork: fork(), first_block: 0, blocks: BLOCKS };
        files.add_relation_file("base/5", "16384", origin).expect("a new name");
        files.append_local_file("base/5/PG_VERSION", b"15\n").expect("the disk has room");
        let mount = mount(files, &folder.path().join("mnt")).expect("root may mount");
        Mounted { server, mount: Some(mount), folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("mnt").join(path)
    }

    /// Runs what uses the mount off the threads that serve it.
    async fn use_files(&self, uses: impl FnOnce(PathBuf) + Send + 'static) {
        let root = self.path("");
        tokio::task::spawn_blocking(move || uses(root)).await.expect("the test's expectations");
    }

    fn asked(&self) -> usize {
        self.server.content.lock().asked.len()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mount = self.mount.take().expect("it is dropped once");
        mount.unmount().expect("it can be unmounted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_is_of_its_own_type_and_reads_ahead_a_mebibyte() {
    let mounted = Mounted::new().await;
    let root = mounted.path("");
    let table = std::fs::read_to_string("/proc/mounts").expect("the kernel's table");
    let line = table
        .lines()
        .find(|line| line.contains(root.to_str().expect("a plain name").trim_end_matches('/')))
        .expect("it is mounted");
    assert_eq!(line.split(' ').nth(2), Some("fuse.offshoot"), "{line}");
    let metadata = std::fs::metadata(mounted.path(FILE)).expect("the file is there");
    assert_eq!((metadata.uid(), metadata.gid()), (OWNER.uid, OWNER.gid));
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), u64::from(BLOCKS) * PAGE_BYTES as u64);
    let device = metadata.dev();
    let setting =
        format!("/sys/class/bdi/{}:{}/read_ahead_kb", libc::major(device), libc::minor(device));
    assert_eq!(std::fs::read_to_string(setting).expect("a device").trim(), "1024");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_read_takes_few_requests_and_a_second_none() {
    let mounted = Mounted::new().await;
    let read = |root: PathBuf| {
        let mut bytes = Vec::new();
        let mut file = File::open(root.join(FILE)).expect("the file is there");
        file.read_to_end(&mut bytes).expect("pages are served");
        let expected: Vec<u8> = (0..BLOCKS).flat_map(page_of).collect();
        assert!(bytes == expected, "other bytes were read");
    };
    mounted.use_files(read).await;
    let first = mounted.asked();
    assert!(first <= 40, "{first} requests for {BLOCKS} pages");
    mounted.use_files(read).await;
    assert_eq!(mounted.asked(), first, "the kernel keeps pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_and_cut_stays_so() {
    let mounted = Mounted::new().await;
    mounted
        .use_files(|root| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(root.join(FILE))
                .expect("the file is there");
            let page = [3; PAGE_BYTES];
            file.write_all_at(&page, 7 * PAGE_BYTES as u64).expect("written");
            file.write_all_at(b"half", 100).expect("written");
            file.set_len(20 * PAGE_BYTES as u64).expect("cut");
            file.set_len(30 * PAGE_BYTES as u64).expect("grown");
            file.sync_all().expect("nothing to do");
            drop_caches(&root.join(FILE));
            let mut read = vec![0; 31 * PAGE_BYTES];
            let bytes = file.read_at(&mut read, 0).expect("read");
            assert_eq!(bytes, 30 * PAGE_BYTES);
            let mut expected: Vec<u8> = (0..20).flat_map(page_of).collect();
            expected.resize(31 * PAGE_BYTES, 0);
            expected[100..104].copy_from_slice(b"half");
            expected[7 * PAGE_BYTES..8 * PAGE_BYTES].fill(3);
            assert!(read == expected, "other bytes were read");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_and_made_again_is_empty() {
    let mounted = Mounted::new().await;
    mounted
        .use_files(|root| {
            let path = root.join(FILE);
            let open = File::open(&path).expect("the file is there");
            std::fs::remove_file(&path).expect("removed");
            assert!(File::open(&path).is_err(), "its name is gone");
            let new = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
            let new = new.expect("the name is free");
            new.write_all_at(&[1; PAGE_BYTES], 3 * PAGE_BYTES as u64).expect("written");
            let mut page = [9; PAGE_BYTES];
            new.read_exact_at(&mut page, PAGE_BYTES as u64).expect("a hole");
            assert!(page.iter().all(|byte| *byte == 0), "a page came back");
            open.read_exact_at(&mut page, 5 * PAGE_BYTES as u64).expect("it is open still");
            assert_eq!(page[..], page_of(5));
            assert!(new.metadata().is_ok_and(|file| file.len() == 4 * PAGE_BYTES as u64));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_had_is_an_error_and_the_next_is_served() {
    use protocol::page_service::PageError;
    let mounted = Mounted::new().await;
    let failures = (0..64).map(|_| PageError::Corrupt("a layer".to_owned())).collect();
    mounted.server.content.lock().failures = failures;
    let content = mounted.server.content.clone();
    mounted
        .use_files(move |root| {
            let file = File::open(root.join(FILE)).expect("the file is there");
            let mut page = [0; PAGE_BYTES];
            let error = file.read_exact_at(&mut page, 0).expect_err("the layer is damaged");
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            content.lock().failures.clear();
            file.read_exact_at(&mut page, 0).expect("served now");
            assert_eq!(page[..], page_of(0));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespaces_link_becomes_a_folder_of_the_mount() {
    let mounted = Mounted::new().await;
    let location = tempfile::tempdir().expect("a folder");
    let version = location.path().join(TABLESPACE_VERSION_FOLDER);
    std::fs::create_dir(&version).expect("as Postgres does");
    let at = location.path().to_owned();
    mounted
        .use_files(move |root| {
            let link = root.join("pg_tblspc/16390");
            assert!(std::fs::metadata(&link).is_err(), "it is not there before");
            symlink(at, &link).expect("the link is taken");
            let inside = link.join(TABLESPACE_VERSION_FOLDER);
            assert!(std::fs::symlink_metadata(&link).is_ok_and(|link| link.is_dir()));
            std::fs::create_dir(inside.join("5")).expect("as Postgres does");
            std::fs::write(inside.join("5/16400"), [1; PAGE_BYTES]).expect("written");
            assert!(std::fs::remove_dir(&inside).is_err(), "it is not empty");
            std::fs::remove_file(inside.join("5/16400")).expect("removed");
            for folder in [inside.join("5"), inside, link] {
                std::fs::remove_dir(folder).expect("it is empty");
            }
            let left = std::fs::read_dir(root.join("pg_tblspc")).expect("a folder").count();
            assert_eq!(left, 0);
        })
        .await;
    assert!(!version.exists(), "the location can be used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_folder_is_listed_whole_and_emptied_while_it_is_listed() {
    let mounted = Mounted::new().await;
    mounted
        .use_files(|root| {
            let folder = root.join("base/6");
            std::fs::create_dir(&folder).expect("made");
            for file in 0..2000 {
                std::fs::write(folder.join(file.to_string()), b"x").expect("written");
            }
            assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 2000);
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                std::fs::remove_file(entry.expect("an entry").path()).expect("removed");
            }
            std::fs::remove_dir(&folder).expect("it is empty");
        })
        .await;
    let left = std::fs::read_dir(mounted.folder.path().join("overlay")).expect("a folder");
    let left = left.count();
    assert!(left <= 1, "{left} local files of removed files stay");
}

/// Has the kernel forget a file's clean pages.
fn drop_caches(path: &Path) {
    let file = File::open(path).expect("the file is there");
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED)
        .expect("the kernel takes the advice");
}
