//! The core suite's groups of tests that run at once.

use std::fs;

use anyhow::{Context, Result};

use crate::Suites;

/// Tests of the core suite that run at the same time: a line of its schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its place in the schedule, from 1.
    pub number: usize,
    /// `test: ` and the tests' names.
    pub(crate) line: String,
}

impl Suites {
    /// The core suite's groups, in order.
    ///
    /// # Errors
    /// Where the schedule cannot be read.
    pub fn groups(&self) -> Result<Vec<Group>> {
        let path = self.core_schedule();
        let schedule =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(groups(&schedule))
    }
}

fn groups(schedule: &str) -> Vec<Group> {
    let lines = schedule.lines().filter(|line| line.starts_with("test:"));
    (1..).zip(lines).map(|(number, line)| Group { number, line: format!("{line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_groups_in_order() {
        let schedule = "# required setup steps\ntest: test_setup\n\n# test: not this\ntest: a b\n";
        let lines: Vec<_> =
            groups(schedule).into_iter().map(|group| (group.number, group.line)).collect();
        let expected = [(1, "test: test_setup\n".to_owned()), (2, "test: a b\n".to_owned())];
        assert_eq!(lines, expected);
    }
}
