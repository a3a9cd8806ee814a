//! Tables in Markdown, and marks: figures that a bench holds its results against.
#![expect(clippy::print_stdout, reason = "tables and marks are what a bench prints")]

/// Prints a table.
pub fn print(heads: &[&str], rows: &[Vec<String>]) {
    println!("| {} |\n|{}", heads.join(" | "), "---|".repeat(heads.len()));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
}

/// Prints whether a mark is met, and returns that.
pub fn mark(what: &str, met: bool) -> bool {
    println!("\n{}: {what}", if met { "met" } else { "MISSED" });
    met
}
