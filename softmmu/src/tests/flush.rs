//! What each invalidation must forget and what it may keep (SDM vol. 3A, 4.10.4).

use super::*;
use crate::flush::InvpcidKind;
use crate::walk::entry::G;

const LINEAR: u64 = 0x0003_2000;
const GLOBAL: u64 = 0x0004_5000;
const OLD: u64 = DATA;
const NEW: u64 = DATA + 0x1000;

/// A guest with PCIDs whose current one is 1. `LINEAR` is mapped locally and `GLOBAL`
/// globally to `OLD`, both cached; then the tables are changed to `NEW` without a flush.
fn stale() -> Guest {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.state.cr4 |= cr4::PCIDE;
    guest.state.cr3 = ROOT | 1;
    guest.reload();
    guest.write(OLD, 8, 1);
    guest.write(NEW, 8, 2);
    point_to(&mut guest, OLD);
    assert_eq!(seen(&mut guest), (1, 1));
    point_to(&mut guest, NEW);
    assert_eq!(seen(&mut guest), (1, 1));
    guest
}

fn point_to(guest: &mut Guest, frame: u64) {
    guest.map(LINEAR, frame | ALL);
    guest.map(GLOBAL, frame | ALL | G);
}

/// What the local and the global page read: 1 is stale, 2 is fresh.
fn seen(guest: &mut Guest) -> (u64, u64) {
    (guest.mmu.load(LINEAR).expect("local"), guest.mmu.load(GLOBAL).expect("global"))
}

#[test]
fn invlpg_forgets_one_page_global_or_not() {
    let mut guest = stale();
    guest.mmu.invlpg(LINEAR + 0xFFF);
    assert_eq!(seen(&mut guest), (2, 1));
    guest.mmu.invlpg(GLOBAL);
    assert_eq!(seen(&mut guest), (2, 2));
}

#[test]
fn loading_cr3_keeps_globals() {
    let mut guest = stale();
    guest.mmu.load_cr3(ROOT | 1, false).expect("cr3");
    assert_eq!(seen(&mut guest), (2, 1));
}

#[test]
fn loading_cr3_with_bit_63_keeps_everything_of_the_pcid() {
    let mut guest = stale();
    guest.mmu.load_cr3(ROOT | 1, true).expect("cr3");
    assert_eq!(seen(&mut guest), (1, 1));
    guest.mmu.load_cr3(ROOT | 2, true).expect("cr3");
    assert_eq!(seen(&mut guest), (2, 1));
    guest.mmu.load_cr3(ROOT | 1, true).expect("cr3");
    assert_eq!(seen(&mut guest), (1, 1));
    assert!(guest.mmu.stats.second_level_hits > 0);
}

#[test]
fn loading_cr3_flushes_only_the_pcid_that_it_loads() {
    let mut guest = stale();
    guest.mmu.load_cr3(ROOT | 2, false).expect("cr3");
    assert_eq!(seen(&mut guest), (2, 1));
    guest.mmu.load_cr3(ROOT | 1, true).expect("cr3");
    assert_eq!(seen(&mut guest), (1, 1));
    guest.mmu.load_cr3(ROOT | 1, false).expect("cr3");
    assert_eq!(seen(&mut guest), (2, 1));
}

#[test]
fn bit_63_means_nothing_without_pcide() {
    let mut guest = stale();
    guest.state.cr4 &= !cr4::PCIDE;
    guest.state.cr3 = ROOT;
    guest.reload();
    assert_eq!(seen(&mut guest), (2, 2));
    point_to(&mut guest, OLD);
    guest.mmu.load_cr3(ROOT, true).expect("cr3");
    assert_eq!(seen(&mut guest), (1, 2));
}

#[test]
fn flushes_of_everything_and_of_non_globals() {
    let mut guest = stale();
    guest.mmu.flush_non_global();
    assert_eq!(seen(&mut guest), (2, 1));
    let mut guest = stale();
    guest.mmu.flush_all();
    assert_eq!(seen(&mut guest), (2, 2));
}

