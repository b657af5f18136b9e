//! The image by itself; that it *runs* is the business of testsuite and of `ringshift demo`.

use crate::layout::{LOAD_BASE, LOAD_END, MEMORY_END, SECTIONS};
use crate::{Image, Options, Parts, PowerOff, build};

fn image() -> Image {
    build(&Options::default()).expect("the guest assembles")
}

fn doubleword(image: &Image, offset: usize) -> u32 {
    u32::from_le_bytes(image.bytes[offset..offset + 4].try_into().expect("four bytes"))
}

#[test]
fn header_is_a_multiboot_header_that_needs_no_elf() {
    let image = image();
    let [magic, flags, checksum] = [0, 4, 8].map(|offset| doubleword(&image, offset));
    assert_eq!(magic, 0x1BAD_B002);
    assert_eq!(flags, 1 << 16);
    assert_eq!(magic.wrapping_add(flags).wrapping_add(checksum), 0);

    let [header, load, load_end, bss_end, entry] =
        [12, 16, 20, 24, 28].map(|offset| u64::from(doubleword(&image, offset)));
    assert_eq!(header, LOAD_BASE, "the header is the first thing in the file");
    assert_eq!(load, image.load_address);
    assert_eq!(load_end - load, image.bytes.len() as u64);
    assert_eq!(bss_end, image.memory_size);
    assert_eq!(entry, image.entry);
    assert!((load..load_end).contains(&entry));
}

#[test]
fn sections_do_not_overlap() {
    let mut end = LOAD_BASE;
    let mut by_load: Vec<_> = SECTIONS.iter().collect();
    by_load.sort_by_key(|section| section.load);
    for section in by_load {
        assert!(section.load >= end, "{} begins inside another", section.name);
        end = section.load + section.size as u64;
    }
    assert!(end <= LOAD_END);
    const { assert!(LOAD_END <= MEMORY_END) };
    let real = SECTIONS.iter().find(|section| section.name == "real").expect("a 16-bit section");
    assert!(real.origin + real.size as u64 <= 0x1_0000, "16-bit offsets reach it");
}

#[test]
fn symbols_lie_in_their_sections() {
    let image = image();
    for name in ["protected/entry", "real/start", "kernel/trap", "kernel/tss", "user/count"] {
        assert!(image.symbols.contains_key(name), "{name}");
    }
    for (name, address) in &image.symbols {
        let place = SECTIONS
            .iter()
            .find(|section| name.starts_with(&format!("{}/", section.name)))
            .unwrap_or_else(|| panic!("{name} has no section"));
        let offset = address - place.origin;
        assert!(offset <= place.size as u64, "{name} lies at {address:#x}");
    }
}

#[test]
fn addresses_have_names() {
    let image = image();
    let trap = image.symbols["kernel/trap"];
    assert_eq!(image.symbol_at(trap), Some(("kernel/trap", 0)));
    assert_eq!(image.symbol_at(trap + 1), Some(("kernel/trap", 1)));
    assert_eq!(image.symbol_at(0), None);
    assert_eq!(image.symbol_at(u64::MAX), None);
}

#[test]
fn building_twice_gives_one_image() {
    assert_eq!(image().bytes, image().bytes);
}

#[test]
fn transcript_holds_a_line_for_each_check() {
    let image = image();
    let checks = image.transcript.iter().filter(|line| line.ends_with(" ok")).count();
    // AVX and CMPXCHG16B are optional: their lines end differently where they are skipped.
    assert_eq!(checks + 2, image.checks as usize);
    assert_eq!(image.transcript.last().map(String::as_str), Some("ringshift guest: all "));
}

#[test]
fn transcript_is_compared_in_order() {
    let image = image();
    let complete = image.transcript.join("\r\nsomething else\r\n");
    assert_eq!(image.missing_line(&complete), None);
    let mut swapped = image.transcript.clone();
    swapped.swap(3, 4);
    assert_eq!(image.missing_line(&swapped.join("\n")), Some(image.transcript[4].as_str()));
    assert_eq!(image.missing_line(""), Some(image.transcript[0].as_str()));
}

#[test]
fn hostile_options_are_clamped() {
    for extreme in [0, u32::MAX] {
        let options = Options {
            power_off: PowerOff::acpi(0xFFFF, 0xFFFF),
            timer_hz: extreme,
            slices: extreme,
            sieve_limit: extreme,
            iterations: extreme,
            parts: Parts::default(),
            strict: false,
        };
        build(&options).expect("the guest assembles");
    }
}

#[test]
fn power_off_is_sleep_enable_and_type() {
    assert_eq!(PowerOff::acpi(0x604, 5).value, 0x3400);
    assert_eq!(PowerOff::acpi(0x604, 0).value, 0x2000);
}

#[test]
fn every_part_can_be_left_out() {
    let leave_out: [fn(&mut Parts); 7] = [
        |parts| parts.call_gates = false,
        |parts| parts.hardware_task_switch = false,
        |parts| parts.virtual_8086 = false,
        |parts| parts.floating_point = false,
        |parts| parts.computation = false,
        |parts| parts.compatibility = false,
        |parts| parts.timer = false,
    ];
    let all = image().checks;
    for leave_out in leave_out {
        let mut options = Options::default();
        leave_out(&mut options.parts);
        let without = build(&options).expect("the guest assembles").checks;
        assert!(without < all, "{:?}", options.parts);
    }
}
