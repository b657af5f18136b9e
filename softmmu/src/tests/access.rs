//! Operands: widths, page crossings, wraps, device memory, ROM, runs.

use super::*;
use crate::paging::Access;
use x86::fault::pf;

/// Two linear pages that are neighbours on frames that are not.
const LINEAR: u64 = 0x0050_0000;
const FIRST: u64 = DATA + 0x7000;
const SECOND: u64 = DATA + 0x3000;

fn two_pages(mode: PagingMode) -> Guest {
    let mut guest = Guest::new(mode);
    guest.map(LINEAR, FIRST | ALL);
    guest.map(LINEAR + 0x1000, SECOND | ALL);
    guest
}

fn every_crossing<T: crate::Width>() {
    let mut guest = two_pages(PagingMode::Level4);
    let pattern = T::from_u64(0x8877_6655_4433_2211);
    for in_first in 1..u64::from(T::SIZE) {
        let linear = LINEAR + 0x1000 - in_first;
        guest.mmu.store(linear, pattern).expect("store");
        assert_eq!(guest.mmu.load::<T>(linear), Ok(pattern));
        let bytes = pattern.to_u64().to_le_bytes();
        for (index, byte) in bytes[..T::SIZE as usize].iter().enumerate() {
            let at = linear + index as u64;
            let gpa = if at < LINEAR + 0x1000 {
                at - LINEAR + FIRST
            } else {
                at - LINEAR - 0x1000 + SECOND
            };
            assert_eq!(guest.read(gpa, 1), u64::from(*byte));
        }
        for locked in [false, true] {
            let old = guest.mmu.modify(linear, locked, |v: T| T::from_u64(!v.to_u64()));
            assert!(old.is_ok());
        }
        assert_eq!(guest.mmu.load::<T>(linear), Ok(pattern));
    }
    assert!(guest.mmu.stats.page_crossings > 0 || T::SIZE == 1);
}

#[test]
fn operands_that_cross_a_page_reach_both_frames() {
    every_crossing::<u16>();
    every_crossing::<u32>();
    every_crossing::<u64>();
}

#[test]
fn a_crossing_store_writes_nothing_if_either_page_faults() {
    for (missing, address) in [(LINEAR, LINEAR + 0xFFD), (LINEAR + 0x1000, LINEAR + 0x1000)] {
        let mut guest = two_pages(PagingMode::Level4);
        let slot = guest.map(missing, 0);
        assert_eq!(code(guest.mmu.store(LINEAR + 0xFFD, u64::MAX)), pf::WRITE);
        assert_eq!(guest.mmu.fault_address, address);
        assert_eq!(code(guest.mmu.load::<u64>(LINEAR + 0xFFD)), 0);
        let result = guest.mmu.modify(LINEAR + 0xFFD, false, |v: u64| v);
        assert_eq!(code(result), pf::WRITE);
        assert_eq!(guest.mmu.fault_address, address);
        assert_eq!((guest.read(FIRST + 0xFFD, 3), guest.read(SECOND, 5)), (0, 0));
        assert_eq!(guest.accessed_dirty(slot), (false, false));
    }
}

#[test]
fn linear_addresses_wrap_at_4_gib_outside_long_mode() {
    let mut guest = Guest::new(PagingMode::Pae);
    guest.map(0xFFFF_F000, FIRST | ALL);
    guest.map(0, SECOND | ALL);
    guest.mmu.store(0xFFFF_FFFE, 0x4433_2211u32).expect("store");
    assert_eq!((guest.read(FIRST + 0xFFE, 2), guest.read(SECOND, 2)), (0x2211, 0x4433));
    assert_eq!(guest.mmu.load::<u32>(0xFFFF_FFFE), Ok(0x4433_2211));
    let mut bytes = [0; 3];
    guest.mmu.read_bytes(0xFFFF_FFFF, &mut bytes).expect("read");
    assert_eq!(bytes, [0x22, 0x33, 0x44]);
    // In 64-bit mode the address space goes on, and at its top it wraps to zero.
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(0xFFFF_F000, FIRST | ALL);
    guest.map(0x1_0000_0000, SECOND | ALL);
    guest.mmu.store(0xFFFF_FFFE, 0x4433_2211u32).expect("store");
    assert_eq!((guest.read(FIRST + 0xFFE, 2), guest.read(SECOND, 2)), (0x2211, 0x4433));
    guest.map(0xFFFF_FFFF_FFFF_F000, FIRST | ALL);
    guest.map(0, DATA | ALL);
    guest.mmu.store(0xFFFF_FFFF_FFFF_FFFF, 0xBBAAu16).expect("store");
    assert_eq!((guest.read(FIRST + 0xFFF, 1), guest.read(DATA, 1)), (0xAA, 0xBB));
    // Compatibility mode narrows the mask; system structures above it are not affected.
    guest.mmu.linear_mask = 0xFFFF_FFFF;
    guest.mmu.store(0xFFFF_FFFE, 0x8877_6655u32).expect("store");
    assert_eq!((guest.read(DATA, 2), guest.read(SECOND, 2)), (0x8877, 0x4433));
    guest.map(0xFFFF_8000_0000_0000, FIRST | ALL);
    guest.map(0xFFFF_8000_0000_1000, SECOND | ALL);
    assert_eq!(guest.mmu.load_system::<u32>(0xFFFF_8000_0000_0FFE), Ok(0x4433_6655));
}

