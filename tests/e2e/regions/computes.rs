//! A compute's processes, and whom they talk to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use anyhow::Context;
use control_plane::Compute;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The shim, and whatever works in the compute's folder.
pub fn processes(compute: &Compute) -> anyhow::Result<Vec<Pid>> {
    let folder = compute.sockets.parent().context("a socket's folder is in the compute's")?;
    let shim = compute.pid.context("the compute runs")? as i32;
    let works_there =
        |path: &Path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
    let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<i32>().ok();
    let found = all.filter_map(|path| {
        let number = number(&path)?;
        (number == shim || works_there(&path)).then_some(Pid::from_raw(number))
    });
    Ok(found.collect())
}

/// Sends a signal to processes that may have ended.
pub fn signal(processes: &[Pid], signal: Signal) -> anyhow::Result<()> {
    for process in processes {
        match kill(*process, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The addresses that a compute's processes have connections to.
pub fn peers(compute: &Compute) -> anyhow::Result<BTreeSet<SocketAddr>> {
    let connections = connections()?;
    let mut peers = BTreeSet::new();
    for process in processes(compute)? {
        for entry in fs::read_dir(format!("/proc/{process}/fd"))?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let inode = target.to_string_lossy().replace(['[', ']'], "").replace("socket:", "");
            let Some((local, peer)) = connections.get(&inode) else { continue };
            // Its own clients come to it.
            if local.port() != compute.port {
                peers.insert(*peer);
            }
        }
    }
    Ok(peers)
}

/// The kernel's established connections over IPv4: by inode, both ends.
fn connections() -> anyhow::Result<BTreeMap<String, (SocketAddr, SocketAddr)>> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp")?;
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, peer) = (address(fields.get(1)?)?, address(fields.get(2)?)?);
        let is_established = *fields.get(3)? == ESTABLISHED;
        is_established.then(|| Some((fields.get(9)?.to_string(), (local, peer))))?
    };
    Ok(table.lines().skip(1).filter_map(read).collect())
}

/// `0100007F:1F90`: the address is a number of the machine's own order.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let host = u32::from_str_radix(host, 16).ok()?.to_ne_bytes();
    Some(SocketAddr::from((host, u16::from_str_radix(port, 16).ok()?)))
}
