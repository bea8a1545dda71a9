//! A test that is a program of its own: Cargo's harness would hold back what it prints.

use std::process::ExitCode;

use anyhow::Result;

/// Runs the test that Cargo calls `name`, unless only others are asked for, with the command line's
/// arguments. Whether it found everything as it should be is what `test` says.
pub fn run(name: &str, test: impl FnOnce(&[String]) -> Result<bool>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{name}: test");
        return ExitCode::SUCCESS;
    }
    // `cargo test NAME` asks every test binary for tests of that name.
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-'));
    if names.clone().next().is_some() && !names.any(|asked| name.contains(asked.as_str())) {
        return ExitCode::SUCCESS;
    }
    match test(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
