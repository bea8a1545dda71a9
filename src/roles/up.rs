//! `offshoot up`: everything in one process.

use std::{net::SocketAddr, path::Path, time::Instant};

use ::access::{Bearer, Guard, PublicKeys, SigningKey, tls::Trust};
use control_plane::{Config, ControlPlane, PageserverAt, RegionConfig, RegionConfigs, Tokens};
use nix::unistd::User;
use pageserver::{NAME_DEFAULT, Pageserver};
use protocol::{NodeId, token::Scope};
use reqwest::Method;
use safekeeper::Safekeeper;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    access,
    control_plane::{computes_at, management, this_executable},
    data_folder::DataFolder,
    default_template, machine,
    stop::StopSignals,
    storage, tls,
};
use crate::{
    api::{Api, milliseconds},
    cli::{KEY_FILE_DEFAULT, TOKEN_FILE_DEFAULT, UpArgs},
    failure::Failure,
    output::{self, say},
    programs,
    verbs::Voice,
};

/// How many safekeepers `up` runs: a quorum of two outlives the loss of any one.
const SAFEKEEPERS: usize = 3;

/// What runs, in the order of its start.
struct Running {
    safekeepers: Vec<Safekeeper>,
    pageserver: Pageserver,
    control_plane: ControlPlane,
    /// Renews the operator's token, where there is one.
    operator_token: Option<JoinHandle<()>>,
}

/// Runs everything until it is told to stop.
pub async fn up(args: UpArgs, trust: Trust, voice: Voice) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    machine::check()?;
    machine::take_open_files();
    programs::find("postgres", args.postgres.pg_bin.as_deref())?;
    let user = machine::user(&args.postgres.user)?;
    if args.safekeepers.len() != SAFEKEEPERS {
        let said = args.safekeepers.len();
        return Err(Failure::new(format!(
            "--safekeepers names {said} addresses; {SAFEKEEPERS} are needed, one for each"
        )));
    }
    if args.no_auth {
        let listens = [args.http, args.pageserver_http, args.pageserver];
        access::refuse_open(&[&listens[..], &args.safekeepers].concat())?;
    }
    let folder = DataFolder::open(&args.data, &user)?;
    let running = tokio::select! {
        started = start(&args, &trust, &folder, &user, voice) => started?,
        () = signals.next() => return Err(Failure::new("stopped before the start was complete")),
    };
    say_ready(&args, trust.scheme(), &folder, voice);
    signals.next().await;
    say(voice, "stopping …");
    // Further signals change nothing: Ctrl-C reaches all of a terminal's processes, and whoever
    // started this may pass it on once more. A stop takes bounded time.
    stop(running).await;
    say(voice, "stopped");
    Ok(())
}

async fn start(
    args: &UpArgs,
    trust: &Trust,
    folder: &DataFolder,
    user: &User,
    voice: Voice,
) -> Result<Running, Failure> {
    let certificate = tls::certificate(&args.certificate, trust)?;
    let store_url = match &args.store {
        Some(url) => url.clone(),
        None => format!("file://{}", folder.private("store")?.display()),
    };
    let store = storage::open_store(&store_url).await?;
    let auth = folder.private("auth")?;
    let key = match args.no_auth {
        true => None,
        false => Some(access::own_key(&auth)?),
    };
    let door = storage::Door { certificate: certificate.clone(), ..door(key.as_ref(), trust) };
    let safekeepers = start_safekeepers(args, folder, &store, &door).await?;
    let bounds = storage::bounds(&args.limits, &store_url, Some(folder.join("cache")))?;
    let pageserver = storage::start_pageserver(
        (store, door),
        NAME_DEFAULT.to_owned(),
        (args.pageserver, args.pageserver_http),
        args.safekeepers.clone(),
        bounds,
    )
    .await?;
    let operator = match &key {
        Some(key) => Bearer::signs(key, Scope::Operator),
        None => Bearer::nobody(),
    };
    let operator = operator.trusting(trust.clone());
    ensure_default_template(args, operator, folder, user, voice).await?;
    let compute_life = args.tokens.compute_token_life;
    let tokens = key.clone().map(|key| {
        let accepted = PublicKeys::default();
        Tokens { key, accepted, compute_life }
    });
    let at = PageserverAt { pages: args.pageserver, http: args.pageserver_http };
    let region = RegionConfig {
        id: args.management.region.clone(),
        name: args.management.region.to_string(),
        store: Some(store_url),
        pageservers: vec![at],
        safekeepers: args.safekeepers.clone(),
        computes: computes_at(&args.computes, folder.join("computes"), &args.postgres),
        tokens,
    };
    let control_plane = ControlPlane::start(Config {
        certificate,
        trust: trust.clone(),
        http: args.http,
        executable: this_executable()?,
        regions: RegionConfigs::one(region),
        proxy: args.proxy.config(folder.private("proxy")?),
        suspend_after: args.proxy.suspend_after(),
        management: Some(management(folder.private("catalog")?, &args.postgres, &args.proxy)),
    })
    .await
    .map_err(|error| Failure::new(error.to_string()))?;
    let operator_token = match key {
        Some(key) => Some(access::keep_operator_token(key, &auth)?),
        None => None,
    };
    Ok(Running { safekeepers, pageserver, control_plane, operator_token })
}

