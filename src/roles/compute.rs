//! `offshoot compute run`: a compute in this process.

use ::access::{Bearer, tls::Trust};
use compute_shim::{ComputeConfig, Exit, Ready, Route, Serves, ShimError};
use control_plane::{ComputeEvent, Stages};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    access,
    stop::{StopSignals, stdin_lines},
};
use crate::{
    api::milliseconds,
    cli::ComputeRunArgs,
    failure::Failure,
    output::{self, say},
    verbs::Voice,
};

/// Runs until it is told to stop, fenced, or failed.
pub async fn compute(args: ComputeRunArgs, trust: Trust, voice: Voice) -> Result<(), Failure> {
    let (lines, stdin_end) = match args.until_stdin_ends || reads_stdin(&args) {
        true => stdin_lines(),
        false => (mpsc::unbounded_channel().1, oneshot::channel().1),
    };
    let bearer = match &args.auth_token {
        None => Bearer::nobody(),
        Some(_) if reads_stdin(&args) => access::brought(lines).await?,
        Some(file) => access::from_file(file)?,
    };
    let serves = match args.at {
        Some(at) => Serves::Moment(at),
        None if args.follow => Serves::Standby { checkpoint: args.checkpoint },
        None => Serves::Head,
    };
    let config = ComputeConfig {
        timeline: args.timeline,
        serves,
        pageservers: Route::of(&args.pageserver)
            .ok_or_else(|| Failure::new("--pageserver names none"))?,
        safekeepers: args.safekeepers,
        bearer: bearer.trusting(trust),
        folder: args.folder,
        listen: args.listen,
        pg_bin: args.postgres.pg_bin,
        user: Some(args.postgres.user),
        keep: args.keep,
        cgroups: args.cgroup,
        settings: args.settings,
    };
    let follows = matches!(config.serves, Serves::Standby { .. });
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    let mut signals = StopSignals::listen()?;
    let until_stdin_ends = args.until_stdin_ends;
    tokio::spawn(async move {
        let abandoned = async {
            match until_stdin_ends {
                // An error means that the thread is gone, and with it whatever could be read.
                true => drop(stdin_end.await),
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signals.next() => {}
            () = abandoned => {}
        }
        asked.cancel();
    });
    let ended =
        compute_shim::run(config, shutdown, |ready| say_ready(voice, follows, &ready)).await;
    let exit = match ended {
        Ok(exit) => exit,
        Err(error) => {
            let reason = error.to_string();
            let (event, code) = match error {
                ShimError::NoCheckpoint(_) => (ComputeEvent::NoCheckpoint { reason }, 1),
                ShimError::Fenced(_) => (ComputeEvent::Failed { reason }, FENCED_EXIT_CODE),
                _ => (ComputeEvent::Failed { reason }, 1),
            };
            say(voice, &event);
            return Err(Failure::with_code(code, error.to_string()));
        }
    };
    let code = exit.code();
    match exit {
        Exit::Stopped => {
            say(voice, &ComputeEvent::Stopped);
            Ok(())
        }
        Exit::Fenced(reason) => {
            say(voice, &ComputeEvent::Fenced { reason: reason.clone() });
            Err(Failure::with_code(code, reason))
        }
        Exit::Gone(reason) | Exit::Postgres(reason) => {
            say(voice, &ComputeEvent::Failed { reason: reason.clone() });
            Err(Failure::with_code(code, reason))
        }
    }
}

/// Whether its tokens are lines of standard input.
fn reads_stdin(args: &ComputeRunArgs) -> bool {
    args.auth_token.as_ref().is_some_and(|file| file.as_os_str() == "-")
}

/// The exit code of a compute that lost its timeline to a newer one.
const FENCED_EXIT_CODE: u8 = 3;

fn say_ready(voice: Voice, follows: bool, ready: &Ready) {
    if voice.json {
        let stage =
            |(name, took): &(&str, std::time::Duration)| ((*name).to_owned(), milliseconds(*took));
        let stages_ms: Stages = ready.stages.iter().map(stage).collect();
        let order = ready.stages.iter().map(|(name, _)| (*name).to_owned()).collect();
        say(voice, &ComputeEvent::Ready { port: ready.address.port(), stages_ms, order });
        return;
    }
    match ready.term {
        Some(term) => say!("ready at {} from {} in term {term}", ready.address, ready.start_lsn),
        None => {
            let how = if follows { "following from" } else { "as of" };
            say!("ready at {}, read-only, {how} {}", ready.address, ready.start_lsn);
        }
    }
    for (name, took) in &ready.stages {
        say!("  {name:<24} {:>9.3} ms", milliseconds(*took));
    }
}

/// Programs hear every event; people read the failure that follows on standard error.
fn say(voice: Voice, event: &ComputeEvent) {
    if voice.json {
        output::json(&serde_json::json!(event));
    }
}
