//! What was measured, as tables for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::claims::Claims;
use super::load::Seen;

/// What stands above the tables in `benches/RESULTS.md`.
pub const HEAD: &str = "\
# Side by side

Written by `cargo bench --bench side_by_side -- --write-results`.

* **product**: the shipped server, with recognition, limits and row-level security on.
* **bare**: the plainest server one could write, axum and sqlx: the same statements without any of that. Its `tools/list` is
  the product's answer as bytes that it keeps.
* **rmcp**, **typescript**, **python**: servers on the official SDKs, with the same statements.

Each was measured at 1, 8 and 64 connections (c1, c8, c64) with the requests of 64 customers in turn; a ratio is the median
of the rounds'. Before that, every request was sent once to each, which had to show the same runs. Of each goal, the *aim* is what we want and the *gate* what we do not want to fall behind; the last
column says which of them was met everywhere, **missed** where not even the gate was. Claims: runs that workers take from the
queue, against jobs from a plain table.

";

/// One measurement of one call on one server.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sample {
    pub rate: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU of the server's process for each request.
    pub server_us: f64,
    /// CPU of the database's processes for each request.
    pub database_us: f64,
}

impl Sample {
    pub fn new(seen: Seen, (server_us, database_us): (f64, f64)) -> Self {
        let each = |us: f64| us / seen.answers.max(1.0);
        Self {
            rate: seen.rate,
            p50_us: seen.p50,
            p99_us: seen.p99,
            server_us: each(server_us),
            database_us: each(database_us),
        }
    }
}

/// All rounds of one call on one server at one number of connections.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub call: &'static str,
    pub server: &'static str,
    pub connections: usize,
    pub rounds: Vec<Sample>,
}

impl Cell {
    fn median(&self, of: fn(&Sample) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }
}

/// Memory in MB and start in milliseconds.
#[derive(Debug, Serialize)]
pub struct Footprint {
    pub server: &'static str,
    pub idle_mb: f64,
    /// Without what is in the page cache, as the program's own file.
    pub idle_private_mb: f64,
    pub at_64_mb: f64,
    pub start_ms: f64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When and on what.
    pub date: String,
    pub machine: String,
    pub data: String,
    pub cells: Vec<Cell>,
    pub footprints: Vec<Footprint>,
    /// Runs claimed a second.
    pub claims: Vec<Claims>,
}

/// A goal, with what was found.
struct Gate {
    number: u8,
    what: &'static str,
    bound: Bound,
    found: Vec<(String, f64)>,
}

enum Bound {
    AtLeast { gate: f64, aim: f64 },
    AtMost { gate: f64, aim: f64 },
}

const CALLS: [&str; 2] = ["get_run", "list_runs page"];
const ALL: [usize; 3] = [1, 8, 64];
const BUSY: [usize; 2] = [8, 64];

/// What is read off a sample.
type Figure = fn(&Sample) -> f64;

