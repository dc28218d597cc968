//! Pictures of figures: small ones in rows, larger ones with axes, a text beside each that says the
//! same.
//!
//! A picture stretches with the page; so lines are drawn without a stretched stroke, and no text
//! stands in it. Must never draw a line where nothing is known.

use crate::panel::pages::parts;
use maud::{Markup, html};
use std::fmt::Write as _;

/// Height of the small picture, in its own units.
const SPARK: i32 = 7;
/// Width and height of a large picture, in its own units.
const WIDE: f64 = 1000.0;
const HIGH: f64 = 100.0;

/// A small picture of values from 0 to `top`, oldest first; decoration beside the figure itself.
pub(super) fn spark(values: &[Option<u32>], top: u32, class: &str) -> Markup {
    let width = values.len().saturating_sub(1);
    let path = spark_path(values, top);
    html! {
        @if !path.is_empty() {
            svg class={ "k " (class) } viewBox={ "0 -.5 " (width) " 8" } aria-hidden="true" {
                path d=(path) {}
            }
        }
    }
}

/// Steps from one value to the next, as short as they can be written.
fn spark_path(values: &[Option<u32>], top: u32) -> String {
    let scale = |value: u32| {
        let high = u64::from(value.min(top)) * u64::from(SPARK.unsigned_abs()) / u64::from(top.max(1));
        SPARK - i32::try_from(high).unwrap_or(SPARK)
    };
    let mut path = String::new();
    let (mut last, mut flat): (Option<i32>, usize) = (None, 0);
    for (x, value) in values.iter().enumerate() {
        let y = value.map(scale);
        if y == last && y.is_some() {
            flat += 1;
            continue;
        }
        if flat > 0 {
            let _infallible = write!(path, "h{flat}");
            flat = 0;
        }
        match (last, y) {
            (None, Some(y)) => {
                let _infallible = write!(path, "M{x} {y}");
            }
            (Some(before), Some(y)) => {
                let _infallible = write!(path, "l1 {}", y - before);
            }
            (_, None) => {}
        }
        last = y;
    }
    if flat > 0 {
        let _infallible = write!(path, "h{flat}");
    }
    // A picture needs a line.
    if path.contains(['l', 'h']) { path } else { String::new() }
}

/// One line of a large picture.
pub(super) struct Series<'a> {
    /// Its name; empty where there is only one.
    pub(super) name: &'a str,
    /// Its colour: a class of the style.
    pub(super) class: &'a str,
    /// Times in milliseconds since the epoch, and values.
    pub(super) points: Vec<(i64, Option<f64>)>,
}

/// A large picture.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// Which figures of a point the script reads out: `cpu`, `memory`, `requests` or `p95`.
    pub(super) reads: &'a str,
    /// Where it begins and ends, in milliseconds since the epoch.
    pub(super) from: i64,
    pub(super) to: i64,
    /// Points further apart than this have nothing between them, in milliseconds.
    pub(super) gap: i64,
    /// A value in words, with its unit.
    pub(super) say: fn(f64) -> String,
    /// The least that the axis reaches.
    pub(super) least: f64,
    /// Values are bytes: the axis counts in powers of two.
    pub(super) bytes: bool,
    pub(super) series: Vec<Series<'a>>,
}