#[test]
fn modify_reports_a_write_even_where_reading_is_the_problem() {
    let mut guest = two_pages(PagingMode::Level4);
    guest.map(LINEAR, FIRST | P);
    guest.write(FIRST, 4, 7);
    let result = guest.mmu.modify(LINEAR, true, |v: u32| v + 1);
    assert_eq!(code(result), pf::WRITE | pf::PRESENT);
    assert_eq!(guest.read(FIRST, 4), 7);
}

#[test]
fn try_modify_writes_only_on_some() {
    let mut guest = two_pages(PagingMode::Level4);
    guest.write(FIRST + 8, 8, 5);
    for locked in [false, true] {
        for _ in 0..2 {
            assert_eq!(guest.mmu.try_modify(LINEAR + 8, locked, |_: u64| None), Ok(5));
        }
        assert_eq!(guest.read(FIRST + 8, 8), 5);
    }
    assert_eq!(guest.mmu.try_modify(LINEAR + 8, true, |v: u64| Some(v * 2)), Ok(5));
    assert_eq!(guest.read(FIRST + 8, 8), 10);
}

#[test]
fn locked_additions_of_two_vcpus_are_not_lost() {
    const ROUNDS: u64 = 20_000;
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, FIRST | ALL);
    guest.map(LINEAR + 0x1000, SECOND | ALL);
    // Aligned; misaligned in a line; across a line; across a page.
    let targets = [LINEAR + 0x100, LINEAR + 0x203, LINEAR + 0x33E, LINEAR + 0xFFD];
    let mut other = guest.second_vcpu();
    let add = |mmu: &mut Mmu| {
        for _ in 0..ROUNDS {
            for target in targets {
                mmu.modify(target, true, |v: u64| v.wrapping_add(1)).expect("add");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| add(&mut other));
        add(&mut guest.mmu);
    });
    for target in targets {
        assert_eq!(guest.mmu.load::<u64>(target), Ok(2 * ROUNDS), "{target:#x}");
    }
}

#[test]
fn compare_exchange16() {
    let mut guest = two_pages(PagingMode::Level4);
    let value = 0xFEDC_BA98_7654_3210_0123_4567_89AB_CDEFu128;
    for _ in 0..2 {
        let at = LINEAR + 0xFF0;
        guest.write(FIRST + 0xFF0, 8, 3);
        guest.write(FIRST + 0xFF8, 8, 0);
        assert_eq!(guest.mmu.compare_exchange16(at, 4, value), Ok(3));
        assert_eq!(guest.mmu.compare_exchange16(at, 3, value), Ok(3));
        assert_eq!(guest.read(FIRST + 0xFF8, 8), (value >> 64) as u64);
    }
    assert_eq!(guest.mmu.compare_exchange16(LINEAR + 8, 0, 0), Err(Fault::GP0));
    guest.map(LINEAR + 0x1000, SECOND | P);
    guest.mmu.flush_all();
    assert_eq!(code(guest.mmu.compare_exchange16(LINEAR + 0x1000, 1, 2)), pf::WRITE | pf::PRESENT);
}

#[test]
fn device_memory_is_accessed_once_and_in_the_operands_size() {
    const DEVICE: u64 = 0xFEE0_0000;
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, DEVICE | ALL);
    for _ in 0..2 {
        assert_eq!(guest.mmu.load::<u32>(LINEAR + 0x20), Ok(0x2322_2120));
        assert_eq!(guest.bus.take(), [('r', DEVICE + 0x20, vec![0x20, 0x21, 0x22, 0x23])]);
        guest.mmu.store(LINEAR + 0xB0, 0x1122u16).expect("store");
        assert_eq!(guest.bus.take(), [('w', DEVICE + 0xB0, vec![0x22, 0x11])]);
    }
    assert_eq!(guest.mmu.modify(LINEAR + 8, false, |v: u8| v + 1), Ok(8));
    assert_eq!(guest.bus.take(), [('r', DEVICE + 8, vec![8]), ('w', DEVICE + 8, vec![9])]);
    assert_eq!(guest.mmu.stats.mmio, 6);
    // Byte strings go in aligned pieces.
    guest.mmu.write_bytes(LINEAR + 1, &[1, 2, 3, 4, 5, 6, 7]).expect("write");
    assert_eq!(
        guest.bus.take(),
        [
            ('w', DEVICE + 1, vec![1]),
            ('w', DEVICE + 2, vec![2, 3]),
            ('w', DEVICE + 4, vec![4, 5, 6, 7]),
        ]
    );
}

