//! What servers use, as `status --detailed` shows it.
//!
//! Must never show 0 for what is not known.

use crate::cli::shown::text;
use crate::terminal::output;
use serde_json::{Map, Value};

/// A step between units of size.
const STEP: f64 = 1024.0;
/// Units from bytes on.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// What each server of a list uses, by id; servers that do not run use nothing and are not there.
pub(super) fn of(servers: &Value) -> Map<String, Value> {
    let each = servers.as_array().into_iter().flatten();
    each.filter_map(|server| {
        let usage = server.get("usage").filter(|usage| usage.is_object())?;
        Some((text(server, "id"), usage.clone()))
    })
    .collect()
}

/// A row for each server.
pub(super) fn table(all: &Map<String, Value>, width: usize, colour: bool) -> String {
    if all.is_empty() {
        return String::new();
    }
    let head = ["SERVER", "CPU", "MEMORY", "LIMIT", "IN/s", "OUT/s", "PIDS", "REQ/s"];
    let row = |(id, usage): (&String, &Value)| {
        let number = |key: &str| usage.get(key).and_then(Value::as_f64);
        let shown =
            |key: &str, show: &dyn Fn(f64) -> String| number(key).map_or_else(|| "-".to_owned(), show);
        vec![
            id.clone(),
            shown("cpuPercent", &|percent| format!("{percent:.1} %")),
            shown("memoryBytes", &size),
            shown("memoryLimitBytes", &size),
            shown("networkInBytesPerSecond", &size),
            shown("networkOutBytesPerSecond", &size),
            shown("pids", &|pids| format!("{pids:.0}")),
            shown("requestsPerSecond", &|rate| format!("{rate:.1}")),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::table(&head, &rows, width, colour)
}

/// `1.5 MiB`.
fn size(bytes: f64) -> String {
    let mut left = bytes;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while left >= STEP
        && let Some(next) = units.next()
    {
        (left, unit) = (left / STEP, Some(next));
    }
    let unit = unit.unwrap_or(&"B");
    if *unit == "B" { format!("{left:.0} B") } else { format!("{left:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::{of, size, table};
    use serde_json::json;

    #[test]
    fn what_is_known_is_shown_and_fits() {
        let servers = json!([
            {"id": "time", "usage": {"cpuPercent": 12.34, "memoryBytes": 10_330_112, "memoryLimitBytes": 25_165_824,
             "networkInBytesPerSecond": 12.0, "networkOutBytesPerSecond": 2048.5, "pids": 7, "requestsPerSecond": 0.25}},
            {"id": "a-server-with-quite-a-long-name-of-its-own", "usage": {"cpuPercent": 0.0, "memoryBytes": null}},
            {"id": "off", "usage": null},
        ]);
        let shown = table(&of(&servers), 80, false);
        let expected = "\
SERVER                    CPU     MEMORY   LIMIT     IN/s  OUT/s    PIDS  REQ/s
time                      12.3 %  9.9 MiB  24.0 MiB  12 B  2.0 KiB  7     0.2
a-server-with-quite-a-l…  0.0 %   -        -         -     -        -     -
";
        assert_eq!(shown, expected);
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert_eq!(table(&of(&json!([])), 80, false), "");
        assert_eq!(
            [size(0.0), size(1023.0), size(1024.0), size(5e13)],
            ["0 B", "1023 B", "1.0 KiB", "45.5 TiB"]
        );
    }
}
