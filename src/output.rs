//! What a command prints: tables for people, JSON for programs.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

/// Prints a line. Unlike `println!` it does not panic where nobody reads any more, as behind
/// `| head`, or in a compute whose control plane is gone.
macro_rules! say {
    ($($arguments:tt)*) => { $crate::output::line(format_args!($($arguments)*)) };
}
pub(crate) use say;

/// What [`say`] is made of.
pub fn line(line: fmt::Arguments<'_>) {
    let _unread = writeln!(io::stdout(), "{line}");
}

/// Prints text that ends its own lines.
pub fn text(text: &str) {
    let _unread = io::stdout().write_all(text.as_bytes());
}

/// Prints one JSON value on one line.
pub fn json(value: &serde_json::Value) {
    say!("{value}");
}

/// A table with aligned columns, its titles in capitals.
pub fn table<const COLUMNS: usize>(titles: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let titles = titles.map(str::to_uppercase);
    let mut widths = titles.clone().map(|title| title.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a String cannot fail.
            let _written = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes as people read them: `23.4 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_spaces() {
        let rows = [["main".to_owned(), "-".to_owned()], ["t".to_owned(), "main".to_owned()]];
        assert_eq!(table(["name", "of"], &rows), "NAME  OF\nmain  -\nt     main\n");
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 40), "3.0 TiB");
        assert_eq!(size(5 << 50), "5120.0 TiB");
    }
}