/// Safekeepers and the pageserver let in whom this key has signed a token for, and show each other
/// their own.
fn door(key: Option<&SigningKey>, trust: &Trust) -> storage::Door {
    let (guard, bearer) = match key {
        Some(key) => (Guard::new(key.public().clone(), |_, _| {}), Bearer::signs(key, Scope::Peer)),
        None => (Guard::open(), Bearer::nobody()),
    };
    storage::Door { guard, bearer: bearer.trusting(trust.clone()), certificate: None }
}

/// Computes first: their last WAL goes through the quorum and their last pages come from the
/// pageserver.
async fn stop(running: Running) {
    if let Some(renewing) = running.operator_token {
        renewing.abort();
    }
    running.control_plane.shutdown().await;
    running.pageserver.shutdown().await;
    for safekeeper in running.safekeepers {
        safekeeper.shutdown().await;
    }
}

async fn start_safekeepers(
    args: &UpArgs,
    folder: &DataFolder,
    store: &storage::Store,
    door: &storage::Door,
) -> Result<Vec<Safekeeper>, Failure> {
    let members: Vec<(NodeId, SocketAddr)> =
        (1..).map(NodeId).zip(args.safekeepers.iter().copied()).collect();
    let mut started = Vec::with_capacity(members.len());
    for (node, listen) in &members {
        let peers = members.iter().filter(|(other, _)| other != node).copied().collect();
        let own = folder.private(&format!("safekeeper-{node}"))?;
        let config =
            storage::safekeeper_config(*node, own, *listen, peers, (store.clone(), door.clone()));
        started.push(storage::start_safekeeper(config).await?);
    }
    Ok(started)
}

/// Makes and imports the default template where the object store has none.
async fn ensure_default_template(
    args: &UpArgs,
    operator: Bearer,
    folder: &DataFolder,
    user: &User,
    voice: Voice,
) -> Result<(), Failure> {
    let api = Api::new("", operator);
    let address = args.pageserver_http.to_string();
    let path = ["templates"];
    let templates = api.ask("pageserver", &address, Method::GET, &path, None::<&()>).await?.value;
    let has_it = |template: &Value| template["name"] == default_template::NAME;
    let list = templates["templates"].as_array();
    if list.is_some_and(|list| list.iter().any(has_it)) {
        return Ok(());
    }
    say(voice, "first start: making the default template with initdb …");
    let began = Instant::now();
    let pgdata = folder.join("template-in-the-making");
    // What an earlier start left half made.
    clear(&pgdata)?;
    default_template::make(&pgdata, user, args.postgres.pg_bin.as_deref()).await?;
    let made = began.elapsed();
    say(voice, &format!("  made in {} ms; importing it …", milliseconds(made)));
    let body = json!({ "name": default_template::NAME, "pgdata": pgdata });
    api.ask("pageserver", &address, Method::POST, &path, Some(&body)).await?;
    say(voice, &format!("  imported in {} ms", milliseconds(began.elapsed() - made)));
    clear(&pgdata)
}

fn clear(folder: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("{}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

fn say_ready(args: &UpArgs, scheme: &str, folder: &DataFolder, voice: Voice) {
    let key_file = folder.path().join("catalog/api-key");
    let token_file = access::operator_token_file(&folder.path().join("auth"));
    if voice.json {
        output::json(&json!({
            "event": "ready",
            "control_plane": args.http,
            "proxy": args.proxy.proxy,
            "pageserver_http": args.pageserver_http,
            "pageserver": args.pageserver,
            "safekeepers": args.safekeepers,
            "data": folder.path(),
            "api_key_file": key_file,
            "token_file": (!args.no_auth).then_some(&token_file),
        }));
        return;
    }
    say!("offshoot is up, its data in {}", folder.path().display());
    say!("  control plane  {scheme}://{}", args.http);
    say!("  API            {scheme}://{}/api/v2, its key in {}", args.http, key_file.display());
    say!("  pageserver     {scheme}://{}", args.pageserver_http);
    if let Some(proxy) = args.proxy.proxy {
        say!("  proxy          {proxy}, for NAME.{} or options=endpoint%3DNAME", args.proxy.domain);
    }
    match args.no_auth {
        true => say!("  --no-auth: whoever reaches these ports may do everything"),
        false => say!("  operators      their token in {}", token_file.display()),
    }
    say!("next, in another terminal, as root:");
    if !args.no_auth && token_file != Path::new(TOKEN_FILE_DEFAULT) {
        say!("  export OFFSHOOT_TOKEN_FILE={}", token_file.display());
    }
    if args.proxy.proxy.is_some() {
        if key_file != Path::new(KEY_FILE_DEFAULT) {
            say!("  export OFFSHOOT_API_KEY_FILE={}", key_file.display());
        }
        say!("  offshoot project create acme");
        say!("  offshoot psql acme");
    } else {
        say!("  offshoot tenant create acme");
        say!("  offshoot tenant psql acme");
    }
    say!("Ctrl-C stops everything and leaves nothing mounted");
}

fn say(voice: Voice, sentence: &str) {
    if voice.json {
        output::json(&json!({ "event": "progress", "message": sentence }));
    } else {
        say!("{sentence}");
    }
}
