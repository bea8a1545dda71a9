//! What a compute serves: a timeline as it goes on, or as it was at one moment of it.

use std::fmt;

use protocol::TimelineId;

/// Between a branch and a moment of it, in the name of a compute: `main@0/16B3748`.
pub(crate) const AT: char = '@';

/// What a compute serves. Two that serve the same moment are one compute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Served {
    /// The timeline.
    pub timeline: TimelineId,
    /// The LSN as of which it is read, and never written; `None` where it goes on.
    pub at: Option<String>,
}

impl Served {
    /// A timeline that goes on.
    pub(crate) fn head(timeline: TimelineId) -> Served {
        Served { timeline, at: None }
    }

    /// What the compute is called, of a branch that is called so.
    pub(crate) fn name(&self, branch: &str) -> String {
        match &self.at {
            Some(lsn) => format!("{branch}{AT}{lsn}"),
            None => branch.to_owned(),
        }
    }

    /// What the compute's folder is called: half of the timeline's id, and the LSN where there is one.
    /// The path of the Unix socket in it must fit 107 bytes, and 64 random bits are unique enough on
    /// one machine.
    pub(crate) fn folder_name(&self) -> String {
        let short: String = self.timeline.to_string().chars().take(16).collect();
        match &self.at {
            Some(lsn) => format!("{short}-{}", lsn.replace('/', "-")),
            None => short,
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name(&self.timeline.to_string()))
    }
}

/// A branch's name, and the moment of it that is asked for.
pub(crate) fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(AT) {
        Some((branch, moment)) => (branch, Some(moment)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_of_one_timeline_have_names_and_folders_of_their_own() -> anyhow::Result<()> {
        let head = Served::head("2".repeat(32).parse()?);
        let then = Served { at: Some("0/16B3748".to_owned()), ..head.clone() };
        assert_eq!(
            (head.name("main"), then.name("main")),
            ("main".into(), "main@0/16B3748".into())
        );
        assert_eq!(then.to_string(), format!("{}@0/16B3748", "2".repeat(32)));
        assert_eq!(head.folder_name(), "2".repeat(16));
        assert_eq!(then.folder_name(), format!("{}-0-16B3748", "2".repeat(16)));
        assert_eq!(split(&then.name("main")), ("main", Some("0/16B3748")));
        assert_eq!(split("main"), ("main", None));
        Ok(())
    }
}
