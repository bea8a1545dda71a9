//! Regions: sets of storage, each with the computes that run on it, behind one control plane.
//!
//! A project is in one region for ever, and all that belongs to it: its bytes, its WAL, its computes.
//! Regions share no lock, no queue and no task, so that one that is gone delays no other.

mod config;
mod health;
mod id;

use std::{collections::HashMap, path::Path, sync::Arc};

use access::tls::Trust;
use parking_lot::RwLock;
use tokio::{sync::Notify, task::JoinHandle};

pub use config::{ComputesAt, PageserverAt, RegionConfig, RegionConfigs};
pub(crate) use health::Health;
pub use id::RegionId;

use crate::{
    Endpoints, Error, Tokens,
    v2::{Counting, Storage, Turn},
};

/// A region.
pub struct Region {
    /// Its id.
    pub(crate) id: RegionId,
    /// What people call it.
    pub(crate) name: String,
    /// Its computes.
    pub(crate) endpoints: Arc<Endpoints>,
    /// Its storage.
    pub(crate) storage: Storage,
    /// Whether it answers.
    pub(crate) health: Health,
    /// There is something to do for its projects in the background.
    pub(crate) work: Notify,
    /// That waits until the API is calm, one piece after the other.
    pub(crate) calm_turn: Turn,
    /// What its projects use is counted.
    pub(crate) counting: Counting,
    watching: JoinHandle<()>,
}

impl Region {
    fn start(config: RegionConfig, executable: &Path, trust: &Trust) -> Result<Region, Error> {
        let (health, watch) = Health::new(config.id.clone());
        let bearer = Tokens::bearer(config.tokens.as_ref()).trusting(trust.clone());
        let storage = Storage::new(&config.pageservers, bearer.clone(), health.clone());
        let (id, name) = (config.id.clone(), config.name.clone());
        let pageservers = config.pageservers.clone();
        let executable = executable.to_owned();
        let endpoints = Endpoints::new(config, executable, bearer.clone(), health.clone())?;
        let endpoints = Arc::new(endpoints);
        let watching = tokio::spawn(watch.run(pageservers, bearer));
        Ok(Region {
            id,
            name,
            endpoints,
            storage,
            health,
            work: Notify::new(),
            calm_turn: Turn::default(),
            counting: Counting::default(),
            watching,
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// All regions, and which project is where.
pub struct Regions {
    all: Vec<Arc<Region>>,
    default: Arc<Region>,
    /// Where projects are that are not in the default region. The catalog has it written down; it
    /// never changes, and is needed for each of a project's computes.
    places: RwLock<HashMap<String, Arc<Region>>>,
}

impl Regions {
    /// Makes their folders, and begins to look whether they answer.
    pub(crate) fn start(
        configs: RegionConfigs,
        executable: &Path,
        trust: &Trust,
    ) -> Result<Regions, Error> {
        let (configs, default) = configs.into_parts();
        let started = configs.into_iter().map(|config| Region::start(config, executable, trust));
        let all = started.map(|region| region.map(Arc::new)).collect::<Result<Vec<_>, Error>>()?;
        let default = all.iter().find(|region| region.id == default).cloned();
        let default =
            default.ok_or_else(|| Error::Regions("there is no default region".to_owned()))?;
        Ok(Regions { all, default, places: RwLock::default() })
    }

    /// All of them, in the order in which they were configured.
    pub(crate) fn all(&self) -> &[Arc<Region>] {
        &self.all
    }

    /// The one of projects that ask for none.
    pub(crate) fn default(&self) -> &Arc<Region> {
        &self.default
    }

    /// The region of this id.
    pub(crate) fn get(&self, id: &RegionId) -> Option<&Arc<Region>> {
        self.all.iter().find(|region| region.id == *id)
    }

    /// The region of this name for people who may have misspelt it.
    pub(crate) fn named(&self, id: &str) -> Result<&Arc<Region>, String> {
        self.all.iter().find(|region| region.id.as_str() == id).ok_or_else(|| {
            format!("there is no region {id:?} here: ask for one of {}, or for none", self.ids())
        })
    }

    /// Their ids, for people.
    pub(crate) fn ids(&self) -> String {
        self.all.iter().map(|region| region.id.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The region of a project, by its id; the default one for tenants that are no projects.
    pub(crate) fn of(&self, project: &str) -> Arc<Region> {
        self.places.read().get(project).unwrap_or(&self.default).clone()
    }

    /// Takes note of where a project is: before anything is done for it.
    pub(crate) fn place(&self, project: &str, region: &Arc<Region>) {
        if !Arc::ptr_eq(region, &self.default) {
            self.places.write().insert(project.to_owned(), region.clone());
        }
    }

    /// Forgets where a project was that is gone.
    pub(crate) fn forget(&self, project: &str) {
        self.places.write().remove(project);
    }
}
