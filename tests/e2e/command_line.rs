//! What the command line says when there is nobody to talk to, and where it is wrong.

use std::process::{Command, Output};

use crate::harness::OFFSHOOT;

fn offshoot(arguments: &[&str]) -> anyhow::Result<(i32, String)> {
    let Output { status, stdout, stderr } = Command::new(OFFSHOOT).args(arguments).output()?;
    let said = [stdout, stderr].concat();
    Ok((status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn a_server_that_does_not_run_is_named_with_the_mend() -> anyhow::Result<()> {
    let (code, said) = offshoot(&["--control-plane", "127.0.0.1:1", "tenant", "list"])?;
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("127.0.0.1:1") && said.contains("offshoot up"), "{said}");
    Ok(())
}

#[test]
fn a_wrong_command_line_exits_with_2() -> anyhow::Result<()> {
    let wrong = [
        &["tenant"][..],
        &["frobnicate"],
        // Neither says when.
        &["branch", "restore", "acme", "main"],
        &["branch", "expire", "acme", "main"],
        &["branch", "create", "acme", "--lsn", "0/1", "--timestamp", "2026-03-01T12:00:00Z"],
    ];
    for wrong in wrong {
        assert_eq!(offshoot(wrong)?.0, 2, "{wrong:?}");
    }
    let (code, said) = offshoot(&["up", "--safekeepers", "127.0.0.1:1"])?;
    assert!(code != 0 && said.contains("3 are needed"), "{said}");
    Ok(())
}

#[test]
fn help_teaches_with_examples_and_lists_the_exit_codes() -> anyhow::Result<()> {
    let (code, said) = offshoot(&["--help"])?;
    assert_eq!(code, 0);
    assert!(said.contains("offshoot project create acme") && said.contains("Exit codes"), "{said}");
    for verb in [["branch", "create"], ["branch", "restore"], ["template", "import"]] {
        let (code, said) = offshoot(&[verb[0], verb[1], "--help"])?;
        assert!(code == 0 && said.contains("Example"), "{said}");
    }
    Ok(())
}

#[test]
fn a_folder_without_postgres_is_named() -> anyhow::Result<()> {
    let (code, said) =
        offshoot(&["up", "--pg-bin", "/nonexistent", "--data", "/nonexistent/data"])?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("/nonexistent") && said.contains("--pg-bin"), "{said}");
    Ok(())
}
