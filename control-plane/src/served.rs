//! What a compute serves: a timeline as it goes on, to write or to follow, or as it was at one moment
//! of it.

use std::fmt;

use protocol::TimelineId;

/// Between a branch and what else than its head is served of it, in the name of a compute:
/// `main@0/16B3748`, `main@ep-reader`.
pub(crate) const AT: char = '@';

/// What the name of a standby begins with, as the id of an endpoint does. No moment does.
pub(crate) const STANDBY: &str = "ep-";

/// Of a standby's name, what its folder is called after: the end, where an id is random.
const STANDBY_FOLDER_CHARS: usize = 10;

/// What a compute serves. Two that serve the same moment are one compute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Served {
    /// The timeline.
    pub timeline: TimelineId,
    /// What of it.
    pub what: What,
}

/// What is served of a timeline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// Its head, which is written.
    Head,
    /// The LSN as of which it is read, and never written.
    Moment(String),
    /// What the compute of its head writes, to read. There may be several, each with a name.
    Standby(String),
}

impl Served {
    /// A timeline that goes on.
    pub(crate) fn head(timeline: TimelineId) -> Served {
        Served { timeline, what: What::Head }
    }

    /// Whether it is one moment.
    pub(crate) fn is_moment(&self) -> bool {
        matches!(self.what, What::Moment(_))
    }

    /// Whether it is what another compute writes.
    pub(crate) fn is_standby(&self) -> bool {
        matches!(self.what, What::Standby(_))
    }

    /// The LSN of a moment.
    pub(crate) fn lsn(&self) -> Option<&str> {
        match &self.what {
            What::Moment(lsn) => Some(lsn),
            What::Head | What::Standby(_) => None,
        }
    }

    /// What the compute is called, of a branch that is called so.
    pub(crate) fn name(&self, branch: &str) -> String {
        match &self.what {
            What::Head => branch.to_owned(),
            What::Moment(word) | What::Standby(word) => format!("{branch}{AT}{word}"),
        }
    }

    /// What the compute's folder is called: half of the timeline's id, and what tells it from others of
    /// the timeline. The path of the Unix socket in it must fit 107 bytes, and 64 random bits are
    /// unique enough on one machine.
    pub(crate) fn folder_name(&self) -> String {
        let short: String = self.timeline.to_string().chars().take(16).collect();
        match &self.what {
            What::Head => short,
            What::Moment(lsn) => format!("{short}-{}", lsn.replace('/', "-")),
            What::Standby(name) => {
                let end = name.len().saturating_sub(STANDBY_FOLDER_CHARS);
                format!("{short}-r-{}", name.get(end..).unwrap_or(name))
            }
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name(&self.timeline.to_string()))
    }
}

/// A branch's name, and what else than its head is asked for: a moment, or a standby by its name.
pub(crate) fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(AT) {
        Some((branch, word)) => (branch, Some(word)),
        None => (name, None),
    }
}

/// The name of a standby, where the word behind a branch is one.
pub(crate) fn standby(word: Option<&str>) -> Option<&str> {
    word.filter(|word| word.starts_with(STANDBY))
}

/// What the standby of a branch is called that has this name itself.
pub(crate) fn standby_of(branch: &str, name: &str) -> String {
    format!("{branch}{AT}{name}")
}

/// Refuses what is no name of a standby: it becomes a part of paths.
pub(crate) fn check_standby(name: &str) -> Result<(), String> {
    let rest = name.strip_prefix(STANDBY).unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match !rest.is_empty() && name.len() <= 63 && rest.bytes().all(allowed) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no name of a standby: write {STANDBY} and lower-case letters, digits and -"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_of_one_timeline_have_names_and_folders_of_their_own() -> anyhow::Result<()> {
        let head = Served::head("2".repeat(32).parse()?);
        let then = Served { what: What::Moment("0/16B3748".to_owned()), ..head.clone() };
        let name = "ep-calm-frog-a1b2c3d4e5".to_owned();
        let standby = Served { what: What::Standby(name.clone()), ..head.clone() };
        assert_eq!(
            (head.name("main"), then.name("main")),
            ("main".into(), "main@0/16B3748".into())
        );
        assert_eq!(standby.name("main"), standby_of("main", &name));
        assert_eq!(then.to_string(), format!("{}@0/16B3748", "2".repeat(32)));
        assert_eq!(head.folder_name(), "2".repeat(16));
        assert_eq!(then.folder_name(), format!("{}-0-16B3748", "2".repeat(16)));
        assert_eq!(standby.folder_name(), format!("{}-r-a1b2c3d4e5", "2".repeat(16)));
        assert_eq!(split(&then.name("main")), ("main", Some("0/16B3748")));
        assert_eq!(split("main"), ("main", None));
        assert_eq!(super::standby(split(&standby.name("main")).1), Some(&name[..]));
        assert_eq!(super::standby(split(&then.name("main")).1), None);
        Ok(())
    }

    #[test]
    fn a_standbys_name_is_a_word_that_can_be_a_part_of_a_path() {
        assert!(check_standby("ep-calm-frog-1").is_ok());
        for bad in ["", "ep-", "calm", "ep-a/b", "ep-..", "ep-A", "ep-a b"] {
            assert!(check_standby(bad).is_err(), "{bad:?}");
        }
    }
}
