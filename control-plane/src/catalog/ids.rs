//! Ids: words that people can say, and enough randomness that none is made twice.
//!
//! A project's first branch and its endpoint, and each branch's endpoint, are called after it: when
//! the catalog is built anew from the bucket, connection strings find their endpoint again.

use rand::{Rng, seq::IndexedRandom};

const FIRST: [&str; 48] = [
    "amber", "ancient", "autumn", "bitter", "blue", "bold", "brave", "bright", "broad", "calm",
    "clear", "cold", "cool", "crimson", "curly", "damp", "dark", "dawn", "divine", "dry", "early",
    "fancy", "flat", "fragrant", "frosty", "gentle", "green", "hidden", "holy", "icy", "jolly",
    "late", "little", "lively", "long", "lucky", "misty", "morning", "mute", "noisy", "odd", "old",
    "orange", "patient", "plain", "polished", "proud", "quiet",
];
const SECOND: [&str; 48] = [
    "art",
    "band",
    "bar",
    "base",
    "bird",
    "boat",
    "bonus",
    "bread",
    "breeze",
    "brook",
    "bush",
    "butterfly",
    "cake",
    "cell",
    "cherry",
    "cloud",
    "credit",
    "darkness",
    "dawn",
    "dew",
    "disk",
    "dream",
    "dust",
    "feather",
    "field",
    "fire",
    "firefly",
    "flower",
    "fog",
    "forest",
    "frog",
    "frost",
    "glade",
    "glitter",
    "grass",
    "hall",
    "hat",
    "haze",
    "heart",
    "hill",
    "king",
    "lab",
    "lake",
    "leaf",
    "limit",
    "math",
    "meadow",
    "mode",
];
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// 36 to the 10th: with the words, 62 bits.
const RANDOM_LETTERS: usize = 10;
/// Of an API key and of a password: 36 to the 40th are 206 bits.
const SECRET_LETTERS: usize = 40;

/// A project's id: `misty-cloud-4k2…`.
pub fn project(random: &mut impl Rng) -> String {
    words(random)
}

/// A branch's id: `br-misty-cloud-4k2…`.
pub fn branch(random: &mut impl Rng) -> String {
    format!("br-{}", words(random))
}

/// The id of a project's first branch.
pub fn first_branch(project: &str) -> String {
    format!("br-{project}")
}

/// The id of the endpoint of a branch.
pub fn endpoint(branch: &str) -> String {
    format!("ep-{}", branch.trim_start_matches("br-"))
}

/// The id of one of the endpoints of a branch through which it is only read.
pub fn read_only_endpoint(random: &mut impl Rng) -> String {
    format!("ep-{}", words(random))
}

/// An operation's id: a random UUID (RFC 9562, version 4).
pub fn operation(random: &mut impl Rng) -> String {
    let bits: u128 = random.random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Something to be kept secret, or to be guessed by nobody.
pub fn secret(random: &mut impl Rng) -> String {
    letters(random, SECRET_LETTERS)
}

/// A suffix that no other name has.
pub fn suffix(random: &mut impl Rng) -> String {
    letters(random, RANDOM_LETTERS)
}

fn words(random: &mut impl Rng) -> String {
    // The lists are not empty.
    let first = FIRST.choose(random).copied().unwrap_or_default();
    let second = SECOND.choose(random).copied().unwrap_or_default();
    format!("{first}-{second}-{}", letters(random, RANDOM_LETTERS))
}

fn letters(random: &mut impl Rng, count: usize) -> String {
    let one = |_| char::from(LETTERS[random.random_range(0..LETTERS.len())]);
    (0..count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn ids_have_the_form_that_clients_look_for() {
        let random = &mut StdRng::seed_from_u64(7);
        for _ in 0..1000 {
            let project = project(random);
            for id in [project.clone(), first_branch(&project), endpoint(&branch(random))] {
                let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                assert!(id.len() <= 60 && id.bytes().all(|b| is_letter(b) || b == b'-'), "{id}");
            }
            assert_eq!(first_branch(&project).split('-').count(), 4);
        }
    }

    #[test]
    fn an_operations_id_is_a_random_uuid() {
        let id = operation(&mut StdRng::seed_from_u64(7));
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
