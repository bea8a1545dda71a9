//! `offshoot auth`: keys and tokens. No server is asked.

use std::time::SystemTime;

use access::SigningKey;

use super::Voice;
use crate::{cli::AuthVerb, failure::Failure, output, output::say};

/// Carries a verb out.
pub fn auth(voice: Voice, verb: AuthVerb) -> Result<(), Failure> {
    let failed = |error: access::KeyError| Failure::new(error.to_string());
    match verb {
        AuthVerb::Key { file } => {
            SigningKey::make(&file).map_err(failed)?;
            let public = format!("{}.pub", file.display());
            if voice.json {
                output::json(&serde_json::json!({ "key": file, "public_key": public }));
            } else {
                say!("the key is in {}, its public half in {public}", file.display());
            }
        }
        AuthVerb::Token { key, scope, life } => {
            let key = SigningKey::load(&key).map_err(failed)?;
            let token = key.sign(scope, SystemTime::now(), life);
            if voice.json {
                output::json(&serde_json::json!({ "token": token.secret() }));
            } else {
                say!("{}", token.secret());
            }
        }
    }
    Ok(())
}