impl Chart<'_> {
    pub(super) fn show(&self) -> Markup {
        let known: Vec<f64> = self.series.iter().flat_map(Series::known).collect();
        let most = known.iter().copied().fold(self.least, f64::max);
        let top = if self.bytes { round_up_bytes(most) } else { round_up(most) };
        let newest = self.series.first().and_then(|series| series.points.last().and_then(|point| point.1));
        let text = self.in_words();
        html! {
            figure.chart data-from=(self.from) data-to=(self.to) data-read=(self.reads) {
                figcaption {
                    b { (self.title) }
                    span.num { @if let Some(newest) = newest { ((self.say)(newest)) } }
                    @for series in self.series.iter().filter(|series| !series.name.is_empty()) {
                        span.soft.small { i class={ "key " (series.class) } {} (series.name) }
                    }
                }
                @if known.is_empty() { div.plot.nothing { "nothing is known of this time" } } @else {
                    div.plot {
                        span.y { ((self.say)(top)) } span.y.half { ((self.say)(top / 2.0)) } span.y.zero { "0" }
                        svg role="img" tabindex="0" aria-label=(text) viewBox={ "0 0 " (WIDE) " " (HIGH) } preserveAspectRatio="none" {
                            path.grid d={ "M0 .5h" (WIDE) "M0 50h" (WIDE) "M0 99.5h" (WIDE) } {}
                            @for (n, series) in self.series.iter().enumerate() {
                                @let line = self.line(series, top);
                                @if n == 0 { path class={ "area " (series.class) } d=(self.area(series, top)) {} }
                                path class={ "line " (series.class) } d=(line) {}
                            }
                        }
                    }
                    div.x aria-hidden="true" {
                        span { (parts::time(self.from)) } span { (parts::time(i64::midpoint(self.from, self.to))) } span { "now" }
                    }
                }
                p.vh { (text) }
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
    fn place(&self, (at, value): (i64, f64), top: f64) -> (f64, f64) {
        let x = (at - self.from) as f64 / (self.to - self.from).max(1) as f64 * WIDE;
        let y = HIGH - (value / top * HIGH).clamp(0.0, HIGH);
        (x.clamp(0.0, WIDE), y)
    }

    /// Runs of points with something between them.
    fn runs(&self, series: &Series<'_>) -> Vec<Vec<(i64, f64)>> {
        let mut runs: Vec<Vec<(i64, f64)>> = Vec::new();
        let mut open = false;
        for (at, value) in &series.points {
            let Some(value) = value else {
                open = false;
                continue;
            };
            let near = runs.last().and_then(|run| run.last()).is_some_and(|last| at - last.0 <= self.gap);
            match runs.last_mut().filter(|_| open && near) {
                Some(run) => run.push((*at, *value)),
                None => runs.push(vec![(*at, *value)]),
            }
            open = true;
        }
        runs
    }

    fn line(&self, series: &Series<'_>, top: f64) -> String {
        let mut path = String::new();
        for run in self.runs(series) {
            for (n, point) in run.iter().enumerate() {
                let (x, y) = self.place(*point, top);
                let _infallible = write!(path, "{}{x:.0} {y:.1}", if n == 0 { "M" } else { "L" });
            }
            // A single point is a dot of the line's width.
            if run.len() == 1 {
                path.push_str("h1");
            }
        }
        path
    }

    fn area(&self, series: &Series<'_>, top: f64) -> String {
        let mut path = String::new();
        for run in self.runs(series).iter().filter(|run| run.len() > 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let _infallible = write!(path, "M{:.0} {HIGH}", self.place(*first, top).0);
            for point in run {
                let (x, y) = self.place(*point, top);
                let _infallible = write!(path, "L{x:.0} {y:.1}");
            }
            let _infallible = write!(path, "L{:.0} {HIGH}Z", self.place(*last, top).0);
        }
        path
    }

    /// What the picture shows, for whoever does not see it.
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    fn in_words(&self) -> String {
        let each = self.series.iter().map(|series| {
            let known: Vec<f64> = series.known().collect();
            let name = if series.name.is_empty() { String::new() } else { format!("{}: ", series.name) };
            if known.is_empty() {
                return format!("{name}nothing is known");
            }
            let least = known.iter().copied().fold(f64::INFINITY, f64::min);
            let most = known.iter().copied().fold(0.0, f64::max);
            let mean = known.iter().sum::<f64>() / known.len() as f64;
            let newest = known.last().copied().unwrap_or_default();
            let say = self.say;
            format!(
                "{name}least {}, mean {}, most {}, newest {}",
                say(least),
                say(mean),
                say(most),
                say(newest)
            )
        });
        format!("{}. {}.", self.title, each.collect::<Vec<_>>().join(". "))
    }
}

impl Series<'_> {
    fn known(&self) -> impl Iterator<Item = f64> {
        self.points.iter().filter_map(|(_, value)| *value)
    }
}

/// The next of 1, 2, 5, 10, 20, … that is not less.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let base = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * base >= value * 0.999);
    step.unwrap_or(10.0) * base
}

