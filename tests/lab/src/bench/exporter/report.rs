//! The tables.

use super::candidates::Kind;
use lab::Quantiles;

/// One line of the table.
pub struct Row {
    pub kind: Kind,
    pub name: String,
    pub connections: usize,
    /// In milliseconds.
    pub times: Quantiles,
    pub per_second: f64,
    /// Microseconds of CPU a scrape.
    pub cpu: f64,
    /// Bytes resident after the first answer, after a tenth of the scrapes, and after all.
    pub resident: [f64; 3],
    /// Bytes of the binary.
    pub binary: u64,
}

const MIB: f64 = 1024.0 * 1024.0;
/// What resident memory may differ by without having grown: an allocator gives back whole pages, and not at once.
const NOISE: f64 = 256.0 * 1024.0;

pub fn table(rows: &[Row], scrapes: usize) {
    let tenth = scrapes / 10;
    println!(
        "| connections | exporter | p50 | p99 | scrapes/s | CPU a scrape | RSS idle | after {tenth} scrapes | after {scrapes} | binary |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let [idle, early, late] = row.resident.map(|bytes| format!("{:.1} MiB", bytes / MIB));
        // The later phases begin where the first one ended, and are shorter.
        let (early, late) = match row.kind {
            _ if row.connections > 1 => ("–".to_owned(), format!("{late} ¹")),
            Kind::Heavy => ("–".to_owned(), format!("{late} ²")),
            _ => (early, late),
        };
        let idle = if row.connections > 1 { "–".to_owned() } else { idle };
        // The bot answers the others' scrapes as well.
        let cpu = if row.kind == Kind::Bot {
            "–".to_owned()
        } else {
            format!("{:.0} µs", row.cpu)
        };
        println!(
            "| {} | {} | {:.3} ms | {:.3} ms | {:.0} | {cpu} | {idle} | {early} | {late} | {:.1} MB |",
            row.connections,
            row.name,
            row.times.p50,
            row.times.p99,
            row.per_second,
            row.binary as f64 / 1e6
        );
    }
}

/// What was aimed at, and whether it was met. A missed aim is no failure of the benchmark.
pub fn aims(rows: &[Row], expected_series: usize, series: usize) {
    let alone = |kind| rows.iter().find(|row| row.kind == kind && row.connections == 1);
    println!("| aim | seen | |\n|---|---|---|");
    let aim = |what: &str, seen: String, met: bool| {
        println!("| {what} | {seen} | {} |", if met { "met" } else { "**missed**" });
    };
    for (kind, name, limit) in [(Kind::Ours, "plain", 3.0), (Kind::OursTls, "with TLS", 6.0)] {
        let Some(row) = alone(kind) else {
            continue;
        };
        let [_, early, late] = row.resident;
        aim(
            &format!("RSS {name} at most {limit} MiB"),
            format!("{:.2} MiB", late / MIB),
            late / MIB <= limit,
        );
        aim(
            &format!("RSS {name} not growing"),
            format!(
                "{:+.2} MiB from the first tenth of the scrapes to the last",
                (late - early) / MIB
            ),
            late <= early + NOISE,
        );
    }
    let plain = (alone(Kind::Ours), alone(Kind::JsonExporter), alone(Kind::Bot));
    if let (Some(ours), Some(theirs), Some(bot)) = plain {
        for (name, ours, theirs, bot, share) in [
            ("p50", ours.times.p50, theirs.times.p50, bot.times.p50, 3.0),
            ("p99", ours.times.p99, theirs.times.p99, bot.times.p99, 5.0),
        ] {
            let beyond = |all: f64| all - bot;
            aim(
                &format!("{name} at most 1/{share} of json_exporter's"),
                format!(
                    "1/{:.1}; of {:.3} and {:.3} ms, the bot's own {bot:.3} ms taken off, it is 1/{:.1}",
                    theirs / ours,
                    beyond(ours),
                    beyond(theirs),
                    beyond(theirs) / beyond(ours)
                ),
                ours * share <= theirs,
            );
        }
        aim(
            "binary at most 5 MB",
            format!("{:.2} MB", ours.binary as f64 / 1e6),
            ours.binary <= 5_000_000,
        );
    }
    if let Some(heavy) = alone(Kind::Heavy) {
        aim(
            "p99 below 20 ms beside the heavy bot",
            format!("{:.1} ms", heavy.times.p99),
            heavy.times.p99 < 20.0,
        );
        let most = heavy.resident[2].max(heavy.resident[1]) / MIB;
        aim(
            "RSS below 16 MiB beside the heavy bot",
            format!("{most:.1} MiB"),
            most < 16.0,
        );
        aim(
            &format!("{expected_series} series pass"),
            series.to_string(),
            series == expected_series,
        );
    }
}
