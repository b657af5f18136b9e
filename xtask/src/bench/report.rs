//! The tables, in Markdown.

use super::Args;
use super::contender::Contender;
use super::results::{Results, Run};
use std::fmt::Write;

/// Pairs of contenders whose ratio is a column, as far as both took part.
const RATIOS: [(&str, &str); 4] =
    [("interp", "qemu"), ("jit", "qemu"), ("jit", "native"), ("qemu", "native")];

/// What was measured where.
pub(crate) fn heading(
    args: &Args,
    contenders: &[Contender],
    guest: &str,
    load_before: f64,
    load_after: f64,
) -> String {
    let mut text = format!(
        "Host: {}, {} CPUs, load average {load_before:.2} before and {load_after:.2} after.\n\
         Medians of {} rounds; ratios are taken within a round.\n\
         Guest: {guest}; {} MiB.\n",
        cpu_model(),
        std::thread::available_parallelism().map_or(0, usize::from),
        args.rounds,
        args.memory,
    );
    for contender in contenders {
        let _ = writeln!(text, "- {}: {}", contender.name(), contender.description());
    }
    text
}

/// Rates and ratios of each workload.
pub(crate) fn workloads(results: &Results, names: &[String]) -> String {
    let contenders = results.contenders();
    let ratios = ratios(&contenders);
    let mut rows = vec![header("units per second", &contenders, &ratios)];
    let mut logarithms = vec![Vec::new(); ratios.len()];
    for name in names {
        let rate = |run: &Run| run.rates.get(name).copied();
        let mut row = vec![name.clone()];
        row.extend(contenders.iter().map(|column| cell(results.median(column, rate), &quantity)));
        for (&(a, b), logarithms) in ratios.iter().zip(&mut logarithms) {
            let ratio = results.ratio(a, b, rate);
            logarithms.extend(ratio.map(f64::ln));
            row.push(cell(ratio, &factor));
        }
        rows.push(row);
    }
    let mut mean = vec!["geometric mean".to_owned()];
    mean.extend(contenders.iter().map(|_| String::new()));
    mean.extend(logarithms.iter().map(|logarithms| {
        let count = logarithms.len() as f64;
        let mean = (count > 0.0).then(|| (logarithms.iter().sum::<f64>() / count).exp());
        cell(mean, &factor)
    }));
    rows.push(mean);
    table(&rows)
}

/// Times to where the guest is started, `point`; lower is better, here as in the ratios. Times to
/// the end of the process say something only where the guest powers off at once.
pub(crate) fn starts(results: &Results, point: &str, whole: bool) -> String {
    let contenders: Vec<_> =
        results.contenders().into_iter().filter(|&name| name != "native").collect();
    let ratios: Vec<_> =
        ratios(&contenders).into_iter().filter(|&(_, reference)| reference == "qemu").collect();
    let mut rows = vec![header("seconds", &contenders, &ratios)];
    let mut add = |what: &str, value: &dyn Fn(&Run) -> Option<f64>| {
        let mut row = vec![what.to_owned()];
        let seconds = |value: f64| format!("{value:.2}");
        row.extend(contenders.iter().map(|column| cell(results.median(column, value), &seconds)));
        row.extend(ratios.iter().map(|&(a, b)| cell(results.ratio(a, b, value), &factor)));
        rows.push(row);
    };
    add(&format!("start to {point}, wall"), &|run| Some(run.init?.0.as_secs_f64()));
    add(&format!("start to {point}, CPU"), &|run| Some(run.init?.1.as_secs_f64()));
    if whole {
        add("start to exit, wall", &|run| run.problem.is_none().then_some(run.wall.as_secs_f64()));
    }
    table(&rows)
}

fn ratios(contenders: &[&str]) -> Vec<(&'static str, &'static str)> {
    let both = |&(a, b): &(&str, &str)| contenders.contains(&a) && contenders.contains(&b);
    RATIOS.into_iter().filter(both).collect()
}

fn header(what: &str, contenders: &[&str], ratios: &[(&str, &str)]) -> Vec<String> {
    let mut row = vec![what.to_owned()];
    row.extend(contenders.iter().map(|&name| name.to_owned()));
    row.extend(ratios.iter().map(|(a, b)| format!("{a}/{b}")));
    row
}

fn cell(value: Option<f64>, format: &dyn Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".into(), format)
}

fn factor(value: f64) -> String {
    if value < 0.1 { format!("{value:.3}") } else { format!("{value:.2}") }
}

/// A number with four digits or so and a metric prefix.
fn quantity(value: f64) -> String {
    let (value, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e3 => (v / 1e3, " k"),
        v => (v, ""),
    };
    if value >= 100.0 { format!("{value:.0}{prefix}") } else { format!("{value:.1}{prefix}") }
}

/// A Markdown table: the first column to the left, the others to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(String::len).max();
    let widths: Vec<_> = (0..columns).map(|i| width(i).unwrap_or(0).max(3)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = match i {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (i, &width) in widths.iter().enumerate() {
                let colon = if i == 0 { '-' } else { ':' };
                let _ = write!(text, "|{}{colon}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()));
    name.unwrap_or_else(|| "unknown CPU".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(quantity(385_091_998.0), "385 M");
        assert_eq!(quantity(3_617.8), "3.6 k");
        assert_eq!(quantity(42.0), "42.0");
        assert_eq!(factor(0.0314), "0.031");
        assert_eq!(factor(2.345), "2.35");
    }

    #[test]
    fn a_table_is_aligned() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["name", "a"]), row(["x", "12.5 M"])]);
        assert_eq!(text, "| name |      a |\n|------|-------:|\n| x    | 12.5 M |\n");
    }

    #[test]
    fn means_cover_what_both_measured() {
        let mut results = Results::default();
        let run = |rates: &[(&str, f64)]| Run {
            rates: rates.iter().map(|&(name, rate)| (name.to_owned(), rate)).collect(),
            ..Run::default()
        };
        results.add("qemu", run(&[("alu", 1.0), ("fork", 10.0), ("exec", 7.0)]));
        results.add("jit", run(&[("alu", 4.0), ("fork", 10.0)]));
        let text = workloads(&results, &["alu".into(), "fork".into(), "exec".into()]);
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("| geometric mean") && last.ends_with("2.00 |"), "{text}");
    }
}
