//! `corral-sidecar top`: the heaviest clients of this pod, as a plain table.

use std::fmt;

use crate::clients::{Had, Heavy};
use crate::control_socket::Top;

/// Heads of the columns.
const HEADS: [&str; 6] = ["CLIENT", "REQUESTS", "REFUSED", "TOKENS IN", "TOKENS OUT", "SLOT SECONDS"];

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.span_seconds / 60;
        writeln!(f, "clients of this pod over the last {minutes} minutes, heaviest first")?;
        let rows: Vec<[String; 6]> = self.clients.iter().map(row).collect();
        let heads = HEADS.map(str::to_owned);
        let all = || std::iter::once(&heads).chain(&rows);
        let widths: Vec<usize> = (0..HEADS.len())
            .map(|column| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
            .map(Option::unwrap_or_default)
            .collect();
        for row in all() {
            write_row(f, row, &widths)?;
        }
        if rows.is_empty() { writeln!(f, "(nobody)") } else { Ok(()) }
    }
}

/// The client to the left, its numbers to the right.
fn write_row(f: &mut fmt::Formatter<'_>, row: &[String; 6], widths: &[usize]) -> fmt::Result {
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        match column {
            0 => write!(f, "{cell:<width$}")?,
            _ => write!(f, "  {cell:>width$}")?,
        }
    }
    writeln!(f)
}

fn row(heavy: &Heavy) -> [String; 6] {
    let Had { requests, refused, input_tokens, output_tokens, slot_ms } = heavy.had;
    let client = if heavy.named { heavy.client.clone() } else { format!("address {}", heavy.client) };
    let slot = format!("{}.{}", slot_ms / 1000, slot_ms % 1000 / 100);
    let [requests, refused, input, output] =
        [requests, refused, input_tokens, output_tokens].map(|number| number.to_string());
    [client, requests, refused, input, output, slot]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_clients_by_key_or_by_digest() {
        let heavy = |client: &str, named, slot_ms| Heavy {
            client: client.to_owned(),
            named,
            had: Had { requests: 120, refused: 3, input_tokens: 40_210, output_tokens: 12_040, slot_ms },
        };
        let top = Top {
            span_seconds: 300,
            clients: vec![heavy("ann", true, 310_440), heavy("1a2b3c4d", false, 99)],
        };
        let expected = "\
clients of this pod over the last 5 minutes, heaviest first
CLIENT            REQUESTS  REFUSED  TOKENS IN  TOKENS OUT  SLOT SECONDS
ann                    120        3      40210       12040         310.4
address 1a2b3c4d       120        3      40210       12040           0.0
";
        assert_eq!(top.to_string(), expected);
        assert!(Top { clients: Vec::new(), ..top }.to_string().ends_with("(nobody)\n"));
    }
}
