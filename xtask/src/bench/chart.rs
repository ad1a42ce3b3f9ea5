//! The chart of `bench pull` as SVG: a group of bars for each measure and compression, a bar for each
//! contender.

use std::fmt::Write as _;

use super::contender::Contender;
use super::run::{COMPRESSIONS, Run};
use super::table::{MEASURES, median_of};

const WIDTH: f64 = 820.0;
const LABEL: f64 = 130.0;
const BAR: f64 = 15.0;
const GAP: f64 = 34.0;

/// Draws the medians.
pub fn draw(runs: &[Run]) -> String {
    let mut body = String::new();
    let mut y = 10.0;
    for measure in &MEASURES[..3] {
        for (column, (compression, _)) in COMPRESSIONS.into_iter().enumerate() {
            let x = column as f64 * WIDTH / 2.0;
            let title = format!("{}, {} ({compression})", measure.0, measure.1);
            group(&mut body, (x, y), &title, |who| {
                median_of(runs, compression, who, *measure)
            });
        }
        y += BAR * Contender::ALL.len() as f64 + GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

fn group(out: &mut String, (x, y): (f64, f64), title: &str, value: impl Fn(Contender) -> f64) {
    let longest = Contender::ALL.map(&value).into_iter().fold(1e-9, f64::max);
    let room = WIDTH / 2.0 - LABEL - 60.0;
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        x + 10.0,
        y + 10.0
    );
    for (row, who) in Contender::ALL.into_iter().enumerate() {
        let top = y + 16.0 + row as f64 * BAR;
        let length = value(who) / longest * room;
        let colour = if who.name().starts_with("landfall") {
            "#1b7f5c"
        } else {
            "#9aa5b1"
        };
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{:.1}</text>",
            x + LABEL - 6.0,
            top + 10.0,
            who.name(),
            x + LABEL,
            BAR - 3.0,
            x + LABEL + length + 4.0,
            top + 10.0,
            value(who)
        );
    }
}
