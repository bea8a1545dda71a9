//! The regions of `offshoot control-plane --regions FILE`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ::access::{PublicKeys, SigningKey};
use control_plane::{
    ComputesAt, PageserverAt, PortRange, RegionConfig, RegionConfigs, RegionId, Tokens, Users,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{access::unusable, control_plane::compute_arguments};
use crate::{
    cli::{PostgresArgs, pageserver_at},
    failure::Failure,
};

/// The file, as `docs/formats/regions.md` describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionsFile {
    default: RegionId,
    #[serde(rename = "region")]
    regions: Vec<Region>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Region {
    id: RegionId,
    name: Option<String>,
    store: String,
    #[serde(deserialize_with = "pageservers")]
    pageservers: Vec<PageserverAt>,
    safekeepers: Vec<SocketAddr>,
    auth_key: Option<PathBuf>,
    #[serde(default)]
    auth_public_keys: Vec<PathBuf>,
    compute_folder: Option<PathBuf>,
    #[serde(default = "loopback")]
    compute_host: IpAddr,
    #[serde(deserialize_with = "parsed")]
    compute_ports: PortRange,
    #[serde(default, deserialize_with = "parsed")]
    compute_users: Users,
}

fn loopback() -> IpAddr {
    [127, 0, 0, 1].into()
}

/// What is written as on the command line.
fn parsed<'de, T: std::str::FromStr<Err = String>, D: Deserializer<'de>>(
    field: D,
) -> Result<T, D::Error> {
    String::deserialize(field)?.parse().map_err(D::Error::custom)
}

fn pageservers<'de, D: Deserializer<'de>>(field: D) -> Result<Vec<PageserverAt>, D::Error> {
    let texts = Vec::<String>::deserialize(field)?;
    texts.iter().map(|text| pageserver_at(text).map_err(D::Error::custom)).collect()
}

/// What all regions have in common.
pub struct Common<'a> {
    /// Below it are the folders of computes whose region names none.
    pub folder: &'a Path,
    /// Where Postgres is.
    pub postgres: &'a PostgresArgs,
    /// How long a compute's token is good; `None` where there are none.
    pub compute_token_life: Option<Duration>,
}

/// Reads the regions that a file describes.
pub fn read(file: &Path, common: &Common<'_>) -> Result<RegionConfigs, Failure> {
    let failed = |reason: String| Failure::new(format!("--regions {}: {reason}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let read: RegionsFile = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
    // Paths in it are as seen from it, wherever this process was started.
    let file = super::control_plane::absolute(file)?;
    let beside = file.parent().unwrap_or(Path::new("/"));
    let configs = read.regions.into_iter().map(|region| region.config(beside, common));
    let configs = configs.collect::<Result<Vec<_>, String>>().map_err(failed)?;
    RegionConfigs::new(configs, read.default).map_err(failed)
}

impl Region {
    fn config(self, beside: &Path, common: &Common<'_>) -> Result<RegionConfig, String> {
        let tokens = self.tokens(beside, common.compute_token_life)?;
        let own_folder = self.compute_folder.as_ref().map(|folder| beside.join(folder));
        Ok(RegionConfig {
            name: self.name.unwrap_or_else(|| self.id.to_string()),
            store: Some(self.store),
            pageservers: self.pageservers,
            safekeepers: self.safekeepers,
            computes: ComputesAt {
                folder: own_folder.unwrap_or_else(|| common.folder.join(self.id.as_str())),
                host: self.compute_host,
                ports: self.compute_ports,
                users: self.compute_users,
                arguments: compute_arguments(common.postgres, self.compute_users),
            },
            id: self.id,
            tokens,
        })
    }

    fn tokens(&self, beside: &Path, life: Option<Duration>) -> Result<Option<Tokens>, String> {
        let id = &self.id;
        let (key, compute_life) = match (&self.auth_key, life) {
            (Some(key), Some(life)) => (key, life),
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                return Err(format!(
                    "region {id} has no auth-key: make one with `offshoot auth key FILE`; with \
                     --no-auth its servers let everybody in"
                ));
            }
            (Some(_), None) => {
                return Err(format!("region {id} has an auth-key, which --no-auth has no use for"));
            }
        };
        let unusable = |error| format!("region {id}: {}", unusable(error));
        let key = SigningKey::load(&beside.join(key)).map_err(unusable)?;
        let accepted: Vec<_> = self.auth_public_keys.iter().map(|key| beside.join(key)).collect();
        let accepted = PublicKeys::load(&accepted).map_err(unusable)?;
        Ok(Some(Tokens { key, accepted, compute_life }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
default = "eu"

[[region]]
id = "eu"
name = "Europe"
store = "s3://offshoot-eu/prod"
pageservers = ["10.0.1.2:6402,10.0.1.2:6401"]
safekeepers = ["10.0.1.3:6411", "10.0.1.4:6411", "10.0.1.5:6411"]
compute-ports = "6500-6999"

[[region]]
id = "us"
store = "s3://offshoot-us/prod"
pageservers = ["10.0.2.2:6402,10.0.2.2:6401", "10.0.2.6:6402,10.0.2.6:6401"]
safekeepers = ["10.0.2.3:6411", "10.0.2.4:6411", "10.0.2.5:6411"]
compute-ports = "7000-7499"
compute-folder = "us-computes"
compute-users = "none"
"#;

    fn read_text(text: &str, with_tokens: bool) -> Result<RegionConfigs, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = folder.path().join("regions.toml");
        fs::write(&file, text).map_err(|error| error.to_string())?;
        let postgres = PostgresArgs { pg_bin: None, user: "postgres".to_owned() };
        let common = Common {
            folder: Path::new("/computes"),
            postgres: &postgres,
            compute_token_life: with_tokens.then_some(Duration::from_secs(300)),
        };
        read(&file, &common).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_file_lists_regions_and_says_which_is_the_default() {
        let read = read_text(GOOD, false);
        assert_eq!(read.as_ref().err(), None);
        let read = format!("{read:?}");
        for expected in ["\"Europe\"", "\"us\"", "/computes/eu", "/us-computes", "Shared"] {
            assert!(read.contains(expected), "no {expected} in {read}");
        }
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_place_or_the_region_and_the_reason() {
        let cases = [
            ("default = \"eu\"", "default = \"asia\"", "the default region asia is none of"),
            ("default = \"eu\"", "", "missing field `default`"),
            ("id = \"us\"", "id = \"US west\"", "cannot be a region's id"),
            ("id = \"us\"", "id = \"eu\"", "two regions are called eu"),
            ("s3://offshoot-us/prod", "s3://offshoot-eu/prod", "in the same place"),
            ("10.0.2.2:6402,10.0.2.2:6401", "10.0.2.2", "is not a pageserver"),
            ("7000-7499", "6900-7499", "the same ports"),
            ("\"7000-7499\"", "7000", "invalid type"),
            ("compute-users", "compute-user", "unknown field `compute-user`"),
            ("name = \"Europe\"", "auth-key = \"key\"", "which --no-auth has no use for"),
        ];
        for (good, bad, sentence) in cases {
            let text = GOOD.replacen(good, bad, 1);
            let said = read_text(&text, false).err().unwrap_or_default();
            assert!(said.contains(sentence), "{bad}: {said:?} does not say {sentence:?}");
            assert!(said.contains("regions.toml"), "{said:?} does not name the file");
        }
        let said = read_text(GOOD, true).err().unwrap_or_default();
        assert!(said.contains("region eu has no auth-key"), "{said:?}");
    }
}
