//! Benchmarks of the engines' parts, with criterion: `cargo bench -p benches`, or some of them by
//! name: `cargo bench -p benches -- tlb`.
//!
//! The whole machine beside QEMU and the host is measured by `cargo xtask bench`; its workload is
//! `guest/mb.c` here.
#![forbid(unsafe_code)]

mod guest;
mod programs;

pub use guest::{DATA, Guest, PAGES_APART, Runner};
pub use programs::{Program, chain, programs};

use criterion::Criterion;
use std::time::Duration;

/// Short measurements. `cargo bench -p benches -- --help` lists
/// the options that change them.
pub fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}
