//! Certificates for processes on loopback, and somebody who has signed them.

use std::{path::PathBuf, process::Command};

use access::tls::Trust;
use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::OFFSHOOT;

/// A folder with what `offshoot auth certificates` makes.
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes all of it.
    pub fn make() -> Result<Certificates> {
        let certificates = Certificates(tempfile::tempdir()?);
        certificates.renew()?;
        Ok(certificates)
    }

    /// Makes a newer certificate, signed by the same one.
    pub fn renew(&self) -> Result<()> {
        let mut command = Command::new(OFFSHOOT);
        command.args(["auth", "certificates", "--for", "127.0.0.1"]).arg(self.0.path());
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// One of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Believes whom it has signed.
    pub fn trust(&self) -> Result<Trust> {
        Ok(Trust::load(&self.path("ca.crt"))?)
    }

    /// How processes are told of them.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let variables = [
            ("OFFSHOOT_TLS_CERT", "server.crt"),
            ("OFFSHOOT_TLS_KEY", "server.key"),
            ("OFFSHOOT_TLS_CA", "ca.crt"),
        ];
        variables.map(|(name, file)| (name, self.path(file).display().to_string())).into()
    }
}
