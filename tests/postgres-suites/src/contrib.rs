//! Which tests an extension has: its Makefile says so.

/// What the Makefile of a contrib module says of its tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// The extension that the server must have; none where the module is only loaded.
    pub extension: Option<String>,
    /// Tests for `pg_regress`.
    pub regress: Vec<String>,
    /// Tests for `pg_isolation_regress`.
    pub isolation: Vec<String>,
    /// An extension that must be in the database before the isolation tests.
    pub load: Option<String>,
}

impl Module {
    pub fn parse(makefile: &str) -> Module {
        let load = |options: Vec<String>| {
            options
                .iter()
                .find_map(|word| word.strip_prefix("--load-extension=").map(str::to_owned))
        };
        Module {
            extension: variable(makefile, "EXTENSION").into_iter().next(),
            regress: variable(makefile, "REGRESS"),
            isolation: variable(makefile, "ISOLATION"),
            load: load(variable(makefile, "ISOLATION_OPTS")),
        }
    }
}

/// The words of `NAME = …`, over continued lines.
fn variable(makefile: &str, name: &str) -> Vec<String> {
    let joined = makefile.replace("\\\n", " ");
    let values = joined.lines().filter_map(|line| {
        let (left, right) = line.split_once('=')?;
        (left.trim_end_matches('+').trim() == name).then_some(right)
    });
    let words = values.flat_map(str::split_whitespace).map(|word| match word {
        // pgcrypto asks whether Postgres was built with zlib: Debian's was.
        "$(CF_PGP_TESTS)" => "pgp-compression".to_owned(),
        word => word.to_owned(),
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_makefile_tells_its_tests() {
        let module = Module::parse(
            "EXTENSION = postgres_fdw\nREGRESS = init \\\n\tcheck $(CF_PGP_TESTS)\n\
             REGRESS_OPTS = --temp-config x\nISOLATION = eval_plan_qual\n\
             ISOLATION_OPTS = --load-extension=postgres_fdw\n",
        );
        assert_eq!(module.extension.as_deref(), Some("postgres_fdw"));
        assert_eq!(module.regress, ["init", "check", "pgp-compression"]);
        assert_eq!(module.isolation, ["eval_plan_qual"]);
        assert_eq!(module.load.as_deref(), Some("postgres_fdw"));
    }
}
