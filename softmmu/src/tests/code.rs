//! Stores to pages with cached code.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::code::CodeWrite;
use crate::exit::ExitRequest;
use crate::paging::Access;

const LINEAR: u64 = 0x0080_1000;
const ALIAS: u64 = 0xFFFF_8800_0000_2000;
const CODE: u64 = DATA;

fn guest() -> Guest {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, CODE | ALL);
    guest.map(ALIAS, CODE | ALL);
    guest
}

#[test]
fn a_store_beside_code_in_its_page_is_silent() {
    let mut guest = guest();
    guest.mmu.store(LINEAR, 0u8).expect("store");
    guest.mmu.mark_code_range(CODE + 0x100, 0x50);
    for offset in [0, 0xFF, 0x180, 0xFF8] {
        guest.mmu.store(LINEAR + offset, 1u8).expect("store");
    }
    assert!(!guest.mmu.code_dirty);
    assert_eq!(guest.mmu.stats.code_page_stores, 4);
    assert_eq!(guest.read(CODE + 0x180, 1), 1);
}

#[test]
fn a_store_to_code_is_reported_once_per_granule_through_any_alias() {
    let mut guest = guest();
    for linear in [LINEAR, ALIAS] {
        guest.mmu.store(linear + 0x110, 0u8).expect("store");
        guest.mmu.mark_code_range(CODE + 0x110, 0x50);
        guest.mmu.store(linear + 0x111, 1u32).expect("store");
        assert!(guest.mmu.code_dirty);
        assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0x100, len: 64 }]);
        assert!(!guest.mmu.code_dirty);
        guest.mmu.store(linear + 0x112, 1u32).expect("store");
        assert!(!guest.mmu.code_dirty);
        // The block's second granule is still marked.
        guest.mmu.store(linear + 0x13F, 1u16).expect("store");
        assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0x140, len: 64 }]);
    }
}

#[test]
fn a_page_whose_code_is_gone_gets_its_write_tag_back() {
    let mut guest = guest();
    guest.mmu.mark_code_range(CODE, 4);
    guest.mmu.store(LINEAR, 1u8).expect("store");
    assert!(guest.mmu.code_dirty);
    let stats = guest.mmu.stats;
    for _ in 0..10 {
        guest.mmu.store(LINEAR, 1u8).expect("store");
    }
    assert!(guest.mmu.stats.tlb_misses <= stats.tlb_misses + 1);
    assert_eq!(guest.mmu.stats.code_page_stores, stats.code_page_stores);
}

#[test]
fn code_and_data_in_one_granule_part_after_some_hits() {
    let mut guest = guest();
    let mut reported = 0;
    for _ in 0..100 {
        guest.mmu.mark_code_range(CODE + 0x104, 0x10);
        guest.mmu.store(LINEAR + 0x100, 1u32).expect("store");
        reported += guest.mmu.take_code_writes().len();
    }
    assert!((1..50).contains(&reported), "{reported}");
    // Stores to the code itself still count, through any alias, and by devices.
    guest.mmu.store(ALIAS + 0x102, 1u32).expect("store");
    assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0x102, len: 4 }]);
    guest.mmu.mark_code_range(CODE + 0x104, 0x10);
    guest.mmu.ram.clone().note_device_write(CODE + 0x110, 1);
    guest.mmu.sync_code_pages();
    assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0x110, len: 1 }]);
    // The next store goes on there: somebody rewrites the code.
    guest.mmu.store(LINEAR + 0x111, 1u8).expect("store");
    assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0x111, len: 3 }]);
    // Without code the page gets its write tag back.
    guest.mmu.store(LINEAR + 0x104, 1u64).expect("store");
    guest.mmu.store(LINEAR + 0x10C, 1u64).expect("store");
    let stores = guest.mmu.stats.code_page_stores;
    for _ in 0..10 {
        guest.mmu.store(LINEAR + 0x104, 1u64).expect("store");
    }
    assert_eq!(guest.mmu.stats.code_page_stores, stores);
}

#[test]
fn every_kind_of_store_is_seen() {
    let stores: [fn(&mut Mmu); 9] = [
        |mmu| mmu.store(LINEAR, 1u64).expect("store"),
        |mmu| mmu.store(LINEAR - 1, 1u16).expect("crossing"),
        |mmu| mmu.store_system(LINEAR, 1u64).expect("system"),
        |mmu| mmu.modify(LINEAR, true, |v: u32| v).map(|_| ()).expect("modify"),
        |mmu| mmu.compare_exchange16(LINEAR, 1, 2).map(|_| ()).expect("cmpxchg16b"),
        |mmu| mmu.write_bytes(LINEAR, &[1]).expect("bytes"),
        |mmu| mmu.fill_run(LINEAR, 4, 0u32).map(|_| ()).expect("stos"),
        |mmu| mmu.copy_run::<u8>(LINEAR, LINEAR + 0x100, 4).map(|_| ()).expect("movs"),
        |mmu| mmu.phys_write(CODE, &[5]),
    ];
    for (index, store) in stores.into_iter().enumerate() {
        let mut guest = guest();
        guest.map(LINEAR - 0x1000, (CODE + 0x5000) | ALL);
        store(&mut guest.mmu);
        guest.mmu.mark_code_range(CODE, 16);
        store(&mut guest.mmu);
        assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE, len: 64 }], "{index}");
    }
}

