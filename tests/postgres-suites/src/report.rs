//! What `pg_regress` says, understood.

use std::path::PathBuf;

/// How a suite went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The tests that passed.
    pub passed: Vec<String>,
    /// The tests that failed, or were ended by a server that went away.
    pub failed: Vec<String>,
    /// What was not run, and why.
    pub skipped: Vec<(String, String)>,
    /// Where the failed tests' differences from the expected output are.
    pub differences: Vec<PathBuf>,
}

impl Report {
    /// Tests that were run.
    pub fn tests(&self) -> usize {
        self.passed.len() + self.failed.len()
    }

    /// Takes a line of `pg_regress`: `test name ... ok 12 ms`, or in a parallel group the same without `test`.
    /// Tests of an extension have its name before theirs.
    pub(crate) fn take_line(&mut self, extension: Option<&str>, line: &str) {
        let Some((name, outcome)) = line.split_once("... ") else { return };
        let name = name.trim();
        let name = name.strip_prefix("test ").unwrap_or(name).trim();
        let name = extension.map_or_else(|| name.to_owned(), |of| format!("{of}/{name}"));
        match outcome.split_whitespace().next() {
            Some("ok") => self.passed.push(name),
            Some("FAILED" | "failed") => self.failed.push(name),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pg_regress_are_understood_alone_and_in_groups() {
        let mut report = Report::default();
        for line in [
            "============== dropping database \"regression\"         ==============",
            "test tablespace                   ... ok         2012 ms",
            "parallel group (20 tests):  varchar char",
            "     boolean                      ... ok          123 ms",
            "     random                       ... failed (ignored)       31 ms",
            "     numeric                      ... FAILED      812 ms",
            "test drop_if_exists ... FAILED (test process exited with exit code 2)        8 ms",
            " 1 of 217 tests failed.",
        ] {
            report.take_line(None, line);
        }
        report
            .take_line(Some("hstore"), "test hstore_utf8                  ... ok           15 ms");
        assert_eq!(report.passed, ["tablespace", "boolean", "hstore/hstore_utf8"]);
        assert_eq!(report.failed, ["random", "numeric", "drop_if_exists"]);
        assert_eq!(report.tests(), 6);
    }
}
