//! Whom the roles let in, and what they show to each other.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ::access::{Bearer, Guard, KeyError, PublicKeys, SigningKey, files, read_token};
use control_plane::Tokens;
use protocol::token::{Scope, Token};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    cli::{DoorArgs, SignerArgs},
    failure::Failure,
};

/// How long the operator's token is good that `offshoot up` leaves in its folder; it is replaced
/// after half of that.
const OPERATOR_LIFE: Duration = Duration::from_secs(3600);
/// How often a compute that was started by hand looks for a newer token in its file.
const FILE_LOOK: Duration = Duration::from_secs(5);

/// What a safekeeper or pageserver that listens there lets in, and what it shows.
pub fn door(args: &DoorArgs, listens: &[SocketAddr]) -> Result<(Guard, Bearer), Failure> {
    if args.no_auth {
        refuse_open(listens)?;
        return Ok((Guard::open(), Bearer::nobody()));
    }
    if args.auth_public_key.is_empty() {
        return Err(no_keys("--auth-public-key FILE"));
    }
    let Some(token) = &args.auth_token else {
        return Err(Failure::new(
            "--auth-token FILE is missing: the token that the other servers are shown; \
             `offshoot auth token --key FILE --for peer --life 365d` prints one",
        ));
    };
    let keys = PublicKeys::load(&args.auth_public_key).map_err(unusable)?;
    // Now, and not when the first commit waits for it.
    let shown = shown(token)?;
    keys.verify(&shown, SystemTime::now()).map_err(|denied| {
        Failure::new(format!("--auth-token {} holds {denied}", token.display()))
    })?;
    Ok((Guard::new(keys, |_, _| {}), Bearer::file(token.clone())))
}

/// The token in the file that `--auth-token` names.
fn shown(file: &Path) -> Result<Token, Failure> {
    read_token(file)
        .map_err(|error| Failure::new(format!("--auth-token {}: {error}", file.display())))
}

/// What a control plane that listens there signs tokens with.
pub fn signer(args: &SignerArgs, listen: SocketAddr) -> Result<Option<Tokens>, Failure> {
    if args.no_auth {
        refuse_open(&[listen])?;
        return Ok(None);
    }
    let key = args.auth_key.as_ref().ok_or_else(|| no_keys("--auth-key FILE"))?;
    let key = SigningKey::load(key).map_err(unusable)?;
    let accepted = PublicKeys::load(&args.auth_public_key).map_err(unusable)?;
    Ok(Some(Tokens { key, accepted, compute_life: args.computes.compute_token_life }))
}

/// Refuses to let everybody in by an address that others reach.
pub fn refuse_open(listens: &[SocketAddr]) -> Result<(), Failure> {
    match listens.iter().find(|listen| !listen.ip().is_loopback()) {
        None => Ok(()),
        Some(listen) => Err(Failure::new(format!(
            "--no-auth would let everybody in who reaches {listen}: listen on loopback, or give keys"
        ))),
    }
}

fn no_keys(option: &str) -> Failure {
    Failure::new(format!(
        "{option} is missing: `offshoot auth key FILE` makes a key. --no-auth lets everybody in who \
         reaches this process"
    ))
}

/// Says why a key is none.
pub fn unusable(error: KeyError) -> Failure {
    Failure::new(error.to_string())
}

/// The key of `offshoot up`, made at its first start, in a folder for root alone.
pub fn own_key(folder: &Path) -> Result<SigningKey, Failure> {
    SigningKey::load_or_make(&folder.join("key")).map_err(unusable)
}

/// Where the operator's token is in that folder.
pub fn operator_token_file(folder: &Path) -> PathBuf {
    folder.join("operator-token")
}

/// Leaves an operator's token in the folder, and a newer one from time to time, until it is aborted.
pub fn keep_operator_token(key: SigningKey, folder: &Path) -> Result<JoinHandle<()>, Failure> {
    let file = operator_token_file(folder);
    let write = move || {
        let token = key.sign(Scope::Operator, SystemTime::now(), OPERATOR_LIFE);
        let line = format!("{}\n", token.secret());
        files::replace(&file, &line, files::SECRET).map_err(|error| {
            Failure::new(format!("the operator's token in {}: {error}", file.display()))
        })
    };
    write()?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::time::sleep(OPERATOR_LIFE / 2).await;
            if let Err(failure) = write() {
                tracing::error!(%failure, "the operator's token could not be renewed");
            }
        }
    }))
}

/// What a compute shows whose tokens come as lines.
pub async fn brought(mut lines: mpsc::UnboundedReceiver<String>) -> Result<Bearer, Failure> {
    let first = lines.recv().await;
    let first = first.ok_or_else(|| Failure::new("standard input ended before it had a token"))?;
    let (sender, receiver) = watch::channel(Some(Token::new(first)));
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            sender.send_replace(Some(Token::new(line)));
        }
        // What it has is shown for as long as it lives.
        sender.closed().await;
    });
    Ok(Bearer::brought(receiver))
}

/// What a compute shows whose tokens are in a file.
pub fn from_file(file: &Path) -> Result<Bearer, Failure> {
    let (sender, receiver) = watch::channel(Some(shown(file)?));
    let file = file.to_owned();
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(FILE_LOOK).await;
            match shown(&file) {
                Ok(token) => {
                    sender.send_if_modified(|shown| {
                        let is_newer = shown.as_ref() != Some(&token);
                        *shown = Some(token);
                        is_newer
                    });
                }
                Err(failure) => tracing::warn!(%failure, "the token could not be read anew"),
            }
        }
    });
    Ok(Bearer::brought(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_let_in_without_a_key_unless_the_operator_says_so_and_listens_on_loopback() {
        let args = |no_auth| DoorArgs { auth_public_key: vec![], auth_token: None, no_auth };
        let [here, anywhere] =
            ["127.0.0.1:1", "0.0.0.0:1"].map(|it| it.parse().expect("it is one"));
        let refused = |no_auth, listen| {
            door(&args(no_auth), &[here, listen]).err().map(|failure| failure.to_string())
        };
        assert!(refused(false, here).is_some_and(|it| it.contains("offshoot auth key")));
        assert!(refused(true, anywhere).is_some_and(|it| it.contains("0.0.0.0:1")));
        assert_eq!(refused(true, here), None);
    }
}
