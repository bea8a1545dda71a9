//! The rules of the house that a program can check.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A file above this is split by its parts.
const LINES_MAX: usize = 700;

/// The crates whose code runs on what comes from disk and network.
const SERVER_CRATES: [&str; 6] =
    ["wal-format", "protocol", "safekeeper", "pageserver", "compute-shim", "control-plane"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository with this ending, and its text.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                // A golden file is not text.
                let Ok(text) = fs::read_to_string(&path) else { continue };
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} was found below {}", root().display());
    found
}

/// What of a server crate's file is not a test.
fn without_tests(path: &Path, text: &str) -> String {
    let is_test = |part: &str| part == "tests" || part == "tests.rs" || part.starts_with("test_");
    if path
        .strip_prefix(root())
        .unwrap_or(path)
        .iter()
        .any(|part| part.to_str().is_some_and(is_test))
    {
        return String::new();
    }
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

fn fail(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}\n  {}", breaches.join("\n  "));
}

#[test]
fn no_file_is_too_long() {
    let breaches: Vec<String> = files(".rs")
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    fail("a file of more lines than this is split by its parts: 700", &breaches);
}

#[test]
fn every_file_says_what_it_is() {
    let breaches: Vec<String> = files(".rs")
        .iter()
        .filter(|(path, _)| !path.ends_with("tests.rs"))
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#![doc"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    fail("a file begins with what it is (//!)", &breaches);
}

#[test]
fn a_test_that_is_a_program_runs_as_one() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let mut breaches = Vec::new();
    for target in manifest.split("\n\n").filter(|part| part.contains("[[test]]")) {
        let path = target.lines().find_map(|line| line.strip_prefix("path = "));
        let path = path.expect("a test target has a path").trim_matches('"');
        let text = fs::read_to_string(root().join(path)).expect("its file is there");
        let is_program = text.lines().any(|line| line.starts_with("fn main("));
        if is_program != target.contains("harness = false") {
            breaches.push(path.to_owned());
        }
    }
    fail("what has a main of its own says harness = false, or it runs no test at all", &breaches);
}

#[test]
fn nothing_is_left_half_done_in_the_servers() {
    let needles = ["todo!", "unimplemented!", "FIXME", "XXX", "TODO", ".unwrap()"];
    let mut breaches = Vec::new();
    for (path, text) in files(".rs") {
        let relative = path.strip_prefix(root()).unwrap_or(&path).to_owned();
        let of_server = SERVER_CRATES.iter().any(|name| relative.starts_with(name));
        if !of_server && !relative.starts_with("src") {
            continue;
        }
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            let found = needles.iter().find(|needle| line.contains(**needle));
            if let Some(needle) = found {
                breaches.push(format!("{}:{}: {needle}", relative.display(), number + 1));
            }
        }
    }
    fail("what is not done is not begun, and outside input is not unwrapped", &breaches);
}

