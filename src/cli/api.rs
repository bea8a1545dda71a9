//! How the management API of a running control plane is reached.

use std::path::PathBuf;

use clap::Args;

/// Where the first start of `offshoot up` leaves its key.
pub const KEY_FILE_DEFAULT: &str = "/var/lib/offshoot/catalog/api-key";

/// Where the management API is, and who asks.
#[derive(Args)]
#[command(next_help_heading = "Management API")]
pub struct ApiArgs {
    /// The management API's address, for projects and all that belongs to them; the control plane's
    /// where none is said.
    #[arg(long, global = true, value_name = "URL", env = "OFFSHOOT_API_URL")]
    pub api_url: Option<String>,
    /// The API key. Others on this machine may see what is on a command line: the variable and the
    /// file are for keys that matter.
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "OFFSHOOT_API_KEY",
        hide_env_values = true
    )]
    pub api_key: Option<String>,
    /// The file with the API key, where no key is said.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "OFFSHOOT_API_KEY_FILE",
        default_value = KEY_FILE_DEFAULT
    )]
    pub api_key_file: PathBuf,
}
