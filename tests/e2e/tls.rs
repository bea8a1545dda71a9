//! TLS between the processes: nothing that goes over a wire can be read there, and whoever was not
//! given the signer's certificate, or does not speak TLS, gets nothing.

use std::{
    path::Path,
    process::{Command, Output},
};

use access::tls::Trust;
use anyhow::{Context, Result, ensure};
use protocol::{TenantTimeline, page_service::PageError};
use serde_json::Value;

use crate::{
    harness::{
        Certificates, Cluster, OFFSHOOT, Process, free_port, safekeeper_status, token, turn,
        up_arguments,
    },
    page_client::PageClient,
};

/// What a row says that nobody else is to read.
const SECRET: &str = "the owl is not what it seems";

/// A tenant's life, with all that the processes say to each other about it.
async fn live(cluster: &Cluster) -> Result<TenantTimeline> {
    let (compute, database) = cluster.tenant("acme").await?;
    database.run(&format!("CREATE TABLE t AS SELECT '{SECRET}'::text s; CHECKPOINT")).await?;
    cluster.api.create_branch("acme", "try").await?;
    drop(database);
    cluster.api.stop("acme", "main").await?;
    for branch in ["main", "try"] {
        // Its page comes from the pageserver.
        let (_, database) = cluster.connect("acme", branch).await?;
        let said: String = database.one("SELECT s FROM t").await?;
        ensure!(said == SECRET, "{branch} says {said}");
    }
    Ok(TenantTimeline { tenant: compute.tenant_id, timeline: compute.timeline_id })
}

/// How the command line ended that asks the control plane by this address, and what it said.
fn ask(cluster: &Cluster, ca: Option<&Path>) -> Result<(i32, String)> {
    let address = cluster.called(cluster.api.control_plane).to_string();
    let mut command = Command::new(OFFSHOOT);
    command.args(["--control-plane", &address, "compute", "list", "--token-file"]);
    command.arg(cluster.path("operator-token"));
    if let Some(ca) = ca {
        command.arg("--tls-ca").arg(ca);
    }
    let Output { status, stdout, stderr } = command.output()?;
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    Ok((status.code().unwrap_or(-1), said))
}

/// What all tokens begin with: their header says the same.
fn token_head() -> Result<String> {
    let token = token().context("a token")?;
    Ok(token.secret().split('.').next().unwrap_or_default().to_owned())
}

