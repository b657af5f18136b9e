//! Bytes to decoded instructions.

use benches::{Guest, Runner, chain};
use criterion::{Criterion, Throughput};
use decoder::decode;
use interp::engine::block::decode_block;
use std::hint::black_box;

/// Instructions as a kernel has them: short, long, prefixed, vector.
const INSTRUCTIONS: &[(&str, &[u8])] = &[
    ("push rbp", &[0x55]),
    ("mov rbp, rsp", &[0x48, 0x89, 0xE5]),
    ("mov rax, gs:[abs]", &[0x65, 0x48, 0x8B, 0x04, 0x25, 0x40, 0x6C, 0x01, 0x00]),
    ("lock cmpxchg [rdi+8], rsi", &[0xF0, 0x48, 0x0F, 0xB1, 0x77, 0x08]),
    ("call rel32", &[0xE8, 0x00, 0x10, 0x00, 0x00]),
    ("movabs rax, imm64", &[0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8]),
    ("rep stosq", &[0xF3, 0x48, 0xAB]),
    ("vaddpd ymm0, ymm1, [rsi]", &[0xC5, 0xF5, 0x58, 0x06]),
];

pub(crate) fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for &(name, bytes) in INSTRUCTIONS {
        assert_eq!(decode(bytes, 64).map(|insn| usize::from(insn.len)), Ok(bytes.len()), "{name}");
        group.bench_function(name, |b| b.iter(|| decode(black_box(bytes), 64)));
    }
}

pub(crate) fn block(c: &mut Criterion) {
    let mut guest = Guest::new(Runner::interp());
    guest.load(&chain(1));
    guest.rewind(0);
    let rip = guest.cpu.rip;
    let gpa = guest.mmu.fetch_translate(rip).expect("mapped").gpa;
    let policy = guest.cpu.policy.clone();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(8));
    group.bench_function("a block of 8", |b| {
        b.iter(|| {
            let block = decode_block(&policy, &mut guest.mmu, rip, gpa, 64).expect("a block");
            assert_eq!(block.ops.len(), 8);
            block
        });
    });
}