/// The next power of two.
fn round_up_bytes(value: f64) -> f64 {
    if value > 1.0 && value.is_finite() { value.log2().ceil().exp2() } else { 1.0 }
}

/// A size in bytes, for people.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95 && unit > 0);
    format!("{value:.digits$} {}", UNITS.get(unit).unwrap_or(&"B"))
}

/// A number with as many digits as it is worth.
pub(super) fn number(value: f64) -> String {
    let digits = if value == 0.0 || value >= 99.5 {
        0
    } else if value >= 9.95 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Percent of one processor.
pub(super) fn percent(value: f64) -> String {
    format!("{} %", number(value))
}

/// Milliseconds, or seconds where they are many.
pub(super) fn millis(value: f64) -> String {
    if value >= 1000.0 { format!("{} s", number(value / 1000.0)) } else { format!("{} ms", number(value)) }
}

/// A rate in a minute.
pub(super) fn a_minute(value: f64) -> String {
    format!("{}/min", number(value))
}

#[cfg(test)]
mod tests {
    use super::{Chart, Series, bytes, millis, number, percent, round_up, round_up_bytes, spark_path};

    #[test]
    fn small_pictures_are_short_and_have_gaps() {
        let flat = vec![Some(0); 30];
        assert_eq!(spark_path(&flat, 100), "M0 7h29");
        assert_eq!(
            spark_path(&[None, Some(50), Some(100), Some(100), None, None, Some(0), Some(10)], 100),
            "M1 4l1 -4h1M6 7h1"
        );
        assert_eq!(spark_path(&[None; 30], 100), "");
        assert_eq!(spark_path(&[None, Some(3), None], 100), "", "a single point is no line");
        assert_eq!(spark_path(&[Some(7), Some(900)], 0), "M0 7h1", "whatever the top is");
    }

    fn chart(points: Vec<(i64, Option<f64>)>) -> String {
        let series = vec![Series { name: "", class: "a", points }];
        let chart = Chart {
            title: "CPU",
            reads: "cpu",
            from: 0,
            to: 1000,
            gap: 100,
            say: percent,
            least: 1.0,
            bytes: false,
            series,
        };
        chart.show().into_string()
    }

    #[test]
    fn large_pictures_say_in_words_what_they_show() {
        let text = chart(vec![
            (100, Some(10.0)),
            (200, Some(20.0)),
            (500, Some(0.0)),
            (600, None),
            (700, Some(50.0)),
        ]);
        assert!(text.contains("CPU. least 0 %, mean 20 %, most 50 %, newest 50 %."), "{text}");
        assert!(text.contains("role=\"img\"") && text.contains(">50 %<"), "{text}");
        assert_eq!(
            text.matches("<path").count(),
            text.matches("</path>").count(),
            "a path in a path is not drawn"
        );
        let line = text.split("class=\"line a\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(line.matches('M').count(), 3, "a gap is a gap: {line}");
        let nothing = chart(vec![(600, None)]);
        assert!(nothing.contains("nothing is known") && !nothing.contains("<svg"), "{nothing}");
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [bytes(0.0), bytes(999.0), bytes(1536.0), bytes(52.4e6), bytes(3.2e9)],
            ["0 B", "999 B", "1.5 KiB", "50 MiB", "3.0 GiB"]
        );
        assert_eq!(
            [number(0.0), number(0.034), number(1.5), number(12.34), number(1234.5)],
            ["0", "0.03", "1.5", "12.3", "1234"]
        );
        assert_eq!([millis(0.25), millis(100.0), millis(30000.0)], ["0.25 ms", "100 ms", "30 s"]);
        assert_eq!(
            [round_up(0.0), round_up(1.0), round_up(3.0), round_up(0.6), round_up(70.0)],
            [1.0, 1.0, 5.0, 1.0, 100.0]
        );
        assert!(round_up(f64::NAN) > 0.0 && round_up_bytes(f64::NAN) > 0.0);
        assert_eq!(bytes(round_up_bytes(33e6)), "32 MiB");
        assert_eq!(bytes(round_up_bytes(35e6)), "64 MiB");
    }
}
