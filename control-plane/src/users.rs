//! Which user runs a compute's Postgres.

use std::{fmt, str::FromStr};

/// What stands for "no user of its own" on a command line.
const SHARED: &str = "none";

/// The users that computes run as. By default each has a number of its own, without an account, so
/// that it can read no other's files: not through `COPY … PROGRAM`, not through an extension. A port
/// belongs to one compute at a time, so the numbers follow the ports. The default lies above what
/// is given to accounts, to services and to containers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Users {
    /// All as the one user that [`crate::Config::compute_arguments`] names.
    Shared,
    /// Each as this number plus its port.
    Own {
        /// The number of port 0.
        first: u32,
    },
}

impl Default for Users {
    fn default() -> Users {
        Users::Own { first: 1_879_000_000 }
    }
}

impl Users {
    /// The number of whoever runs the compute on this port; `None`: the one that all have.
    pub(crate) fn of(self, port: u16) -> Option<u32> {
        match self {
            Users::Shared => None,
            Users::Own { first } => Some(first + u32::from(port)),
        }
    }
}

impl FromStr for Users {
    type Err = String;

    fn from_str(text: &str) -> Result<Users, String> {
        if text == SHARED {
            return Ok(Users::Shared);
        }
        let none = || {
            format!(
                "{text:?} is not the first of 65,536 user ids, such as 1879000000, nor {SHARED:?}"
            )
        };
        let first: u32 = text.parse().map_err(|_| none())?;
        // The largest number means "nobody in particular" to the kernel; 0 is root.
        let fits =
            first > 0 && first.checked_add(u32::from(u16::MAX)).is_some_and(|it| it < u32::MAX);
        if fits { Ok(Users::Own { first }) } else { Err(none()) }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Users::Shared => f.write_str(SHARED),
            Users::Own { first } => write!(f, "{first}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_written_and_read_alike() {
        for users in [Users::default(), Users::Shared] {
            assert_eq!(users.to_string().parse(), Ok(users));
        }
        for bad in ["", "0", "-1", "4294967295", "4294901760", "postgres"] {
            assert!(bad.parse::<Users>().is_err(), "{bad} was taken for user ids");
        }
    }

    #[test]
    fn two_ports_are_two_users() {
        let users = Users::default();
        assert_ne!(users.of(6500), users.of(6501));
        assert_eq!(Users::Shared.of(6500), None);
    }
}
