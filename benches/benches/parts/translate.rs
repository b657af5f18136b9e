//! First executions: decoding, translating and linking blocks; and passing through them later.
//! The throughput is in blocks of eight instructions.

use benches::{Guest, Runner, chain};
use criterion::{BatchSize, Criterion, Throughput};

const BLOCKS: usize = 500;

pub(crate) fn cold_and_warm(c: &mut Criterion) {
    let code = chain(BLOCKS);
    for (engine, runner) in
        [("interp", Runner::interp as fn() -> Runner), ("jit", Runner::jit as fn() -> Runner)]
    {
        let mut guest = Guest::new(runner());
        guest.load(&code);
        let mut group = c.benchmark_group(format!("translate {engine}"));
        group.throughput(Throughput::Elements(BLOCKS as u64));
        group.bench_function("first execution", |b| {
            // Emptying the caches is not what is measured.
            b.iter_batched_ref(
                || {
                    let mut guest = Guest::new(runner());
                    guest.load(&code);
                    guest
                },
                |guest| guest.complete(0),
                BatchSize::PerIteration,
            );
        });
        guest.complete(0);
        group.bench_function("later executions", |b| b.iter(|| guest.complete(0)));
    }
}
