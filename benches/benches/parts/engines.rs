//! Both engines on small loops: what dispatch and each kind of instruction cost. The throughput
//! is in guest instructions.

use benches::{Guest, Runner, programs};
use criterion::{Criterion, Throughput};
use interp::Exit;

const ROUNDS: u64 = 1000;

pub(crate) fn loops(c: &mut Criterion) {
    for (engine, runner) in
        [("interp", Runner::interp as fn() -> Runner), ("jit", Runner::jit as fn() -> Runner)]
    {
        let mut group = c.benchmark_group(format!("dispatch {engine}"));
        for program in programs() {
            let mut guest = Guest::new(runner());
            guest.load(&program.code);
            group.throughput(Throughput::Elements(guest.complete(ROUNDS)));
            group.bench_function(program.name, |b| b.iter(|| guest.complete(ROUNDS)));
        }
    }
}

/// Into the engine and out again after one instruction, and after one block.
pub(crate) fn entries(c: &mut Criterion) {
    let programs = programs();
    let mut group = c.benchmark_group("dispatch entry");
    for (name, runner) in [("interp", Runner::interp()), ("jit", Runner::jit())] {
        let mut guest = Guest::new(runner);
        guest.load(&programs[0].code);
        guest.complete(ROUNDS);
        guest.rewind(u64::MAX);
        group.bench_function(name, |b| {
            b.iter(|| {
                let exit = guest.run(8);
                assert!(matches!(exit, Exit::Limit), "{exit:?}");
            });
        });
    }
}