impl Report {
    fn cell(&self, call: &str, server: &str, connections: usize) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.call == call && cell.server == server && cell.connections == connections)
    }

    /// The median of the rounds' ratios of the product to another server.
    fn ratio(&self, call: &str, other: &str, connections: usize, of: fn(&Sample) -> f64) -> Option<f64> {
        let (ours, theirs) = (self.cell(call, "product", connections)?, self.cell(call, other, connections)?);
        Some(median(ours.rounds.iter().zip(&theirs.rounds).map(|(ours, theirs)| of(ours) / of(theirs))))
    }

    fn ratios(
        &self,
        calls: &[&str],
        other: &str,
        connections: &[usize],
        of: fn(&Sample) -> f64,
    ) -> Vec<(String, f64)> {
        let cells = calls.iter().flat_map(|call| connections.iter().map(move |c| (*call, *c)));
        cells
            .filter_map(|(call, c)| Some((format!("{call} c{c}"), self.ratio(call, other, c, of)?)))
            .collect()
    }

    fn gates(&self) -> Vec<Gate> {
        let gate = |number, what, bound, found| Gate { number, what, bound, found };
        let least = |gate, aim| Bound::AtLeast { gate, aim };
        let most = |gate, aim| Bound::AtMost { gate, aim };
        let (rate, cpu): (Figure, Figure) = (|s| s.rate, |s| s.server_us);
        let sdks = ["typescript", "python"].iter().flat_map(|server| {
            let found = self.ratios(&CALLS, server, &[8], rate).into_iter();
            found.map(move |(call, ratio)| (format!("{server} {call}"), ratio))
        });
        let product = self.footprints.iter().find(|footprint| footprint.server == "product");
        let foot = |of: fn(&Footprint) -> f64| product.map(|p| (String::new(), of(p))).into_iter().collect();
        let claims = self.claims_at_once();
        let claims = claims
            .iter()
            .map(|(at_once, claims)| {
                (format!("{at_once} at once"), median(claims.iter().map(|found| found.product / found.plain)))
            })
            .collect();
        vec![
            gate(1, "rate / bare", least(0.75, 0.85), self.ratios(&CALLS, "bare", &ALL, rate)),
            gate(2, "rate / rmcp, c1", least(1.1, 1.5), self.ratios(&CALLS, "rmcp", &[1], rate)),
            gate(2, "rate / rmcp, c8 and c64", least(1.3, 1.5), self.ratios(&CALLS, "rmcp", &BUSY, rate)),
            gate(3, "server CPU / rmcp", most(0.65, 0.5), self.ratios(&CALLS, "rmcp", &ALL, cpu)),
            gate(
                4,
                "tools/list / same bytes",
                least(0.7, 0.85),
                self.ratios(&["tools/list"], "bare", &ALL, rate),
            ),
            gate(5, "tools/list / rmcp", least(1.8, 2.2), self.ratios(&["tools/list"], "rmcp", &BUSY, rate)),
            gate(
                5,
                "tools/list, server CPU / rmcp",
                most(0.45, 0.33),
                self.ratios(&["tools/list"], "rmcp", &BUSY, cpu),
            ),
            gate(6, "rate / SDKs, c8", least(7.0, 10.0), sdks.collect()),
            gate(
                7,
                "database CPU / bare",
                most(1.4, 1.25),
                self.ratios(&CALLS, "bare", &ALL, |s| s.database_us),
            ),
            gate(8, "p99 / bare, c64", most(1.5, 1.2), self.ratios(&CALLS, "bare", &[64], |s| s.p99_us)),
            gate(9, "memory idle, MB", most(15.0, 8.0), foot(|p| p.idle_mb)),
            gate(9, "memory at c64, MB", most(30.0, 15.0), foot(|p| p.at_64_mb)),
            gate(9, "start of serve, ms", most(150.0, 80.0), foot(|p| p.start_ms)),
            gate(10, "claims / plain claims", least(0.5, 0.7), claims),
        ]
    }

    /// The few figures that the README quotes, in Markdown.
    pub fn summary(&self) -> String {
        let mut text = String::from(
            "| call | rate / bare | rate / `rmcp` | server CPU / `rmcp` | database CPU / bare |\n|---|--:|--:|--:|--:|\n",
        );
        for call in ["tools/list", CALLS[0], CALLS[1]] {
            let ratio = |other, of: fn(&Sample) -> f64| match self.ratio(call, other, 8, of) {
                Some(ratio) => format!("{ratio:.2}"),
                None => "–".to_owned(),
            };
            let database = match call {
                "tools/list" => "–".to_owned(),
                _ => ratio("bare", |s| s.database_us),
            };
            let (rate, cpu): (Figure, Figure) = (|s| s.rate, |s| s.server_us);
            let (bare, rmcp, cpu) = (ratio("bare", rate), ratio("rmcp", rate), ratio("rmcp", cpu));
            let _ = writeln!(text, "| `{call}` | {bare} | {rmcp} | {cpu} | {database} |");
        }
        let _ = writeln!(text, "\nAt 8 connections; {}, {}; {}.", self.date, self.machine, self.data);
        text
    }

    /// The tables, in Markdown.
    pub fn tables(&self) -> String {
        let mut text = format!("{}, {}; {}.\n\n", self.date, self.machine, self.data);
        text.push_str("| goal | ratio of the product | gate | aim | found | |\n|---|---|---|---|---|---|\n");
        for gate in self.gates().iter().filter(|gate| !gate.found.is_empty()) {
            let (sign, bound, aim, met): (_, _, _, fn(f64, f64) -> bool) = match gate.bound {
                Bound::AtLeast { gate, aim } => ("≥", gate, aim, |found, bound| found >= bound),
                Bound::AtMost { gate, aim } => ("≤", gate, aim, |found, bound| found <= bound),
            };
            let word = |found: f64| if met(found, bound) { "" } else { " **missed**" };
            let found: Vec<String> = gate
                .found
                .iter()
                .map(|(label, found)| format!("{label} {found:.2}{}", word(*found)).trim().to_owned())
                .collect();
            let all = if gate.found.iter().all(|(_, found)| met(*found, aim)) {
                "aim"
            } else if gate.found.iter().all(|(_, found)| met(*found, bound)) {
                "gate"
            } else {
                "missed"
            };
            let found = found.join(", ");
            let _ = writeln!(
                text,
                "| {} | {} | {sign} {bound} | {sign} {aim} | {found} | {all} |",
                gate.number, gate.what
            );
        }
        text.push_str("\n| call | connections | server | requests/s | p50 µs | p99 µs | server CPU µs | database CPU µs |\n");
        text.push_str("|---|--:|---|--:|--:|--:|--:|--:|\n");
        for cell in &self.cells {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                cell.call,
                cell.connections,
                cell.server,
                cell.median(|s| s.rate),
                cell.median(|s| s.p50_us),
                cell.median(|s| s.p99_us),
                cell.median(|s| s.server_us),
                cell.median(|s| s.database_us),
            );
        }
        text.push_str(
            "\n| server | MB idle | of that private | MB at 64 connections | ms to the first answer |\n|---|--:|--:|--:|--:|\n",
        );
        for Footprint { server, idle_mb, idle_private_mb, at_64_mb, start_ms } in &self.footprints {
            let _ = writeln!(
                text,
                "| {server} | {idle_mb:.1} | {idle_private_mb:.1} | {at_64_mb:.1} | {start_ms:.0} |"
            );
        }
        for (at_once, claims) in self.claims_at_once() {
            let product = median(claims.iter().map(|found| found.product));
            let plain = median(claims.iter().map(|found| found.plain));
            let _ = writeln!(
                text,
                "\nClaims, 8 workers, {at_once} at once: {product:.0} runs/s; plain jobs {plain:.0}/s."
            );
        }
        text
    }

    fn claims_at_once(&self) -> BTreeMap<i32, Vec<Claims>> {
        let mut by_size: BTreeMap<i32, Vec<Claims>> = BTreeMap::new();
        for found in &self.claims {
            by_size.entry(found.at_once).or_default().push(*found);
        }
        by_size
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
