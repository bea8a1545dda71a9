//! The `offshoot` binary: every role of the engine behind one command line.
fn main() {}