#[test]
fn invpcid_types() {
    let other_pcid_is_stale = |guest: &mut Guest| {
        guest.mmu.load_cr3(ROOT | 1, true).expect("cr3");
        guest.mmu.load::<u64>(LINEAR) == Ok(1)
    };
    // Type 0, the current PCID: at least that page.
    let mut guest = stale();
    guest.mmu.invpcid(InvpcidKind::Address, 1, LINEAR);
    assert_eq!(seen(&mut guest), (2, 1));
    // Type 0, another PCID: only there.
    let mut guest = stale();
    guest.mmu.invpcid(InvpcidKind::Address, 2, LINEAR);
    assert_eq!(seen(&mut guest), (1, 1));
    guest.mmu.load_cr3(ROOT | 2, true).expect("cr3");
    guest.mmu.invpcid(InvpcidKind::Address, 1, LINEAR);
    assert!(!other_pcid_is_stale(&mut guest));
    // Type 1.
    let mut guest = stale();
    guest.mmu.invpcid(InvpcidKind::SingleContext, 2, 0);
    assert_eq!(seen(&mut guest), (1, 1));
    guest.mmu.invpcid(InvpcidKind::SingleContext, 1, 0);
    assert_eq!(seen(&mut guest), (2, 1));
    let mut guest = stale();
    guest.mmu.load_cr3(ROOT | 2, true).expect("cr3");
    guest.mmu.invpcid(InvpcidKind::SingleContext, 1, 0);
    assert!(!other_pcid_is_stale(&mut guest));
    // Types 2 and 3, from another PCID.
    for (kind, global) in [(InvpcidKind::AllWithGlobals, 2), (InvpcidKind::AllButGlobals, 1)] {
        let mut guest = stale();
        guest.mmu.load_cr3(ROOT | 2, true).expect("cr3");
        guest.mmu.invpcid(kind, 0, 0);
        guest.mmu.load_cr3(ROOT | 1, true).expect("cr3");
        assert_eq!(seen(&mut guest), (2, global), "{kind:?}");
    }
    assert_eq!(InvpcidKind::from_operand(3), Some(InvpcidKind::AllButGlobals));
    assert_eq!(InvpcidKind::from_operand(4), None);
}

#[test]
fn changes_of_paging_controls_forget_everything() {
    let changes: [fn(&mut PagingState); 4] = [
        |state| state.cr4 ^= cr4::PGE,
        |state| state.cr4 ^= cr4::PCIDE,
        |state| state.cr4 ^= cr4::PSE,
        |state| state.efer ^= efer::NXE,
    ];
    for change in changes {
        let mut guest = stale();
        change(&mut guest.state);
        if guest.state.cr4 & cr4::PCIDE == 0 {
            guest.state.cr3 = ROOT;
        }
        guest.reload();
        assert_eq!(seen(&mut guest), (2, 2));
    }
    let mut guest = stale();
    let state = guest.state;
    guest.mmu.set_paging(&PagingState { cr0: cr0::PE, ..state }).expect("paging");
    guest.mmu.set_paging(&state).expect("paging");
    assert_eq!(seen(&mut guest), (2, 2));
}

#[test]
fn without_pge_no_page_is_global() {
    let mut guest = stale();
    guest.state.cr4 &= !cr4::PGE;
    guest.reload();
    point_to(&mut guest, OLD);
    guest.mmu.load_cr3(ROOT | 1, false).expect("cr3");
    assert_eq!(seen(&mut guest), (1, 1));
}

#[test]
fn a_page_fault_forgets_what_is_cached_for_its_address() {
    let mut guest = stale();
    guest.map(LINEAR, NEW | P);
    guest.set_user();
    // A cached translation grants the read; the write walks and faults.
    assert!(guest.mmu.load::<u64>(LINEAR).is_ok());
    guest.mmu.drop_write_tags();
    guest.map(LINEAR, 0);
    guest.mmu.set_privilege(0, false);
    assert!(guest.mmu.load::<u64>(LINEAR).is_ok());
    assert_eq!(code(guest.mmu.store(LINEAR, 0u64)), 2);
    assert_eq!(code(guest.mmu.load::<u64>(LINEAR)), 0);
}

