//! Makes the module that Postgres preloads (`handover`), by the compiler that builds everything else: it
//! has no dependencies, and stays a library of its own, without the standard library.

use std::{env, path::PathBuf, process::Command};

const SOURCE: &str = "handover/src/lib.rs";

fn main() {
    println!("cargo::rerun-if-changed=handover/src");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let module = PathBuf::from(variable("OUT_DIR")).join("handover.so");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--crate-name", "handover", "--crate-type", "cdylib", "--edition", "2024"]);
    // `core` is compiled anew, without unwinding: as it comes it wants functions that are nowhere.
    rustc.args(["-Copt-level=3", "-Cpanic=abort", "-Clto=fat", "-Cstrip=symbols"]);
    rustc.args(["--cfg", "feature=\"module\""]);
    rustc.arg("--target").arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    rustc.arg(SOURCE).arg("-o").arg(&module);
    let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?}: {error}"));
    assert!(status.success(), "{rustc:?}: {status}");
}
