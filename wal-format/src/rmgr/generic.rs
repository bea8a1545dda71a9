//! Generic's payload (Postgres: generic_xlog.c): per block, runs of bytes and where they go.

use crate::fields::Fields;

/// Runs of bytes, each with its position in the page.
#[derive(Clone, Copy)]
pub struct Delta<'a>(Fields<'a>);

impl<'a> Delta<'a> {
    /// A block's data.
    pub fn new(data: &'a [u8]) -> Delta<'a> {
        Delta(Fields::new(data))
    }

    /// The next run: its position and bytes; `Some(None)` where the data ends within one.
    pub fn next_run(&mut self) -> Option<Option<(usize, &'a [u8])>> {
        if self.0.rest().is_empty() {
            return None;
        }
        Some(self.read_run())
    }

    fn read_run(&mut self) -> Option<(usize, &'a [u8])> {
        let position = usize::from(self.0.u16()?);
        let length = usize::from(self.0.u16()?);
        Some((position, self.0.take(length)?))
    }
}
