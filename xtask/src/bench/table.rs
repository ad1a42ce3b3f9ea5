//! Figures: medians, ratios to podman, and whether they keep to what is asked of Landfall.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::cgroup::Cost;
use super::contender::Contender;
use super::floor::Floor;
use super::image::Size;
use super::run::{COMPRESSIONS, Run};

/// Named figures of the images of one benchmark.
type Named<T> = [(&'static str, T)];

/// A measure: its name, its unit, and where it is in a cost.
type Measure = (&'static str, &'static str, fn(&Cost) -> f64);

/// What tables and charts show.
pub const MEASURES: [Measure; 4] = [
    ("wall", "s", |cost| cost.wall),
    ("CPU", "s", |cost| cost.cpu),
    ("peak memory", "MiB", |cost| mib(cost.peak_bytes)),
    ("processes' RSS", "MiB", |cost| mib(cost.resident_bytes)),
];

/// The middle one; of an even number, the mean of the middle two.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
    }
}

/// The median of a measure over all runs of one contender.
pub fn median_of(runs: &[Run], compression: &str, who: Contender, measure: Measure) -> f64 {
    let own = runs
        .iter()
        .filter(|run| run.compression == compression && run.who == who.name());
    median(own.map(|run| measure.2(&run.cost)))
}

/// The tables of `bench pull`.
pub fn pull(runs: &[Run], sizes: &Named<Size>, floors: &Named<Floor>) -> String {
    let mut out = String::new();
    for ((compression, size), (_, floor)) in sizes.iter().zip(floors) {
        let _ = writeln!(
            out,
            "\n{compression}: {} layers, {} entries, {} MiB compressed, {} MiB of archives; medians (ratio to podman)\n",
            size.layers,
            size.entries,
            size.compressed_bytes >> 20,
            size.archive_bytes >> 20
        );
        let _ = write!(out, "| |");
        for (name, unit, _) in MEASURES {
            let _ = write!(out, " {name}, {unit} |");
        }
        out.push_str("\n|---|---|---|---|---|\n");
        for who in Contender::ALL {
            let _ = write!(out, "| {} |", who.name());
            for measure in MEASURES {
                let own = median_of(runs, compression, who, measure);
                let podman = median_of(runs, compression, Contender::Podman, measure);
                let _ = write!(out, " {own:.1} ({:.2}) |", own / podman);
            }
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "\nfloor, one thread, CPU s: hash blobs {:.2} + inflate {:.2} + hash archives {:.2} + write {:.2} = {:.2}",
            floor.hash_blobs,
            floor.inflate,
            floor.hash_archives,
            floor.write,
            floor.total()
        );
    }
    out.push('\n');
    for Bar { what, value, limit } in bars(runs, sizes, floors) {
        let _ = match limit {
            None => writeln!(out, "       {what}: {value:.2}"),
            Some(limit) => {
                let verdict = if value <= limit { "kept  " } else { "MISSED" };
                writeln!(out, "{verdict} {what}: {value:.2}, asked for at most {limit:.2}")
            }
        };
    }
    out
}

/// All figures of `bench pull`.
pub fn json(runs: &[Run], sizes: &Named<Size>, floors: &Named<Floor>) -> Value {
    let medians = COMPRESSIONS.iter().flat_map(|(compression, _)| {
        Contender::ALL.map(|who| {
            let figures = MEASURES.map(|measure| {
                (
                    measure.0.to_string(),
                    json!(median_of(runs, compression, who, measure)),
                )
            });
            json!({ "compression": compression, "who": who.name(),
                "medians": serde_json::Map::from_iter(figures) })
        })
    });
    json!({
        "images": sizes.iter().map(|(name, size)| (name.to_string(), size_json(size))).collect::<serde_json::Map<_, _>>(),
        "runs": runs.iter().map(|run| {
            let mut cost = cost_json(&run.cost);
            cost["compression"] = run.compression.into();
            cost["who"] = run.who.into();
            cost
        }).collect::<Vec<_>>(),
        "medians": medians.collect::<Vec<_>>(),
        "floors": floors.iter().map(|(name, floor)| (name.to_string(), json!({
            "hash_blobs": floor.hash_blobs, "inflate": floor.inflate,
            "hash_archives": floor.hash_archives, "write": floor.write, "total": floor.total(),
        }))).collect::<serde_json::Map<_, _>>(),
        "bars": bars(runs, sizes, floors).into_iter().map(|bar| {
            json!({ "what": bar.what, "value": bar.value, "limit": bar.limit })
        }).collect::<Vec<_>>(),
    })
}

