//! Which regions there are, and where each has its storage and its computes.
//!
//! No two regions share anything: not an object store, not a server, not a port or a folder for
//! computes, not a key. One of them is the default.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use access::Guard;

use super::RegionId;
use crate::{PortRange, Tokens, Users};

/// A pageserver among several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageserverAt {
    /// Its page service.
    pub pages: SocketAddr,
    /// Its HTTP API.
    pub http: SocketAddr,
}

/// Where computes run, and as whom.
#[derive(Clone, Debug)]
pub struct ComputesAt {
    /// The folder that holds the computes' folders and logs; their unprivileged user must be able
    /// to pass through it.
    pub folder: PathBuf,
    /// The address that computes listen on.
    pub host: IpAddr,
    /// The ports that are given to computes that ask for none.
    pub ports: PortRange,
    /// The users that computes run as.
    pub users: Users,
    /// Further arguments of `compute run`: where Postgres is, and which user runs it.
    pub arguments: Vec<String>,
}

/// A region: a set of storage, and the computes that run on it.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// What `region_id` says.
    pub id: RegionId,
    /// What people call it.
    pub name: String,
    /// Its object store's URL, where that is known here: it is the pageservers' and safekeepers'.
    pub store: Option<String>,
    /// Its pageservers, all on that object store; the first is asked where nobody knows better.
    pub pageservers: Vec<PageserverAt>,
    /// Its safekeepers.
    pub safekeepers: Vec<SocketAddr>,
    /// Its computes.
    pub computes: ComputesAt,
    /// What tokens are signed with that its servers take; where there is nothing, they let everybody
    /// in.
    pub tokens: Option<Tokens>,
}

/// All regions of a control plane.
#[derive(Clone, Debug)]
pub struct RegionConfigs {
    all: Vec<RegionConfig>,
    default: RegionId,
}

impl RegionConfigs {
    /// The one region of whoever configures no others.
    pub fn one(region: RegionConfig) -> RegionConfigs {
        RegionConfigs { default: region.id.clone(), all: vec![region] }
    }

    /// Several regions, of which one is the default. Says of regions that cannot be served together
    /// which they are, and why.
    pub fn new(all: Vec<RegionConfig>, default: RegionId) -> Result<RegionConfigs, String> {
        let known = || all.iter().map(|region| region.id.as_str()).collect::<Vec<_>>().join(", ");
        if all.is_empty() {
            return Err("there is no region: name one at least".to_owned());
        }
        if !all.iter().any(|region| region.id == default) {
            let known = known();
            return Err(format!("the default region {default} is none of the regions: {known}"));
        }
        for (count, region) in all.iter().enumerate() {
            region.check()?;
            all.iter().take(count).try_for_each(|other| region.check_beside(other))?;
        }
        check_addresses(&all)?;
        Ok(RegionConfigs { all, default })
    }

    /// Them, and which is the default.
    pub(crate) fn into_parts(self) -> (Vec<RegionConfig>, RegionId) {
        (self.all, self.default)
    }

    /// Who may use version 1 of the API: operators of the default region.
    pub(crate) fn guard(&self) -> Guard {
        let default = self.all.iter().find(|region| region.id == self.default);
        Tokens::guard(default.and_then(|region| region.tokens.as_ref()))
    }
}

impl RegionConfig {
    fn check(&self) -> Result<(), String> {
        let id = &self.id;
        if self.name.trim().is_empty() || self.name.chars().any(char::is_control) {
            return Err(format!("region {id}: {:?} is no name to show to people", self.name));
        }
        if self.pageservers.is_empty() {
            return Err(format!("region {id} has no pageserver: name one at least"));
        }
        if self.safekeepers.is_empty() {
            return Err(format!("region {id} has no safekeepers: name all of them"));
        }
        Ok(())
    }

    /// Refuses what two regions cannot have both.
    fn check_beside(&self, other: &RegionConfig) -> Result<(), String> {
        let both = format!("regions {} and {}", other.id, self.id);
        if self.id == other.id {
            return Err(format!("two regions are called {}: an id is one region's", self.id));
        }
        let stores = other.store.as_deref().zip(self.store.as_deref());
        if let Some((one, two)) = stores.filter(|(one, two)| are_nested(one, two)) {
            return Err(format!(
                "{both} have their objects in the same place, {one} and {two}: give each a bucket or \
                 a prefix of its own"
            ));
        }
        let (one, two) = (&other.computes, &self.computes);
        if one.folder.starts_with(&two.folder) || two.folder.starts_with(&one.folder) {
            return Err(format!(
                "{both} have their computes in the same folder, {} and {}: give each one of its own",
                one.folder.display(),
                two.folder.display()
            ));
        }
        if one.host == two.host && one.ports.overlaps(two.ports) {
            return Err(format!(
                "{both} give their computes the same ports of {}, {} and {}: give each some of its own",
                one.host, one.ports, two.ports
            ));
        }
        let keys = other.tokens.as_ref().zip(self.tokens.as_ref());
        if keys.is_some_and(|(one, two)| one.key.public_pem() == two.key.public_pem()) {
            return Err(format!(
                "{both} have the same key, so that each would take the other's tokens: make one for \
                 each with `offshoot auth key FILE`"
            ));
        }
        Ok(())
    }
}