#[test]
fn invlpg_anywhere_in_a_large_page_forgets_all_of_it() {
    for (mode, level, shift) in [
        (PagingMode::Legacy32, 2, 22u32),
        (PagingMode::Pae, 2, 21),
        (PagingMode::Level4, 2, 21),
        (PagingMode::Level4, 3, 30),
    ] {
        let mut guest = Guest::new(mode);
        let linear = 2u64 << shift;
        let size = 1u64 << shift;
        guest.map_at(ROOT, linear, level, ALL | PS);
        let probes = [0u64, 0x3000, (size / 2).min(8 << 20) + 0x5000];
        for offset in probes {
            guest.write(offset + 8, 8, 1);
            assert_eq!(guest.mmu.load::<u64>(linear + offset + 8), Ok(1));
        }
        guest.map_at(ROOT, linear, level, 0);
        assert!(guest.mmu.load::<u64>(linear + 0x3008).is_ok());
        guest.mmu.invlpg(linear + size - 1);
        for offset in probes {
            assert_eq!(code(guest.mmu.load::<u64>(linear + offset + 8)), 0, "{mode:?}");
        }
    }
}

#[test]
fn invlpg_of_a_large_page_keeps_its_neighbours_in_the_first_level() {
    for (level, shift) in [(2u32, 22u32), (3, 30)] {
        let mut guest = Guest::new(PagingMode::Level4);
        let large = 2u64 << shift;
        guest.map_at(ROOT, large, level, ALL | PS);
        // Outside of the large page, but at indices of it.
        let mut pages: Vec<u64> = (8..80).map(|n| (1 << 40) + large + n * 0x1000).collect();
        pages.push(0);
        for &page in &pages {
            guest.map(page, DATA | ALL);
            assert!(guest.mmu.load::<u64>(page).is_ok());
        }
        assert!(guest.mmu.load::<u64>(large + 0x3000).is_ok());
        guest.mmu.invlpg(large);
        let misses = guest.mmu.stats.tlb_misses;
        for &page in &pages {
            assert!(guest.mmu.load::<u64>(page).is_ok());
        }
        assert_eq!(guest.mmu.stats.tlb_misses, misses, "level {level}");
    }
}

#[test]
fn conflicts_in_the_first_level_are_answered_by_the_second() {
    let mut guest = Guest::new(PagingMode::Level4);
    // 4096 pages apart: the same first-level entry.
    let pages: Vec<u64> = (0..3u64).map(|n| LINEAR + (n << 24)).collect();
    for (index, &linear) in pages.iter().enumerate() {
        let frame = DATA + index as u64 * 4096;
        guest.map(linear, frame | ALL);
        guest.write(frame, 8, index as u64);
    }
    for round in 0..4 {
        for (index, &linear) in pages.iter().enumerate() {
            assert_eq!(guest.mmu.load::<u64>(linear), Ok(index as u64));
        }
        assert_eq!(guest.mmu.stats.walks, 3, "round {round}");
    }
}