#[test]
fn operands_that_straddle_ram_and_device_memory() {
    const DEVICE: u64 = 0xFEC0_0000;
    let mut guest = two_pages(PagingMode::Level4);
    guest.map(LINEAR + 0x1000, DEVICE | ALL);
    guest.write(FIRST + 0xFFE, 2, 0xBEEF);
    assert_eq!(guest.mmu.load::<u32>(LINEAR + 0xFFE), Ok(0x0100_BEEF));
    assert_eq!(guest.bus.take(), [('r', DEVICE, vec![0, 1])]);
    guest.mmu.store(LINEAR + 0xFFD, 0x8877_6655_4433_2211u64).expect("store");
    assert_eq!(guest.read(FIRST + 0xFFD, 3), 0x33_2211);
    assert_eq!(
        guest.bus.take(),
        [('w', DEVICE, vec![0x44, 0x55, 0x66, 0x77]), ('w', DEVICE + 4, vec![0x88]),]
    );
}

#[test]
fn rom_reads_and_ignores_writes() {
    let mut guest = two_pages(PagingMode::Level4);
    guest.mmu.load::<u8>(LINEAR).expect("load");
    guest.mmu.store(LINEAR, 1u8).expect("store");
    guest.mmu.ram.set_rom(FIRST, 4096, true);
    guest.mmu.flush_all();
    for _ in 0..2 {
        guest.mmu.store(LINEAR, 2u8).expect("store");
        guest.mmu.write_bytes(LINEAR, &[3, 4]).expect("write");
        assert_eq!(guest.mmu.fill_run(LINEAR, 5, 9u8), Ok(1));
        assert_eq!(guest.mmu.copy_run::<u8>(LINEAR, LINEAR + 0x1000, 5), Ok(1));
        assert_eq!(guest.mmu.modify(LINEAR, true, |v: u8| v + 1), Ok(1));
        assert!(guest.mmu.compare_exchange16(LINEAR, 1, 7).is_ok());
        guest.mmu.phys_write(FIRST, &[8]);
        assert_eq!(guest.mmu.load::<u16>(LINEAR), Ok(1));
    }
    assert_eq!(guest.mmu.host_span(LINEAR, Access::Write), None);
    guest.mmu.ram.set_rom(FIRST, 4096, false);
    guest.mmu.flush_all();
    guest.mmu.store(LINEAR, 2u8).expect("store");
    assert_eq!(guest.read(FIRST, 1), 2);
}

#[test]
fn byte_ranges_are_all_or_nothing() {
    let mut guest = two_pages(PagingMode::Level4);
    let data: Vec<u8> = (0..0x1800).map(|n| (n % 251) as u8).collect();
    guest.mmu.write_bytes(LINEAR + 0x400, &data).expect("write");
    let mut back = vec![0; data.len()];
    guest.mmu.read_bytes(LINEAR + 0x400, &mut back).expect("read");
    assert_eq!(back, data);
    assert_eq!(guest.read(SECOND, 1), u64::from(data[0xC00]));
    // The third page is missing.
    let before = guest.read(FIRST + 0xC00, 8);
    let result = guest.mmu.write_bytes(LINEAR + 0xC00, &data);
    assert_eq!(code(result), pf::WRITE);
    assert_eq!(guest.mmu.fault_address, LINEAR + 0x2000);
    assert_eq!(guest.read(FIRST + 0xC00, 8), before);
    assert!(guest.mmu.probe(LINEAR, 0x2000, Access::Write).is_ok());
    assert_eq!(code(guest.mmu.probe(LINEAR, 0x2001, Access::Write)), pf::WRITE);
    assert!(guest.mmu.probe(LINEAR + 0x5000, 0, Access::Write).is_ok());
    // Longer than the translations that are kept.
    for page in 0..8 {
        guest.map(LINEAR + page * 0x1000, (DATA + page * 0x1000) | ALL);
    }
    guest.mmu.flush_all();
    let data: Vec<u8> = (0..0x7801).map(|n| (n % 253) as u8).collect();
    guest.mmu.write_bytes(LINEAR + 0x7FF, &data).expect("write");
    let mut back = vec![0; data.len()];
    guest.mmu.ram.read(DATA + 0x7FF, &mut back).expect("read");
    assert_eq!(back, data);
}