/// Refuses an address that stands for two servers.
fn check_addresses(all: &[RegionConfig]) -> Result<(), String> {
    let mut known: BTreeMap<SocketAddr, &RegionId> = BTreeMap::new();
    for region in all {
        let pageservers = region.pageservers.iter().map(|at| [at.pages, at.http]);
        for address in pageservers.flatten().chain(region.safekeepers.iter().copied()) {
            // A test's pageserver may serve both at one address, but not two regions.
            let before = known.insert(address, &region.id);
            if let Some(other) = before.filter(|other| **other != region.id) {
                return Err(format!(
                    "{address} is a server of region {other} and of region {}: a server is in one \
                     region",
                    region.id
                ));
            }
        }
    }
    Ok(())
}

/// Whether objects below one URL would lie below the other.
fn are_nested(one: &str, two: &str) -> bool {
    let folder = |url: &str| format!("{}/", url.trim_end_matches('/'));
    let (one, two) = (folder(one), folder(two));
    one.starts_with(&two) || two.starts_with(&one)
}

#[cfg(test)]
mod tests {
    use access::{PublicKeys, SigningKey};

    use super::*;

    /// The region of this number.
    fn region(id: &str, number: u16) -> RegionConfig {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], 100 * number + port));
        let ports = format!("{}-{}", 1000 * number, 1000 * number + 9);
        RegionConfig {
            id: id.parse().expect("a good id"),
            name: id.to_owned(),
            store: Some(format!("s3://bucket/{id}")),
            pageservers: vec![PageserverAt { pages: at(1), http: at(2) }],
            safekeepers: vec![at(3), at(4), at(5)],
            computes: ComputesAt {
                folder: format!("/computes/{id}").into(),
                host: [127, 0, 0, 1].into(),
                ports: ports.parse().expect("a good range"),
                users: Users::Shared,
                arguments: Vec::new(),
            },
            tokens: None,
        }
    }

    fn refused(regions: Vec<RegionConfig>) -> String {
        let default = regions.first().map(|region| region.id.clone()).expect("there is one");
        RegionConfigs::new(regions, default).err().unwrap_or_default()
    }

    #[test]
    fn regions_that_share_nothing_are_served_together() {
        let both = vec![region("eu", 1), region("us", 2)];
        assert_eq!(refused(both.clone()), "");
        let unknown = RegionConfigs::new(both, "asia".parse().expect("a good id"));
        let said = unknown.err().unwrap_or_default();
        assert_eq!(said, "the default region asia is none of the regions: eu, us");
    }

    #[test]
    fn what_two_regions_cannot_share_is_refused_with_both_their_names() {
        type Change = fn(&mut RegionConfig);
        let change = |change: Change| {
            let mut us = region("us", 2);
            change(&mut us);
            refused(vec![region("eu", 1), us])
        };
        let cases: [(Change, &str); 8] = [
            (|us| us.id = "eu".parse().expect("an id"), "two regions are called eu"),
            (|us| us.store = Some("s3://bucket/eu/".to_owned()), "objects in the same place"),
            (|us| us.store = Some("s3://bucket".to_owned()), "objects in the same place"),
            (|us| us.pageservers = region("eu", 1).pageservers, "is a server of region eu and of"),
            (|us| us.safekeepers = region("eu", 1).safekeepers, "is a server of region eu and of"),
            (|us| us.computes.folder = "/computes".into(), "computes in the same folder"),
            (|us| us.computes.ports = "1009-1010".parse().expect("ports"), "the same ports"),
            (|us| us.pageservers.clear(), "region us has no pageserver"),
        ];
        for (of, sentence) in cases {
            let said = change(of);
            assert!(said.contains(sentence), "{said:?} does not say {sentence:?}");
        }
        // A name that only begins alike is another place.
        assert_eq!(change(|us| us.store = Some("s3://bucket/eu2".to_owned())), "");
        assert_eq!(change(|us| us.computes.host = [127, 0, 0, 2].into()), "");
    }

    #[test]
    fn a_key_is_one_regions() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let key = |name: &str| -> anyhow::Result<Option<Tokens>> {
            let key = SigningKey::load_or_make(&folder.path().join(name))?;
            let compute_life = std::time::Duration::from_secs(300);
            Ok(Some(Tokens { key, accepted: PublicKeys::default(), compute_life }))
        };
        let regions = |other: &str| -> anyhow::Result<Vec<RegionConfig>> {
            let eu = RegionConfig { tokens: key("eu")?, ..region("eu", 1) };
            Ok(vec![eu, RegionConfig { tokens: key(other)?, ..region("us", 2) }])
        };
        assert!(refused(regions("eu")?).contains("have the same key"));
        assert_eq!(refused(regions("us")?), "");
        Ok(())
    }
}
