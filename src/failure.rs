//! How a command ends when it fails: a sentence for people, an exit code for programs.

use std::fmt;

/// A command's failure. The exit codes are listed in the help.
#[derive(Debug)]
pub struct Failure {
    exit_code: u8,
    sentence: String,
}

impl Failure {
    /// A failure of no special kind.
    pub fn new(sentence: impl Into<String>) -> Failure {
        Failure { exit_code: 1, sentence: sentence.into() }
    }

    /// There is no such thing.
    pub fn not_found(sentence: impl Into<String>) -> Failure {
        Failure { exit_code: 4, sentence: sentence.into() }
    }

    /// It clashes with what is there.
    pub fn conflict(sentence: impl Into<String>) -> Failure {
        Failure { exit_code: 5, sentence: sentence.into() }
    }

    /// The server cannot be reached, or cannot do it now.
    pub fn unavailable(sentence: impl Into<String>) -> Failure {
        Failure { exit_code: 6, sentence: sentence.into() }
    }

    /// There is no API key, or it is refused.
    pub fn no_key(sentence: impl Into<String>) -> Failure {
        Failure { exit_code: 7, sentence: sentence.into() }
    }

    /// A failure with an exit code of its own.
    pub fn with_code(exit_code: u8, sentence: impl Into<String>) -> Failure {
        Failure { exit_code, sentence: sentence.into() }
    }

    /// Whether there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.exit_code == 4
    }

    /// The process' exit code.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Failure {}