#[test]
fn the_fetch_generation_changes_with_every_invalidation_and_returns_with_its_pcid() {
    let mut guest = stale();
    let first = guest.mmu.fetch_generation();
    // What translated code compares with is the same number.
    let published = |mmu: &Mmu| {
        let word = mmu.fetch_generation_address() as usize as *const u64;
        // SAFETY: the word lives as long as the MMU.
        unsafe { word.read_volatile() }
    };
    assert_eq!(published(&guest.mmu), first);
    guest.mmu.load_cr3(ROOT | 2, true).expect("cr3");
    let second = guest.mmu.fetch_generation();
    assert_ne!(first, second);
    assert_eq!(published(&guest.mmu), second);
    guest.mmu.load_cr3(ROOT | 1, true).expect("cr3");
    assert_eq!(guest.mmu.fetch_generation(), first);
    let mut seen = vec![first, second];
    let invalidations: [fn(&mut Mmu); 8] = [
        |mmu| mmu.invlpg(LINEAR),
        |mmu| mmu.flush_all(),
        |mmu| mmu.flush_non_global(),
        |mmu| mmu.load_cr3(ROOT | 1, false).expect("cr3"),
        |mmu| mmu.invpcid(InvpcidKind::Address, 1, LINEAR),
        |mmu| mmu.invpcid(InvpcidKind::SingleContext, 1, 0),
        |mmu| mmu.invpcid(InvpcidKind::AllWithGlobals, 0, 0),
        |mmu| {
            let state = *mmu.paging();
            let state = PagingState { cr4: state.cr4 | cr4::SMEP, ..state };
            mmu.set_paging(&state).expect("paging");
        },
    ];
    for invalidate in invalidations {
        invalidate(&mut guest.mmu);
        let now = guest.mmu.fetch_generation();
        assert!(!seen.contains(&now));
        assert_eq!(published(&guest.mmu), now);
        seen.push(now);
    }
    // Flushing another PCID leaves this one's number, and changes that one's.
    let now = guest.mmu.fetch_generation();
    guest.mmu.invpcid(InvpcidKind::SingleContext, 2, 0);
    assert_eq!(guest.mmu.fetch_generation(), now);
}

/// Makes the TLB forget by use alone: more pages than a set of either level holds.
fn crowd(guest: &mut Guest) {
    for i in 1..=16u64 {
        // The same index in the first level and the same set in the second.
        let linear = LINEAR + (i << 36);
        guest.map(linear, (DATA + 0x2000) | ALL);
        guest.mmu.load::<u64>(linear).expect("mapped");
    }
}

#[test]
fn strict_mode_keeps_what_is_not_invalidated_whatever_else_is_used() {
    let mut guest = stale();
    crowd(&mut guest);
    assert_eq!(guest.mmu.load::<u64>(LINEAR).expect("local"), 2, "a TLB of this size forgets");

    let mut guest = stale();
    guest.mmu.keep_translations();
    crowd(&mut guest);
    assert_eq!(seen(&mut guest), (1, 1));
    guest.mmu.invlpg(LINEAR);
    assert_eq!(seen(&mut guest), (2, 1));

    let mut guest = stale();
    guest.mmu.keep_translations();
    crowd(&mut guest);
    guest.mmu.load_cr3(ROOT | 1, false).expect("cr3");
    assert_eq!(seen(&mut guest), (2, 1));
    guest.mmu.flush_all();
    assert_eq!(seen(&mut guest), (2, 2));
}

#[test]
fn strict_mode_counts_what_went_by_stale_translations() {
    let mut guest = stale();
    assert_eq!(guest.mmu.stale_uses(), None);
    guest.mmu.keep_translations();
    let count = |guest: &Guest| guest.mmu.stale_uses().map(|uses| (uses.reads, uses.writes));
    assert_eq!(count(&guest), Some((0, 0)));
    // The entries have changed, and nothing was flushed: each access counts.
    assert_eq!(seen(&mut guest), (1, 1));
    assert_eq!(seen(&mut guest), (1, 1));
    assert_eq!(count(&guest), Some((4, 0)));
    let page = guest.mmu.stale_uses().expect("strict").pages[0];
    assert_eq!((page.linear, page.access), (LINEAR, crate::Access::Read));
    assert_ne!(Some(page.went_to), page.tables_say);
    // What is flushed goes by the tables.
    guest.mmu.flush_all();
    assert_eq!(seen(&mut guest), (2, 2));
    assert_eq!(count(&guest), Some((4, 0)));
    // A page that is gone, written to.
    guest.mmu.store::<u64>(LINEAR, 7).expect("mapped");
    guest.map(LINEAR, 0);
    guest.mmu.store::<u64>(LINEAR, 8).expect("as before");
    assert_eq!(count(&guest), Some((4, 1)));
    let text = guest.mmu.stale_uses().expect("strict").to_string();
    assert!(
        text.starts_with("Accesses by translations that the page tables no longer had: 5 (4 reads"),
        "{text}"
    );
}
