//! Tables that fit into the terminal.
//!
//! On a terminal, a table is at most as wide as the terminal. The widest columns are shortened first, and a shortened
//! cell ends in `…`. In a pipe nothing is shortened, because `grep` and `awk` need the complete text.

use std::io::IsTerminal as _;

use crate::net::Printable;

/// The smallest width of a column, in characters. If all columns have this width, the table may be wider than the
/// terminal. Not tuned.
const NARROWEST: usize = 8;

/// The space between two columns.
const GAP: &str = "  ";

/// The head and the rows of a table. Columns of numbers are aligned to the right.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(head: [&'static str; N]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // The text of a cell may come from unknown people and may contain control characters.
        self.rows.push(cells.map(|cell| Printable(&cell).to_string()).to_vec());
    }

    /// Returns the table as text. `width` is the width of the terminal in characters, or `None` if the output is no
    /// terminal.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        let mut widths: Vec<usize> = (0..self.head.len()).map(|at| self.natural(at)).collect();
        if let Some(width) = width {
            let gaps = GAP.len() * (widths.len() - 1);
            fit(&mut widths, width.saturating_sub(gaps));
        }
        let head = self.head.iter().map(|title| (*title).to_owned()).collect();
        let lines = std::iter::once(&head).chain(&self.rows).map(|cells| self.line(cells, &widths));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let (cell, gap) = (cut(cell, *width), if at == 0 { "" } else { GAP });
            line.push_str(gap);
            let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
            let parts = if self.is_numbers(at) { [&*pad, &*cell] } else { [&*cell, &*pad] };
            parts.into_iter().for_each(|part| line.push_str(part));
        }
        line.truncate(line.trim_end().len());
        line
    }

    fn natural(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].chars().count());
        cells.max().unwrap_or(0).max(self.head[at].chars().count())
    }

    fn is_numbers(&self, at: usize) -> bool {
        let number =
            |cell: &String| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(':');
        !self.rows.is_empty()
            && self.rows.iter().all(|row| number(&row[at]) && !row[at].contains(['.', '-']) || row[at] == "-")
    }
}

/// Narrows the widest column again and again, until all columns together fit into `room` characters or none can be
/// narrower.
fn fit(widths: &mut [usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) else { return };
        *widest -= 1;
    }
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Returns the width in characters of the terminal on stdout, or `None` if stdout is no terminal.
pub(super) fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.or_else(|| rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col))).filter(|w| *w > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "PORT", "SELECTOR"]);
        table.row(["us-strict".to_owned(), "20001".to_owned(), "us-strict".to_owned()]);
        table.row(["a".to_owned(), "-".to_owned(), "nonus-session-a-very-long-one-indeed".to_owned()]);
        table
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\x1b[2J\r\nb\u{9b}c".to_owned()]);
        assert_eq!(table.text(None), "NAME\na\\u{1b}[2J\\r\\nb\\u{9b}c");
    }

    #[test]
    fn in_a_pipe_nothing_is_cut() {
        let want = "NAME        PORT  SELECTOR\nus-strict  20001  us-strict\n\
                    a              -  nonus-session-a-very-long-one-indeed";
        assert_eq!(table().text(None), want);
    }

    #[test]
    fn on_a_terminal_the_table_fits() {
        for width in [20, 30, 40, 60] {
            let text = table().text(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width.max(25)), "{width}:\n{text}");
        }
        assert!(table().text(Some(40)).ends_with("nonus-session-a-very-…"), "{}", table().text(Some(40)));
    }
}