/// What is asked of Landfall.
struct Bar {
    what: String,
    value: f64,
    /// `None`: only to be looked at.
    limit: Option<f64>,
}

fn bars(runs: &[Run], sizes: &Named<Size>, floors: &Named<Floor>) -> Vec<Bar> {
    let [wall, cpu, peak, resident] = MEASURES;
    let limits = [("gzip", 0.30, 0.32, 0.75), ("zstd", 0.35, 0.38, 1.0)];
    let mut bars = Vec::new();
    for (compression, wall_limit, cpu_limit, crane_limit) in limits {
        let of = |who, measure| median_of(runs, compression, who, measure);
        let mut bar = |what: &str, value: f64, limit: Option<f64>| {
            let what = format!("{compression}: {what}");
            bars.push(Bar { what, value, limit });
        };
        let to = |other, measure| of(Contender::Run, measure) / of(other, measure);
        bar(
            "wall time to podman's",
            to(Contender::Podman, wall),
            Some(wall_limit),
        );
        bar("CPU to podman's", to(Contender::Podman, cpu), Some(cpu_limit));
        bar(
            "CPU to crane | tar's",
            to(Contender::Crane, cpu),
            Some(crane_limit),
        );
        bar(
            "peak memory to podman's, no blobs kept",
            to(Contender::Podman, peak),
            Some(0.72),
        );
        if let Some((_, size)) = sizes.iter().find(|(name, _)| *name == compression) {
            // What the files take on a tmpfs is what an unpacked image leaves there.
            let left: Measure = ("left", "MiB", |cost| mib(cost.left_bytes));
            let limit = of(Contender::Unpack, left) + mib(size.compressed_bytes) + 64.0;
            bar(
                "peak memory with blobs kept, MiB",
                of(Contender::Install, peak),
                Some(limit),
            );
        }
        bar(
            "processes' RSS, MiB",
            of(Contender::Run, resident),
            Some(64.0 + 8.0 * layers_in_flight()),
        );
        if let Some((_, floor)) = floors.iter().find(|(name, _)| *name == compression) {
            bar(
                "CPU to the floor's",
                of(Contender::Run, cpu) / floor.total(),
                None,
            );
        }
    }
    bars
}

/// As many as Landfall pulls at the same time.
fn layers_in_flight() -> f64 {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    (cores + 2).min(16) as f64
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A row of a series: its name, its image, its runs.
type Row = (String, Size, Vec<Cost>);

/// The table of a series; ratios are to its first row.
pub fn series(rows: &[Row]) -> String {
    let mut out = String::from(
        "\n| layers | entries | archives, MiB | wall, s | ratio | CPU, s | ratio | CPU, µs an entry | RSS, MiB |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let cpu = |row: &Row| median(row.2.iter().map(|cost| cost.cpu));
    let wall = |row: &Row| median(row.2.iter().map(|cost| cost.wall));
    for row in rows {
        let (_, size, costs) = row;
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} |",
            size.layers,
            size.entries,
            size.archive_bytes >> 20,
            wall(row),
            wall(row) / wall(&rows[0]),
            cpu(row),
            cpu(row) / cpu(&rows[0]),
            cpu(row) * 1e6 / size.entries as f64,
            median(costs.iter().map(|cost| cost.resident_bytes as f64)) / f64::from(1 << 20),
        );
    }
    out
}

/// All figures of a series.
pub fn series_json(rows: &[Row]) -> Value {
    let row = |(name, size, costs): &Row| json!({ "name": name, "image": size_json(size), "runs": costs.iter().map(cost_json).collect::<Vec<_>>() });
    rows.iter().map(row).collect()
}

fn size_json(size: &Size) -> Value {
    json!({ "layers": size.layers, "entries": size.entries,
        "compressed_bytes": size.compressed_bytes, "archive_bytes": size.archive_bytes })
}

fn cost_json(cost: &Cost) -> Value {
    json!({ "wall": cost.wall, "cpu": cost.cpu, "system": cost.system,
        "peak_bytes": cost.peak_bytes, "left_bytes": cost.left_bytes, "resident_bytes": cost.resident_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_sorted_values() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
