//! Rows and columns of text, for people.

use std::io::{self, Write};

/// Writes a table with its header; the last column is not padded.
pub(super) fn write<const N: usize>(
    out: &mut impl Write,
    header: &[&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let header = header.map(str::to_owned);
    let mut widths = header.each_ref().map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // what people wrote must not write to the terminal
            let cell: String = cell
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            line.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_control_characters_are_shown_as_marks() {
        let mut out = Vec::new();
        let rows = [
            ["a".to_owned(), "b".to_owned()],
            ["long er".to_owned(), "\u{1b}[2J".to_owned()],
        ];
        write(&mut out, &["ONE", "TWO"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "ONE      TWO\na        b\nlong er  ?[2J\n");
    }
}
