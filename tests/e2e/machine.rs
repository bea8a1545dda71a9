//! A machine that lacks something: each lack is a sentence with its mend.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use crate::harness::{OFFSHOOT, folder};

fn said(output: Output) -> (bool, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn without_dev_fuse_the_flags_of_a_container_are_named() -> anyhow::Result<()> {
    let folder = folder()?;
    let data = folder.path().join("data");
    let script = r#"mount -t tmpfs none /dev && exec "$0" up --data "$1""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, OFFSHOOT])
        .arg(&data)
        .output()?;
    let (success, said) = said(output);
    assert!(!success);
    assert!(said.contains("--device /dev/fuse --cap-add SYS_ADMIN"), "{said}");
    assert!(!data.exists(), "something was made before the check");
    Ok(())
}

#[test]
fn a_user_without_root_is_told_to_use_sudo() -> anyhow::Result<()> {
    let folder = folder()?;
    // Where the user can reach it.
    let copy = folder.path().join("offshoot");
    std::fs::copy(OFFSHOOT, &copy)?;
    let output = Command::new("runuser")
        .args(["-u", "postgres", "--"])
        .arg(&copy)
        .arg("up")
        .current_dir("/")
        .output()?;
    let (success, said) = said(output);
    assert!(!success);
    assert!(said.contains("sudo"), "{said}");
    Ok(())
}

#[test]
fn a_data_folder_that_postgres_cannot_reach_is_named() -> anyhow::Result<()> {
    let closed = folder()?;
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700))?;
    let data = closed.path().join("data");
    let (success, said) = said(Command::new(OFFSHOOT).args(["up", "--data"]).arg(&data).output()?);
    assert!(!success);
    assert!(said.contains("cannot pass through") && said.contains("--data"), "{said}");
    Ok(())
}