#[test]
fn marks_of_a_range_cover_its_pages() {
    let mut guest = guest();
    guest.mmu.mark_code_range(CODE + 0xFFC, 8);
    guest.mmu.phys_write(CODE + 0x1004, &[1]);
    guest.mmu.phys_write(CODE + 0xFC0, &[1]);
    assert_eq!(
        guest.mmu.take_code_writes(),
        [CodeWrite { gpa: CODE + 0x1000, len: 64 }, CodeWrite { gpa: CODE + 0xFC0, len: 64 },]
    );
    guest.mmu.mark_code(CODE + 0x123);
    guest.mmu.phys_write(CODE + 0xFF8, &[0; 16]);
    assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0xFC0, len: 64 }]);
    // Marks outside RAM do nothing.
    guest.mmu.mark_code_range(0xFFFF_FFFF_FFFF_FFF0, 64);
    guest.mmu.mark_code(0xFEE0_0000);
    assert!(CodeWrite { gpa: 0x100, len: 64 }.touches(0x13F, 1));
    assert!(!CodeWrite { gpa: 0x100, len: 64 }.touches(0x140, 1));
    assert!(CodeWrite::EVERYTHING.touches(u64::MAX - 1, 1));
}

#[test]
fn other_vcpus_lose_their_write_tags_and_hear_of_writes() {
    let mut guest = guest();
    let mut other = guest.second_vcpu();
    other.store(LINEAR, 1u8).expect("store");
    assert_eq!(other.exit_request.load(), 0);
    guest.mmu.mark_code_range(CODE, 4);
    assert_eq!(guest.mmu.exit_request.load(), 0);
    assert_eq!(other.exit_request.load(), ExitRequest::CODE);
    other.sync_code_pages();
    assert!(!other.code_dirty);
    assert_eq!(other.exit_request.load(), 0);
    other.store(LINEAR, 2u8).expect("store");
    assert!(other.code_dirty);
    assert_eq!(guest.mmu.exit_request.load(), ExitRequest::CODE);
    guest.mmu.sync_code_pages();
    assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE, len: 64 }]);
    // A vCPU that is gone is not told.
    drop(other);
    guest.mmu.mark_code_range(CODE, 4);
    guest.mmu.store(LINEAR, 2u8).expect("store");
    assert!(guest.mmu.code_dirty);
}

#[test]
fn device_writes_reach_every_vcpu() {
    let mut guest = guest();
    guest.mmu.mark_code_range(CODE + 0x40, 4);
    guest.mmu.ram.note_device_write(CODE - 0x1000, 0x3000);
    assert_eq!(guest.mmu.exit_request.load(), ExitRequest::CODE);
    guest.mmu.sync_code_pages();
    assert_eq!(guest.mmu.take_code_writes(), [CodeWrite { gpa: CODE + 0x40, len: 64 }]);
}

#[test]
fn a_mailbox_that_nobody_reads_stays_small() {
    let mut guest = guest();
    let mut other = guest.second_vcpu();
    for _ in 0..5000 {
        guest.mmu.mark_code_range(CODE, 4);
        guest.mmu.store(LINEAR, 2u8).expect("store");
    }
    guest.mmu.take_code_writes();
    other.sync_code_pages();
    let writes = other.take_code_writes();
    assert!(writes.contains(&CodeWrite::EVERYTHING));
    assert!(writes.len() < 2000);
}

#[test]
fn dirty_pages_are_tracked_through_write_tags() {
    let mut guest = guest();
    guest.mmu.ram.take_dirty(CODE);
    guest.mmu.load::<u8>(LINEAR).expect("load");
    assert!(!guest.mmu.ram.take_dirty(CODE));
    guest.mmu.store(LINEAR, 1u8).expect("store");
    assert!(guest.mmu.ram.take_dirty(CODE));
    guest.mmu.drop_write_tags();
    assert!(!guest.mmu.ram.take_dirty(CODE));
    guest.mmu.store(LINEAR, 1u8).expect("store");
    assert!(guest.mmu.ram.take_dirty(CODE));
    assert!(guest.mmu.host_span(LINEAR, Access::Write).is_some());
}

#[test]
fn waiting_for_other_vcpus_ends_when_they_have_read_their_mail_or_are_parked() {
    let mut guest = guest();
    let mut other = guest.second_vcpu();
    guest.mmu.wait_for_code_sync();
    guest.mmu.mark_code_range(CODE, 4);
    let reading = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            reading.store(true, Ordering::SeqCst);
            other.sync_code_pages();
        });
        guest.mmu.wait_for_code_sync();
        assert!(reading.load(Ordering::SeqCst));
    });
    other.park();
    guest.mmu.mark_code_range(CODE + 0x1000, 4);
    guest.mmu.wait_for_code_sync();
    other.store(ALIAS, 0u8).expect("store");
    other.unpark();
    assert_eq!(other.exit_request.load(), 0);
}

#[test]
fn two_vcpus_that_mark_at_once_do_not_wait_for_each_other_forever() {
    let mut guest = guest();
    let mut other = guest.second_vcpu();
    let churn = |mmu: &mut Mmu, base: u64| {
        for round in 0..2000u64 {
            let gpa = base + round % 16 * 0x1000;
            mmu.mark_code_range(gpa, 4);
            mmu.wait_for_code_sync();
            mmu.phys_write(gpa, &[0]);
            assert!(mmu.code_dirty);
            mmu.take_code_writes();
        }
        mmu.park();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| churn(&mut other, CODE + 0x4_0000));
        churn(&mut guest.mmu, CODE + 0x8_0000);
    });
}
