//! One program for all parts: what takes long to build is linking the engines.

mod decode;
mod engines;
mod tlb;
mod translate;

use benches::settings;
use criterion::{criterion_group, criterion_main};

criterion_group! {
    name = parts;
    config = settings();
    targets =
        decode::single, decode::block,
        tlb::hit, tlb::crossing, tlb::second_level, tlb::walk, tlb::refill,
        engines::loops, engines::entries,
        translate::cold_and_warm,
}
criterion_main!(parts);
