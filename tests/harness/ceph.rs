//! A Ceph cluster of one machine with its S3 gateway: a real distributed store, on loopback.
//!
//! One monitor, one manager, one object daemon that keeps its data in memory, one gateway. It
//! needs the packages `radosgw ceph-mon ceph-osd ceph-mgr ceph-common curl`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::ports::free_port;

const ACCESS_KEY: &str = "OFFSHOOTTESTKEY";
const SECRET_KEY: &str = "offshoot-test-secret";
const BUCKET: &str = "offshoot-test";
/// SHA-256 of an empty body, which the request's signature has to carry.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const START_MAX: Duration = Duration::from_secs(90);
const STARTS_MAX: usize = 3;

/// A running cluster; it ends, and its data with it, when this is dropped.
pub struct Ceph {
    daemons: Vec<Child>,
    endpoint: String,
    _folder: tempfile::TempDir,
}

impl Ceph {
    /// Starts a cluster whose gateway answers. One that does not come up is thrown away, and
    /// another is tried with a folder and ports of its own.
    pub fn start() -> Result<Ceph> {
        let mut complaints = Vec::new();
        for _ in 0..STARTS_MAX {
            match Ceph::try_start() {
                Ok(ceph) => return Ok(ceph),
                Err(complaint) => complaints.push(format!("{complaint:#}")),
            }
        }
        bail!("no Ceph cluster came up:\n{}", complaints.join("\n"))
    }

