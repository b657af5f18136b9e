//! The software TLB: hits, and what the levels behind it cost.

use benches::{DATA, Guest, PAGES_APART, Runner};
use criterion::{Criterion, Throughput};
use softmmu::{Mmu, MmuStats};
use std::hint::black_box;

/// Runs `access` once and says by how much the counters moved.
fn counted(mmu: &mut Mmu, mut access: impl FnMut(&mut Mmu)) -> MmuStats {
    let before = mmu.stats;
    access(mmu);
    let after = mmu.stats;
    MmuStats {
        tlb_misses: after.tlb_misses - before.tlb_misses,
        second_level_hits: after.second_level_hits - before.second_level_hits,
        walks: after.walks - before.walks,
        page_crossings: after.page_crossings - before.page_crossings,
        ..MmuStats::default()
    }
}

pub(crate) fn hit(c: &mut Criterion) {
    let mut guest = Guest::new(Runner::interp());
    let mmu = &mut guest.mmu;
    mmu.store(DATA, 0u64).expect("mapped");
    let stats = counted(mmu, |mmu| {
        let _ = mmu.load::<u64>(DATA);
    });
    assert_eq!(stats.tlb_misses, 0);
    let mut group = c.benchmark_group("tlb hit");
    group.bench_function("load", |b| b.iter(|| mmu.load::<u64>(black_box(DATA + 8))));
    group.bench_function("store", |b| b.iter(|| mmu.store(black_box(DATA + 8), 7u64)));
    group.bench_function("fetch", |b| b.iter(|| mmu.fetch_translate(black_box(DATA))));
}

pub(crate) fn crossing(c: &mut Criterion) {
    let mut guest = Guest::new(Runner::interp());
    let mmu = &mut guest.mmu;
    let at = DATA + 0xFFC;
    let stats = counted(mmu, |mmu| {
        let _ = mmu.load::<u64>(at);
    });
    assert_eq!(stats.page_crossings, 1);
    c.bench_function("tlb slow path/page crossing", |b| b.iter(|| mmu.load::<u64>(black_box(at))));
}

/// Two pages in one slot take turns: the second level answers.
pub(crate) fn second_level(c: &mut Criterion) {
    let mut guest = Guest::new(Runner::interp());
    let mmu = &mut guest.mmu;
    let mut both = move |mmu: &mut Mmu| {
        let _ = black_box(mmu.load::<u64>(black_box(DATA)));
        let _ = black_box(mmu.load::<u64>(black_box(DATA + PAGES_APART)));
    };
    both(mmu);
    let stats = counted(mmu, &mut both);
    assert_eq!((stats.tlb_misses, stats.second_level_hits), (2, 2));
    let mut group = c.benchmark_group("tlb miss");
    group.throughput(Throughput::Elements(2));
    group.bench_function("second level", |b| b.iter(|| both(mmu)));
}

/// Nothing is cached: a walk of four levels.
pub(crate) fn walk(c: &mut Criterion) {
    let mut guest = Guest::new(Runner::interp());
    let mmu = &mut guest.mmu;
    let mut access = |mmu: &mut Mmu| {
        mmu.invlpg(DATA);
        let _ = black_box(mmu.load::<u64>(black_box(DATA)));
    };
    let stats = counted(mmu, &mut access);
    assert_eq!(stats.walks, 1);
    c.bench_function("tlb miss/invlpg and walk", |b| b.iter(|| access(mmu)));
}

/// A change of address space, and the refill of 64 pages behind it.
pub(crate) fn refill(c: &mut Criterion) {
    const PAGES: u64 = 64;
    let mut guest = Guest::new(Runner::interp());
    let cr3 = guest.cpu.cr3;
    let mmu = &mut guest.mmu;
    let mut switch = |mmu: &mut Mmu| {
        mmu.load_cr3(cr3, false).expect("a valid CR3");
        for page in 0..PAGES {
            let _ = black_box(mmu.load::<u64>(DATA + (page << 12)));
        }
    };
    let stats = counted(mmu, &mut switch);
    assert_eq!(stats.walks, PAGES);
    let mut group = c.benchmark_group("tlb miss");
    group.throughput(Throughput::Elements(PAGES));
    group.bench_function("cr3 and 64 pages", |b| b.iter(|| switch(mmu)));
}