#[test]
fn no_path_of_somebodys_machine_is_written_down() {
    // Put together here: this file may not hold them either.
    let needles = ["root", "work", "home"].map(|folder| format!("/{folder}/"));
    let mut breaches = Vec::new();
    for ending in [".rs", ".md", ".toml", "quickstart", "test", "run", "install"] {
        for (path, text) in files(ending) {
            for (number, line) in text.lines().enumerate() {
                if needles.iter().any(|needle| line.contains(needle.as_str())) {
                    breaches.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    fail("a path that only one machine has", &breaches);
}

#[test]
fn every_link_in_the_docs_leads_somewhere() {
    let mut breaches = Vec::new();
    for (path, text) in files(".md") {
        let folder = path.parent().expect("a file is in a folder");
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { folder.join(file) };
            let leads = target.is_dir() && anchor.is_empty()
                || fs::read_to_string(&target).is_ok_and(|text| has_anchor(&text, anchor));
            if !leads {
                breaches.push(format!("{}: {link}", path.display()));
            }
        }
    }
    fail("a link leads to a file, and to a heading in it", &breaches);
}

#[test]
fn every_decision_is_in_the_index() {
    let folder = root().join("docs/decisions");
    let index = fs::read_to_string(folder.join("README.md")).expect("the index of decisions");
    let breaches: Vec<String> = fs::read_dir(folder)
        .expect("the decisions")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "README.md" && !links(&index).contains(&name.as_str()))
        .collect();
    fail("docs/decisions/README.md lists every decision", &breaches);
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect()
}

/// Whether the text has a heading of this anchor, as GitHub makes them.
fn has_anchor(text: &str, anchor: &str) -> bool {
    let slug = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let headings = text.lines().filter(|line| line.starts_with('#'));
    anchor.is_empty()
        || headings.map(|line| slug(line.trim_start_matches('#'))).any(|s| s == anchor)
}

#[test]
fn every_command_of_the_readme_exists() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let mut breaches = Vec::new();
    for command in commands(&readme) {
        let command = command.strip_prefix("sudo ").unwrap_or(&command);
        let command = command.strip_prefix("target/release/").unwrap_or(command);
        let words: Vec<&str> = command.split_whitespace().collect();
        let exists = match words[..] {
            ["offshoot", ..] => is_understood(&words[1..]),
            ["cargo", "bench", ..] => value(&words, "--bench").is_some_and(is_bench),
            ["cargo", "test", ..] => value(&words, "--test").is_some_and(is_test),
            ["cargo", "run", ..] => value(&words, "--bin").is_some_and(is_program),
            ["cargo", "build", ..] => true,
            [script, ..] => fs::metadata(root().join(script))
                .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0),
            [] => true,
        };
        if !exists {
            breaches.push(command.to_owned());
        }
    }
    fail("the README shows commands that work", &breaches);
}

/// What follows an option.
fn value<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    let place = words.iter().position(|word| *word == option)?;
    words.get(place + 1).copied()
}

/// Whether a package has a test target of this name.
fn is_test(name: &str) -> bool {
    is_in("tests", name)
}

fn is_bench(name: &str) -> bool {
    is_in("benches", name)
}

/// Whether a crate has a program of this name in this folder.
fn is_in(folder: &str, name: &str) -> bool {
    let places = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/main.rs")];
    files(".rs").iter().any(|(path, _)| places.iter().any(|place| path.ends_with(place)))
}

/// Whether a package of this name has a program, which then has its name too.
fn is_program(name: &str) -> bool {
    let line = format!("name = \"{name}\"");
    let is_its = |text: &str| text.lines().any(|it| it == line);
    files("Cargo.toml")
        .iter()
        .any(|(path, text)| is_its(text) && path.with_file_name("src/main.rs").is_file())
}

/// The commands in the README's shell blocks, without what is said beside them.
fn commands(readme: &str) -> Vec<String> {
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let lines = blocks.flat_map(|(block, _)| block.lines());
    let said = lines.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
    said.filter(|line| !line.is_empty()).collect()
}

/// Whether the verbs are known to the command line, and their help has the options.
fn is_understood(arguments: &[&str]) -> bool {
    let help = |verbs: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_offshoot")).args(verbs).arg("--help").output();
        let output = output.expect("the binary runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Up to three words, as `tenant branch create`; what follows are names of things.
    let words = arguments.iter().take_while(|word| !word.starts_with('-')).count();
    let verbs = &arguments[..words.min(3)];
    let is_verb = |word: &&str| help(&[]).is_some_and(|text| text.contains(&format!("  {word} ")));
    if !arguments.first().is_some_and(|word| word.starts_with('-') || is_verb(word)) {
        return false;
    }
    let Some(text) = help(verbs) else { return false };
    let options = arguments.iter().filter(|word| word.starts_with("--") && **word != "--");
    options.into_iter().all(|option| text.contains(option))
}