#[test]
fn runs_stop_at_page_ends_and_repeat_patterns() {
    let mut guest = two_pages(PagingMode::Level4);
    assert_eq!(guest.mmu.fill_run(LINEAR + 0xFF0, 100, 0x1234u16), Ok(8));
    assert_eq!(guest.mmu.fill_run(LINEAR + 0xFFF, 100, 0xABCDu16), Ok(1));
    assert_eq!((guest.read(FIRST + 0xFFC, 4), guest.read(SECOND, 1)), (0xCD34_1234, 0xAB));
    assert_eq!(guest.mmu.fill_run(LINEAR, 0, 0u32), Ok(0));
    // Overlap by three bytes: the first three repeat.
    guest.mmu.write_bytes(LINEAR, b"xyz").expect("write");
    assert_eq!(guest.mmu.copy_run::<u8>(LINEAR + 3, LINEAR, 9), Ok(9));
    let mut text = [0; 12];
    guest.mmu.read_bytes(LINEAR, &mut text).expect("read");
    assert_eq!(&text, b"xyzxyzxyzxyz");
    // Limited by the source's page, by the destination's page, then one crossing element.
    assert_eq!(guest.mmu.copy_run::<u32>(LINEAR, LINEAR + 0xFE0, 50), Ok(8));
    assert_eq!(guest.mmu.copy_run::<u32>(LINEAR + 0xFF0, LINEAR, 50), Ok(4));
    assert_eq!(guest.mmu.copy_run::<u32>(LINEAR + 0xFFE, LINEAR, 50), Ok(1));
    assert_eq!(guest.mmu.copy_run::<u32>(LINEAR, LINEAR, 0), Ok(0));
    // The read faults before the write.
    let result = guest.mmu.copy_run::<u64>(LINEAR + 0x9000, LINEAR + 0x8000, 4);
    assert_eq!((code(result), guest.mmu.fault_address), (0, LINEAR + 0x8000));
    let result = guest.mmu.copy_run::<u64>(LINEAR + 0x9000, LINEAR, 4);
    assert_eq!((code(result), guest.mmu.fault_address), (pf::WRITE, LINEAR + 0x9000));
}

#[test]
fn instruction_bytes_stop_at_a_page_that_faults() {
    let mut guest = two_pages(PagingMode::Level4);
    guest.write(FIRST + 0xFF8, 8, 0x0807_0605_0403_0201);
    guest.write(SECOND, 8, 0x100F_0E0D_0C0B_0A09);
    let mut bytes = [0; 15];
    assert_eq!(guest.mmu.fetch_bytes(LINEAR + 0xFF8, &mut bytes), (15, None));
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    guest.map(LINEAR + 0x1000, 0);
    guest.mmu.flush_all();
    let (valid, fault) = guest.mmu.fetch_bytes(LINEAR + 0xFF8, &mut bytes);
    assert_eq!(valid, 8);
    assert_eq!(fault.and_then(Fault::error_code), Some(pf::FETCH));
    assert_eq!(guest.mmu.fault_address, LINEAR + 0x1000);
}

#[test]
fn physical_accesses_reach_ram_and_devices() {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.mmu.phys_write(0xFF_FFFE, &[1, 2, 3, 4]);
    assert_eq!(guest.read(0xFF_FFFE, 2), 0x0201);
    assert_eq!(guest.bus.take(), [('w', 0x100_0000, vec![3, 4])]);
    let mut bytes = [0; 4];
    guest.mmu.phys_read(0xFF_FFFE, &mut bytes);
    assert_eq!(bytes, [1, 2, 0, 1]);
    guest.mmu.phys_read(u64::MAX, &mut bytes);
}

#[test]
fn host_span_gives_ram_to_the_end_of_the_page() {
    let mut guest = two_pages(PagingMode::Level4);
    let (pointer, len) = guest.mmu.host_span(LINEAR + 0x10, Access::Read).expect("span");
    assert_eq!((pointer, len), (guest.mmu.ram.host_ptr(FIRST + 0x10).expect("ram"), 0xFF0));
    guest.mmu.fault_address = 5;
    assert_eq!(guest.mmu.host_span(LINEAR + 0x9000, Access::Read), None);
    assert_eq!(guest.mmu.fault_address, 5);
    guest.mmu.mark_code_range(FIRST, 1);
    assert_eq!(guest.mmu.host_span(LINEAR, Access::Write), None);
    assert!(guest.mmu.host_span(LINEAR, Access::Read).is_some());
}