    /// Starts the daemons, makes a user and a bucket, and waits until the gateway answers.
    fn try_start() -> Result<Ceph> {
        let folder = tempfile::tempdir()?;
        let at = folder.path();
        let (monitor_port, gateway_port) = (free_port(), free_port());
        let fsid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let osd = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let (fsid, osd) = (fsid.trim(), osd.trim());
        for name in ["mon", "mgr", "osd", "rgw", "run", "log"] {
            fs::create_dir(at.join(name))?;
        }
        fs::write(at.join("ceph.conf"), configuration(at, fsid, monitor_port, gateway_port))?;
        let monitor = format!("[v1:127.0.0.1:{monitor_port}]");
        let map = at.join("monmap").display().to_string();

        run(at, "monmaptool", &["--create", "--fsid", fsid, "--addv", "a", &monitor, &map])?;
        run(at, "ceph-mon", &["--mkfs", "-i", "a", "--monmap", &map])?;
        let endpoint = format!("http://127.0.0.1:{gateway_port}");
        let mut ceph = Ceph { daemons: Vec::new(), endpoint, _folder: folder };
        let at = ceph._folder.path().to_owned();
        ceph.daemons.push(spawn(&at, "ceph-mon", &["-i", "a", "-f"])?);
        run(&at, "ceph", &["--connect-timeout", "60", "osd", "create", osd])
            .with_context(|| format!("the monitor: {}", said(&at, "ceph-mon")))?;
        ceph.daemons.push(spawn(&at, "ceph-mgr", &["-i", "x", "-f"])?);
        run(&at, "ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", osd])?;
        ceph.start_object_daemon(&at)?;
        let gateway = ["-n", "client.rgw", "--no-mon-config"];
        let user = ["user", "create", "--uid=offshoot", "--display-name=offshoot"];
        let keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY];
        run(&at, "radosgw-admin", &[&gateway[..], &user, &keys].concat())?;
        ceph.daemons.push(spawn(&at, "radosgw", &[&gateway[..], &["-f"]].concat())?);
        ceph.create_bucket()?;
        Ok(ceph)
    }

    /// Where Offshoot keeps its objects in this cluster.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/prefix")
    }

    /// The environment that an S3 client needs to reach the gateway.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    /// The gateway's address.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.endpoint.strip_prefix("http://").context("the gateway is plain HTTP")?;
        Ok(address.parse()?)
    }

    /// Stops the gateway from answering, without ending it: requests hang until [`Ceph::go_on`].
    pub fn pause(&self) -> Result<()> {
        self.signal_gateway("STOP")
    }

    /// Lets a paused gateway answer again.
    pub fn go_on(&self) -> Result<()> {
        self.signal_gateway("CONT")
    }

    /// Starts the object daemon and waits until the monitor counts it in. One that speaks to the
    /// monitor before it has learnt the cluster's id is refused ("wrong fsid"), and ends: it is
    /// started again.
    fn start_object_daemon(&mut self, at: &Path) -> Result<()> {
        let began = Instant::now();
        let mut daemon = spawn(at, "ceph-osd", &["-i", "0", "-f"])?;
        loop {
            if daemon.try_wait()?.is_some() {
                daemon = spawn(at, "ceph-osd", &["-i", "0", "-f"])?;
            }
            let told = command(at, "ceph", &["--connect-timeout", "10", "osd", "stat"])?
                .stdout(Stdio::piped())
                .output()?;
            if String::from_utf8_lossy(&told.stdout).contains("1 up") {
                self.daemons.push(daemon);
                return Ok(());
            }
            if began.elapsed() > START_MAX {
                daemon.kill()?;
                daemon.wait()?;
                bail!("the object daemon did not come up: {}", said(at, "ceph-osd"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn signal_gateway(&self, signal: &str) -> Result<()> {
        let gateway = self.daemons.last().context("the gateway was started last")?;
        let status =
            Command::new("kill").args(["-s", signal, &gateway.id().to_string()]).status()?;
        ensure!(status.success(), "the gateway could not be signalled: {status}");
        Ok(())
    }

    fn create_bucket(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let status = Command::new("curl")
                .args(["--silent", "--fail", "--output", "/dev/null", "--request", "PUT"])
                .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
                .args(["--user", &format!("{ACCESS_KEY}:{SECRET_KEY}")])
                .args(["--header", &format!("x-amz-content-sha256: {EMPTY_SHA256}")])
                .arg(format!("{}/{BUCKET}", self.endpoint))
                .status()
                .context("curl is not installed: apt-get install curl")?;
            if status.success() {
                return Ok(());
            }
            ensure!(began.elapsed() < START_MAX, "the S3 gateway did not come up: curl {status}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            // A daemon that ended by itself cannot be killed, and need not be.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A monitor ends by itself where a twentieth of the disk is not free, however much that is: it is
/// told not to.
fn configuration(at: &Path, fsid: &str, monitor_port: u16, gateway_port: u16) -> String {
    let at = at.display();
    format!(
        "[global]
fsid = {fsid}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
mon host = [v1:127.0.0.1:{monitor_port}]
mon allow pool size one = true
mon data = {at}/mon
mon data avail warn = 0
mon data avail crit = 0
mgr data = {at}/mgr
osd data = {at}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
run dir = {at}/run
log file = {at}/log/$name.log
admin socket = {at}/run/$name.$pid.asok
pid file = {at}/run/$name.$pid.pid
[client.rgw]
rgw data = {at}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
"
    )
}

fn command(at: &Path, program: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program);
    if program != "monmaptool" {
        command.arg("-c").arg(at.join("ceph.conf"));
    }
    let log = File::options().create(true).append(true).open(at.join("log").join(program))?;
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn spawn(at: &Path, program: &str, arguments: &[&str]) -> Result<Child> {
    command(at, program, arguments)?.spawn().with_context(|| missing(program))
}

/// Runs a program to its end, which one that waits for a cluster would not reach by itself.
fn run(at: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let mut child = spawn(at, program, arguments)?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > START_MAX {
            child.kill()?;
            child.wait()?;
            bail!("{program} {arguments:?} did not end in time: {}", said(at, program));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "{program} {arguments:?} failed ({status}): {}", said(at, program));
    Ok(())
}

fn said(at: &Path, program: &str) -> String {
    fs::read_to_string(at.join("log").join(program)).unwrap_or_default()
}

fn missing(program: &str) -> String {
    format!(
        "{program} is not installed: apt-get install --no-install-recommends \
         radosgw ceph-mon ceph-osd ceph-mgr ceph-common curl"
    )
}
