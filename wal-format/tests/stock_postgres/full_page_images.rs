//! Images of every compression unpack to the pages that Postgres has on disk.

use std::{collections::HashMap, fs};

use wal_format::{Compression, DEFAULT_TABLESPACE, Lsn, PAGE_BYTES, Page, PageKey, Version};

use crate::cluster::Cluster;

/// Where a page keeps its checksum, which an image has not.
const CHECKSUM: std::ops::Range<usize> = 8..10;

#[test]
fn restored_images_are_the_pages_on_disk() {
    let cluster = Cluster::init(&[]);
    let start = cluster.control_file().checkpoint;
    cluster.start();
    cluster.sql(
        "CREATE TABLE words AS SELECT n, md5(n::text) || repeat('a', n % 90) AS word
             FROM generate_series(1, 3000) n;
         SET wal_compression = 'off';
         CREATE INDEX ON words (n);
         SET wal_compression = 'pglz';
         CREATE INDEX ON words (word);
         SET wal_compression = 'lz4';
         CREATE INDEX ON words (word, n);
         SET wal_compression = 'zstd';
         CREATE INDEX ON words (n, word);",
    );
    cluster.stop("fast");

    // The last image of each page, and the last record that names the page.
    let mut images = HashMap::new();
    let mut last_named: HashMap<PageKey, Lsn> = HashMap::new();
    let mut reader = cluster.wal_reader(start);
    let records: Vec<_> = std::iter::from_fn(|| reader.next_record().unwrap_or_default()).collect();
    for raw in &records {
        let record = raw.decode(Version::V15).unwrap();
        for block in record.blocks {
            last_named.insert(block.key, raw.end);
            if let Some(image) = block.image {
                images.insert(block.key, (raw.end, image));
            }
        }
    }

    let mut compared: HashMap<String, usize> = HashMap::new();
    for (key, (end, image)) in images {
        let relation = key.fork.relation;
        if last_named[&key] != end || relation.tablespace != DEFAULT_TABLESPACE {
            continue;
        }
        let path =
            format!("base/{}/{}{}", relation.database, relation.number, key.fork.fork.suffix());
        let Ok(file) = fs::read(cluster.data().join(path)) else { continue };
        let at = key.block as usize * PAGE_BYTES;
        let mut page = Page::zeroed();
        image.restore(&mut page).unwrap();
        page.set_lsn(end);
        let mut restored = page.bytes().to_vec();
        let mut on_disk = file[at..at + PAGE_BYTES].to_vec();
        on_disk[CHECKSUM].fill(0);
        restored[CHECKSUM].fill(0);
        // On disk the hole may hold what a tuple left that was moved to the next page.
        let bounds = page.bounds().unwrap();
        on_disk[bounds.lower..bounds.upper].fill(0);
        // A user's index pages have no hint bits that were set without WAL.
        if relation.number >= 16384 {
            assert!(restored == on_disk, "{key}, {:?}", image.compression);
            *compared.entry(format!("{:?}", image.compression)).or_default() += 1;
        }
    }
    for compression in [Compression::None, Compression::Pglz, Compression::Lz4, Compression::Zstd] {
        let count = compared.get(&format!("{compression:?}")).copied().unwrap_or(0);
        assert!(count > 5, "only {count} pages of {compression:?} were compared: {compared:?}");
    }
}
