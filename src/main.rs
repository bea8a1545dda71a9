//! The `offshoot` binary: every role of the engine behind one command line. It wires the server
//! crates together and speaks to people; it holds no logic of theirs.

mod api;
mod ask;
mod cli;
mod failure;
mod management;
mod output;
mod programs;
mod roles;
mod verbs;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{
    api::Api,
    cli::{Cli, Command, ComputeVerb},
    failure::Failure,
    management::Client,
    verbs::Voice,
};

/// Says which log lines are printed, in the form of `tracing_subscriber`'s filters.
const LOG_VARIABLE: &str = "OFFSHOOT_LOG";
/// What is not said unless it is asked for.
///
/// A reply that the kernel does not take was to an interruption that came after the interrupted
/// request was answered, or the mount has ended. Neither is an error, which fuser takes it for.
/// What befalls the disk cache is said by its owner, once; foyer says it for every block. The client of
/// Postgres would say every statement, and with it the verifiers of passwords.
const UNSAID: &str = "fuser::reply=off,foyer=off,tokio_postgres=warn";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json;
    log_to_stderr();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("offshoot: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(cli));
    // A task that is stuck in a system call must not hold the end up.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if json {
                output::json(&serde_json::json!({ "error": failure.to_string() }));
            }
            eprintln!("offshoot: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn log_to_stderr() {
    // The later of two directives for the same target counts: what was asked for does.
    let filter = |directives: &str| EnvFilter::try_new(format!("{UNSAID},{directives}"));
    let asked = std::env::var(LOG_VARIABLE).ok().filter(|asked| !asked.is_empty());
    let filter = asked
        .and_then(|asked| filter(&asked).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("{UNSAID},warn")));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let voice = Voice { json: cli.json };
    let trust = roles::trust(&cli.trust)?;
    let api = Api::with_token_of(&cli.control_plane, &cli.operator.token_file, trust.clone());
    let client = || Client::new(&cli.api, &cli.control_plane, &trust);
    match cli.command {
        Command::Up(args) => roles::up(*args, trust, voice).await,
        Command::Safekeeper(args) => roles::safekeeper(args, trust).await,
        Command::Pageserver(args) => roles::pageserver(args, trust).await,
        Command::ControlPlane(args) => roles::control_plane(*args, trust).await,
        Command::Compute(ComputeVerb::Run(args)) => roles::compute(*args, trust, voice).await,
        Command::Compute(verb) => verbs::compute(&api, voice, verb).await,
        Command::Project(verb) => management::project(&client()?, voice, verb).await,
        Command::Region(verb) => management::region(&client()?, voice, verb).await,
        Command::Branch(verb) => management::branch(&client()?, voice, verb).await,
        Command::Endpoint(verb) => management::endpoint(&client()?, voice, verb).await,
        Command::Role(verb) => management::role(&client()?, voice, verb).await,
        Command::Database(verb) => management::database(&client()?, voice, verb).await,
        Command::Operation(verb) => management::operation(&client()?, voice, verb).await,
        Command::Psql(args) => management::psql(&client()?, args).await,
        Command::ConnectionString(args) => {
            management::connection_string(&client()?, voice, args).await
        }
        Command::Logs(args) => management::logs(&client()?, voice, args).await,
        Command::Tenant(verb) => verbs::tenant(&api, voice, verb).await,
        Command::Snapshot(verb) => verbs::snapshot(&api, voice, verb).await,
        Command::Template(verb) => management::template(client, &api, voice, verb).await,
        Command::ApiKey(verb) => management::api_key(&client()?, voice, verb).await,
        Command::Status => verbs::status(&api, voice).await,
        Command::Auth(verb) => verbs::auth(voice, verb),
        Command::Scrub(args) => verbs::scrub(voice, args).await,
    }
}
