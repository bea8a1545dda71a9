//! `offshoot auth`: keys, tokens and certificates. No server is asked.

use std::time::SystemTime;

use access::{SigningKey, tls::SignerFiles};

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
        AuthVerb::Certificates { folder, names, life } => {
            std::fs::create_dir_all(&folder)
                .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
            let files = SignerFiles::of(&folder);
            let made = files.make(&names, SystemTime::now(), life);
            made.map_err(|error| Failure::new(error.to_string()))?;
            say_certificates(voice, &files);
        }
    }
    Ok(())
}

fn say_certificates(voice: Voice, files: &SignerFiles) {
    let SignerFiles { ca, ca_key, certificate, key } = files;
    if voice.json {
        output::json(&serde_json::json!({
            "tls_ca": ca, "ca_key": ca_key, "tls_cert": certificate, "tls_key": key
        }));
        return;
    }
    let options = [("--tls-cert", certificate), ("--tls-key", key), ("--tls-ca", ca)];
    let options = options.map(|(name, file)| format!("{name} {}", file.display()));
    say!("servers take    {}", options.join(" "));
    say!("others take     {}", options[2]);
    say!("keep elsewhere  {}", ca_key.display());
}