/// The wires on which this was heard.
fn heard(cluster: &Cluster, text: &str) -> usize {
    cluster.wiretaps.values().filter(|wiretap| wiretap.heard(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_whoever_listens_between_the_processes_reads_rows_and_tokens() -> Result<()> {
    let cluster = Cluster::start_overheard(None).await?;
    live(&cluster).await?;
    let (code, said) = ask(&cluster, None)?;
    ensure!(code == 0 && said.contains("acme"), "{said}");
    // The page service, and two safekeepers at least.
    ensure!(heard(&cluster, SECRET) >= 3, "rows on {} wires", heard(&cluster, SECRET));
    let token = token_head()?;
    ensure!(heard(&cluster, &token) == 6, "tokens on {} wires", heard(&cluster, &token));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_nobody_reads_what_goes_between_the_processes_or_gets_in_without_it() -> Result<()>
{
    let certificates = Certificates::make()?;
    let cluster = Cluster::start_overheard(Some(&certificates)).await?;
    let timeline = live(&cluster).await?;
    let (code, said) = ask(&cluster, Some(&certificates.path("ca.crt")))?;
    ensure!(code == 0 && said.contains("acme"), "{said}");
    let token = token_head()?;
    for text in [SECRET, &token, "HTTP/1.1"] {
        ensure!(heard(&cluster, text) == 0, "{text:?} was heard");
    }
    for (server, wiretap) in &cluster.wiretaps {
        ensure!(wiretap.bytes() > 0, "nothing went to {server}");
    }
    strangers(&cluster, timeline).await?;

    // A newer certificate is shown to those who come from now on, and nobody was started anew.
    let ends = "offshoot_tls_certificate_not_after_seconds ";
    let metrics = cluster.api.metrics(cluster.api.pageserver).await?;
    ensure!(metrics.lines().any(|line| line.starts_with(ends)), "{metrics}");
    certificates.renew()?;
    cluster.api.stop("acme", "main").await?;
    let (_, database) = cluster.connect("acme", "main").await?;
    let said: String = database.one("SELECT s FROM t").await?;
    ensure!(said == SECRET, "{said}");
    Ok(())
}

/// Those who speak plainly, and those who believe somebody else, with a token that opens every door.
async fn strangers(cluster: &Cluster, timeline: TenantTimeline) -> Result<()> {
    let refused = PageClient::connect_showing(cluster.pageserver, timeline, None, token()).await?;
    let refused = refused.err().context("the page service spoke plainly")?;
    ensure!(matches!(&refused, PageError::Invalid(said) if said.contains("--tls-ca")), "{refused}");

    let refused = safekeeper_status(cluster.safekeepers[0], timeline, token()).await;
    let refused = refused.err().context("a safekeeper spoke plainly")?.to_string();
    ensure!(refused.contains("--tls-ca"), "{refused}");

    let (code, said) = ask(cluster, None)?;
    ensure!(code != 0 && said.contains("--tls-ca") && !said.contains("acme"), "{said}");
    for server in [cluster.api.pageserver, cluster.safekeeper_http, cluster.api.control_plane] {
        let answer = reqwest::get(format!("http://{server}/v1/status")).await?;
        let (status, body) = (answer.status(), answer.json::<Value>().await?);
        ensure!(status == 400 && body["code"] == "speaks_tls", "{server}: {status} {body}");
    }

    let others = Certificates::make()?;
    let (code, said) = ask(cluster, Some(&others.path("ca.crt")))?;
    ensure!(code != 0 && said.contains("nobody in"), "{said}");
    for server in [cluster.pageserver, cluster.safekeepers[1]] {
        let refused =
            others.trust()?.connect(server).await.err().context("somebody believed it")?;
        ensure!(refused.to_string().contains("nobody in"), "{refused}");
    }
    Ok(())
}

/// `offshoot up` that speaks TLS, and its command line.
struct Up<'c> {
    process: Process,
    ready: Value,
    certificates: &'c Certificates,
}

impl Up<'_> {
    fn start<'c>(folder: &Path, certificates: &'c Certificates) -> Result<Up<'c>> {
        let mut arguments = up_arguments(&folder.join("data"));
        arguments.extend(["--proxy".to_owned(), format!("127.0.0.1:{}", free_port())]);
        for (option, file) in
            [("--tls-cert", "server.crt"), ("--tls-key", "server.key"), ("--tls-ca", "ca.crt")]
        {
            arguments.extend([option.to_owned(), certificates.path(file).display().to_string()]);
        }
        let mut process = Process::spawn(&arguments, &folder.join("up.log"))?;
        let ready = serde_json::from_str(&process.wait_for_line("\"ready\"")?)?;
        Ok(Up { process, ready, certificates })
    }

    fn said(&self, name: &str) -> Result<&str> {
        self.ready[name].as_str().with_context(|| format!("{name} is not said"))
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(OFFSHOOT);
        command.arg("--tls-ca").arg(self.certificates.path("ca.crt"));
        command.args(["--control-plane", self.said("control_plane")?]);
        command.args(["--api-key-file", self.said("api_key_file")?]);
        command.args(["--token-file", self.said("token_file")?]);
        let Output { status, stdout, stderr } = command.args(arguments).output()?;
        ensure!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    }

    fn psql(&self, branch: &str, statement: &str) -> Result<String> {
        self.run(&["psql", "acme", branch, "--", "-XqAt", "-c", statement])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_lives_its_life_where_everything_is_encrypted() -> Result<()> {
    let _turn = turn().await;
    let folder = crate::harness::folder()?;
    let certificates = Certificates::make()?;
    let mut up = Up::start(folder.path(), &certificates)?;
    up.run(&["project", "create", "acme"])?;
    up.psql("main", &format!("CREATE TABLE t AS SELECT '{SECRET}'::text s"))?;
    up.run(&["endpoint", "suspend", "acme", "main"])?;
    ensure!(up.psql("main", "SELECT s FROM t")? == SECRET);
    up.run(&["branch", "create", "acme", "try"])?;
    ensure!(up.psql("try", "SELECT s FROM t")? == SECRET);
    let tenants = up.run(&["tenant", "list"])?;
    ensure!(!tenants.is_empty(), "no tenant");

    // Programs come by TLS, too, or are told how.
    let key = std::fs::read_to_string(up.said("api_key_file")?)?;
    let address = up.said("control_plane")?.to_owned();
    let ask = async |trust: Trust| {
        let url = format!("{}://{address}/api/v2/projects", trust.scheme());
        let answer = trust.http().get(url).bearer_auth(key.trim()).send().await?;
        anyhow::Ok((answer.status().as_u16(), answer.text().await?))
    };
    let (status, projects) = ask(certificates.trust()?).await?;
    ensure!(status == 200 && projects.contains("acme"), "{status}: {projects}");
    let (status, refused) = ask(Trust::default()).await?;
    ensure!(status == 400 && refused.contains("speaks_tls"), "{status}: {refused}");
    ensure!(up.process.stop()?.success(), "{}", up.process.log());
    Ok(())
}

#[test]
fn a_server_that_is_given_half_of_it_does_not_start() -> Result<()> {
    let certificates = Certificates::make()?;
    let mut command = Command::new(OFFSHOOT);
    command.args(["pageserver", "--no-auth", "--store", "file:///nowhere", "--tls-cert"]);
    let Output { status, stderr, .. } = command.arg(certificates.path("server.crt")).output()?;
    let said = String::from_utf8_lossy(&stderr);
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(said.contains("missing: --tls-key and --tls-ca."), "{said}");
    Ok(())
}
