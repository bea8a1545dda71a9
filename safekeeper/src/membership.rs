//! Configurations and the register of disks, in the object store. Both are numbered objects that are written
//! create-only; the highest number is the truth.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use protocol::quorum::{Configuration, Member};
use protocol::{Identity, NodeId, TenantTimeline};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// The longest object of these kinds; a longer one is damage.
const OBJECT_BYTES_MAX: u64 = 64 << 10;

/// The timeline's newest configuration.
pub async fn newest(
    store: &dyn ObjectStore,
    id: TenantTimeline,
) -> Result<Option<Configuration>, Error> {
    let folder = configuration_folder(id);
    let Some(generation) = newest_number(store, &folder).await? else {
        return Ok(None);
    };
    configuration(store, id, generation as u32).await.map(Some)
}

/// The timeline's configuration of this generation.
pub async fn configuration(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    generation: u32,
) -> Result<Configuration, Error> {
    let name = numbered(&configuration_folder(id), u64::from(generation));
    let configuration: Configuration = read(store, &name).await?;
    if configuration.generation != generation || configuration.members.is_empty() {
        let found = format!(
            "generation {generation} with members was expected, generation {} with {} was found",
            configuration.generation,
            configuration.members.len()
        );
        return Err(damage(&name, found));
    }
    Ok(configuration)
}

/// Writes a configuration; false where another one of its generation was there first.
pub async fn propose(
    store: &dyn ObjectStore,
    id: TenantTimeline,
    configuration: &Configuration,
) -> Result<bool, Error> {
    let name = numbered(&configuration_folder(id), u64::from(configuration.generation));
    create(store, &name, configuration).await
}

/// The disk that this node has, by the register.
pub async fn registered(store: &dyn ObjectStore, node: NodeId) -> Result<Option<Identity>, Error> {
    let folder = register_folder(node);
    let Some(number) = newest_number(store, &folder).await? else {
        return Ok(None);
    };
    let member: Member = read(store, &numbered(&folder, number)).await?;
    Ok(Some(member.identity))
}

/// Enters a disk in the register, unless it is there; whether it is the node's newest. A disk that was replaced
/// by another does not come back.
pub async fn register(store: &dyn ObjectStore, me: Member) -> Result<bool, Error> {
    let folder = register_folder(me.node);
    loop {
        let newest = newest_number(store, &folder).await?;
        for number in 1..=newest.unwrap_or(0) {
            let member: Member = read(store, &numbered(&folder, number)).await?;
            if member.identity == me.identity {
                return Ok(Some(number) == newest);
            }
        }
        if create(store, &numbered(&folder, newest.unwrap_or(0) + 1), &me).await? {
            return Ok(true);
        }
    }
}

/// The timelines that have a configuration.
pub async fn timelines(store: &dyn ObjectStore) -> Result<Vec<TenantTimeline>, Error> {
    let mut found = Vec::new();
    let tenants = store.list_with_delimiter(Some(&Path::from("tenants"))).await?;
    for tenant in tenants.common_prefixes {
        let Some(Ok(tenant_id)) = tenant.filename().map(str::parse) else { continue };
        let timelines = tenant.clone().join("timelines");
        for timeline in store.list_with_delimiter(Some(&timelines)).await?.common_prefixes {
            let Some(Ok(timeline_id)) = timeline.filename().map(str::parse) else { continue };
            found.push(TenantTimeline { tenant: tenant_id, timeline: timeline_id });
        }
    }
    Ok(found)
}

fn configuration_folder(id: TenantTimeline) -> Path {
    Path::from(format!("tenants/{}/timelines/{}/members", id.tenant, id.timeline))
}

fn register_folder(node: NodeId) -> Path {
    Path::from(format!("safekeepers/{:010}", node.0))
}

fn numbered(folder: &Path, number: u64) -> Path {
    folder.clone().join(format!("{number:010}"))
}

async fn newest_number(store: &dyn ObjectStore, folder: &Path) -> Result<Option<u64>, Error> {
    let objects: Vec<_> = store.list(Some(folder)).try_collect().await?;
    let number = |object: &object_store::ObjectMeta| object.location.filename()?.parse().ok();
    Ok(objects.iter().filter_map(number).max())
}

async fn read<T: DeserializeOwned>(store: &dyn ObjectStore, name: &Path) -> Result<T, Error> {
    let object = store.get(name).await?;
    if object.meta.size > OBJECT_BYTES_MAX {
        return Err(damage(name, format!("{} bytes are too many", object.meta.size)));
    }
    let bytes = object.bytes().await?;
    serde_json::from_slice(&bytes).map_err(|error| damage(name, error.to_string()))
}

async fn create<T: Serialize>(
    store: &dyn ObjectStore,
    name: &Path,
    value: &T,
) -> Result<bool, Error> {
    let text = serde_json::to_vec(value).map_err(|error| damage(name, error.to_string()))?;
    let options = PutOptions::from(PutMode::Create);
    match store.put_opts(name, Bytes::from(text).into(), options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn damage(name: &Path, reason: String) -> Error {
    Error::Object { object: name.to_string(), offset: 0, reason }
}
