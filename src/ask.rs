//! What is asked before something is gone.

use std::io::{BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Has who sits there type a name; where nobody does, `--yes` is needed.
pub fn confirm(what: &str, consequence: &str, name: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(format!(
            "{what} would be deleted, {consequence}; add --yes where nobody can be asked"
        )));
    }
    // Not to standard output, which may be a program's.
    let mut stderr = std::io::stderr();
    let _unread = write!(stderr, "{what} is deleted, {consequence}. Type {name} to go on: ");
    let mut answer = String::new();
    match stdin.lock().read_line(&mut answer) {
        Ok(_) if answer.trim() == name => Ok(()),
        Ok(_) => Err(Failure::new("nothing was deleted")),
        Err(error) => Err(Failure::new(format!("the answer cannot be read: {error}"))),
    }
}
