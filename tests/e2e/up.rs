//! `offshoot up`: everything in one process, and nothing left of it.

use std::{net::TcpListener, process::Command};

use serde_json::Value;

use crate::harness::{OFFSHOOT, PATIENCE, Process, folder, mounts_below, turn, up_arguments};

/// `offshoot` with these arguments, its answer and its exit code.
fn offshoot(ready: &Value, arguments: &[&str]) -> anyhow::Result<(Value, i32, String)> {
    let said = |name: &str| ready[name].as_str().unwrap_or_default();
    let output = Command::new(OFFSHOOT)
        .args(["--json", "--control-plane", said("control_plane")])
        .args(["--token-file", said("token_file")])
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&said).unwrap_or(Value::String(said));
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((value, output.status.code().unwrap_or(-1), complained))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_tour_works_and_sigterm_leaves_nothing_mounted_or_running() -> anyhow::Result<()>
{
    let _turn = turn().await;
    let folder = folder()?;
    let data = folder.path().join("data");
    let arguments = up_arguments(&data);
    let mut up = Process::spawn(&arguments, &folder.path().join("up.log"))?;
    let ready: Value = serde_json::from_str(&up.wait_for_line("\"ready\"")?)?;

    let (_, code, said) = offshoot(&ready, &["tenant", "create", "acme"])?;
    assert_eq!(code, 0, "{said}");
    let psql = |branch: &str, query: &str| {
        offshoot(&ready, &["tenant", "psql", "acme", branch, "--", "-qAtc", query])
    };
    let (_, code, said) = psql("main", "CREATE TABLE t AS SELECT generate_series(1, 100) n")?;
    assert_eq!(code, 0, "{said}");
    let (lsn, ..) = psql("main", "SELECT pg_current_wal_insert_lsn()")?;
    let lsn = lsn.as_str().unwrap_or_default().trim().to_owned();
    let (made, code, said) = offshoot(&ready, &["tenant", "branch", "create", "acme", "try"])?;
    assert_eq!((code, made["name"].as_str()), (0, Some("try")), "{said}");
    assert_eq!(psql("main", "DELETE FROM t")?.1, 0);
    assert_eq!(psql("try", "SELECT count(*) FROM t")?.0, Value::from(100));
    let (_, code, said) =
        offshoot(&ready, &["tenant", "branch", "restore", "acme", "main", "--at", &lsn])?;
    assert_eq!(code, 0, "{said}");
    assert_eq!(psql("main", "SELECT count(*) FROM t")?.0, Value::from(100));
    let (branches, ..) = offshoot(&ready, &["tenant", "branch", "list", "acme"])?;
    assert!(branches.to_string().contains("try"), "{branches}");
    let (computes, ..) = offshoot(&ready, &["compute", "list"])?;
    assert_eq!(computes.as_array().map(Vec::len), Some(2), "{computes}");
    assert!(!mounts_below(&data).is_empty());

    // The same data, twice: refused.
    let mut again = Process::spawn(&arguments, &folder.path().join("again.log"))?;
    let status = again.wait(PATIENCE)?;
    assert!(!status.success() && again.log().contains("in use"), "{}", again.log());

    // Ctrl-C reaches it, and whoever started it passes the end on once more.
    up.interrupt()?;
    let status = up.stop()?;
    assert!(status.success(), "up ended with {status}:\n{}", up.log());
    assert_eq!(mounts_below(&data), Vec::<std::path::PathBuf>::new());
    let left = Command::new("pgrep").arg("-af").arg(data.as_os_str()).output()?;
    assert!(left.stdout.is_empty(), "left: {}", String::from_utf8_lossy(&left.stdout));

    // And all is there again.
    let mut up = Process::spawn(&arguments, &folder.path().join("up.log"))?;
    up.wait_for_line("\"ready\"")?;
    assert_eq!(psql("main", "SELECT count(*) FROM t")?.0, Value::from(100));
    let (_, code, said) = offshoot(&ready, &["tenant", "delete", "acme", "--yes"])?;
    assert_eq!(code, 0, "{said}");
    let (_, code, _) = offshoot(&ready, &["tenant", "show", "acme"])?;
    assert_eq!(code, 4);
    assert!(up.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_a_sentence_that_names_it() -> anyhow::Result<()> {
    let _turn = turn().await;
    let folder = folder()?;
    let arguments = up_arguments(&folder.path().join("data"));
    let place = arguments.iter().position(|argument| argument == "--pageserver").unwrap_or(0);
    let address = arguments[place + 1].clone();
    let _holder = TcpListener::bind(&address)?;
    let mut up = Process::spawn(&arguments, &folder.path().join("up.log"))?;
    let status = up.wait(PATIENCE)?;
    assert!(!status.success());
    let log = up.log();
    assert!(log.contains(&address) && log.contains("in use"), "{log}");
    Ok(())
}
