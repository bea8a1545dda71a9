//! The checksum of a page (Postgres: `src/include/storage/checksum_impl.h`, `pg_checksum_page`):
//! 32 FNV-1a hashes side by side over every 32nd word, folded, mixed with the block's number.

use super::Page;
use crate::PAGE_BYTES;

const LANES: usize = 32;
const FNV_PRIME: u32 = 16_777_619;

/// Where each lane starts: part of the format.
const LANE_STARTS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

impl Page {
    /// The checksum that belongs into this page at this block; `pd_checksum` itself counts as zero.
    pub fn checksum(&self, block: u32) -> u16 {
        let mut lanes = LANE_STARTS;
        for (row, bytes) in self.0.chunks_exact(LANES * 4).enumerate() {
            for (lane, sum) in lanes.iter_mut().enumerate() {
                let word = &bytes[lane * 4..lane * 4 + 4];
                let mut value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                if row == 0 && lane == 2 {
                    value &= 0xFFFF_0000;
                }
                *sum = mix(*sum, value);
            }
        }
        let folded = lanes.into_iter().fold(0, |all, sum| all ^ mix(mix(sum, 0), 0));
        ((folded ^ block) % 65_535 + 1) as u16
    }

    /// Writes the checksum, unless the page is new: those have none.
    pub fn set_checksum(&mut self, block: u32) {
        if !self.is_new() {
            let checksum = self.checksum(block);
            self.put_u16(8, checksum);
        }
    }

    /// `pd_checksum` as it stands.
    pub fn stored_checksum(&self) -> u16 {
        self.u16_at(8)
    }

    /// Whether Postgres would take this page with checksums on: the right checksum, or all zeros.
    pub fn verify_checksum(&self, block: u32) -> bool {
        if self.is_new() { self.is_zero() } else { self.stored_checksum() == self.checksum(block) }
    }
}

fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

const _: () = assert!(PAGE_BYTES.is_multiple_of(LANES * 4));
