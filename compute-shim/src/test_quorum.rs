//! Three real safekeepers for tests, on loopback, with an object store in memory.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use access::{Bearer, Guard};
use object_store::memory::InMemory;
use protocol::{NodeId, TenantId, TenantTimeline, TimelineId, TimelineOrigin};
use safekeeper::{Bounds, Config, Safekeeper};
use tempfile::TempDir;

use crate::{Elected, WalConfig, WalProposer};

/// The tests' timeline.
pub(crate) fn timeline() -> TenantTimeline {
    TenantTimeline { tenant: TenantId::from_bits(1), timeline: TimelineId::from_bits(2) }
}

/// Three safekeepers, each up or down.
pub(crate) struct Quorum {
    keepers: Vec<Option<Safekeeper>>,
    pub(crate) addresses: Vec<SocketAddr>,
    folder: TempDir,
    store: Arc<InMemory>,
}

impl Quorum {
    pub(crate) async fn start() -> Quorum {
        // Each must know the others' ports before it starts: free ones are found, and left again.
        let listeners: Vec<_> = (0..3)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free"))
            .collect();
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("a listener has an address"))
            .collect();
        drop(listeners);
        let mut quorum = Quorum {
            keepers: (0..3).map(|_| None).collect(),
            addresses,
            folder: tempfile::tempdir().expect("a folder is made"),
            store: Arc::new(InMemory::new()),
        };
        for index in 0..3 {
            quorum.start_one(index).await;
        }
        quorum
    }

    pub(crate) async fn start_one(&mut self, index: usize) {
        let node = |index: usize| NodeId(index as u32 + 1);
        let others = (0..3).filter(|other| *other != index);
        let config = Config {
            node: node(index),
            folder: self.disk(index),
            listen: self.addresses[index],
            http: None,
            peers: others.map(|other| (node(other), self.addresses[other])).collect(),
            store: self.store.clone(),
            guard: Guard::open(),
            bearer: Bearer::nobody(),
            certificate: None,
            bounds: Bounds { offload_idle: Duration::from_millis(200), ..Bounds::default() },
        };
        let keeper = Safekeeper::start(config).await.expect("the safekeeper starts");
        self.keepers[index] = Some(keeper);
    }

    pub(crate) async fn stop_one(&mut self, index: usize) {
        self.keepers[index].take().expect("it is up").shutdown().await;
    }

    /// Throws the disk of one that is down away.
    pub(crate) fn wipe(&self, index: usize) {
        assert!(self.keepers[index].is_none(), "it is up");
        std::fs::remove_dir_all(self.disk(index)).expect("its disk is there");
    }

    fn disk(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("safekeeper-{index}"))
    }

    /// The configuration of a proposer, whose files are in a folder of this name.
    pub(crate) fn config(&self, origin: TimelineOrigin, name: &str) -> WalConfig {
        WalConfig {
            timeline: timeline(),
            origin,
            safekeepers: self.addresses.clone(),
            bearer: Bearer::nobody(),
            wal_folder: self.folder.path().join(name),
        }
    }

    /// Elects a proposer, whose files are in a folder of this name.
    pub(crate) async fn elect(&self, origin: TimelineOrigin, name: &str) -> (WalProposer, Elected) {
        let elected = WalProposer::elect(self.config(origin, name));
        tokio::time::timeout(Duration::from_secs(120), elected)
            .await
            .expect("an election takes no two minutes")
            .expect("somebody wins")
    }
}
