//! Tables for people.

/// How times are written.
pub(super) const MINUTE: &str = "%Y-%m-%d %H:%M UTC";

/// Prints rows under heads, in columns as wide as they need.
pub(super) fn print_table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) {
    let heads = heads.map(str::to_owned);
    let all: Vec<&[String; N]> = std::iter::once(&heads).chain(&rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in all {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
