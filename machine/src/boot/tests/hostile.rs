//! Property tests: whatever the file holds, loading ends in a state whose entry
//! is in guest RAM, or in an error; never in a panic.

use proptest::prelude::*;

use super::images::{Segment, bzimage, elf, multiboot_header, pvh_note};
use super::*;

fn seeds() -> Vec<Vec<u8>> {
    let header = multiboot_header(1 << 16, &[0x10_0000, 0x10_0000, 0, 0x10_2000, 0x10_0000]);
    let segments = || {
        [
            Segment::flat(0x10_0000, &multiboot_header(3, &[]), 0x2000),
            Segment::flat(0x20_0000, &[1; 64], 0x1000),
        ]
    };
    let plain = || [Segment::flat(0x10_0000, &[0x90; 64], 0x2000)];
    vec![
        bzimage(),
        header,
        elf(false, 0x10_0000, &segments(), None),
        elf(true, 0x10_0000, &plain(), Some(&pvh_note(0x10_0010))),
        elf(false, 0x10_0000, &plain(), Some(&pvh_note(0x10_0010))),
        elf(true, 0x10_0000, &plain(), None),
    ]
}

/// A byte position, mostly in headers.
fn position() -> impl Strategy<Value = usize> {
    prop_oneof![0..0x100_usize, 0x1F0..0x270_usize, 0x400..0x480_usize, any::<usize>()]
}

/// Values that are extreme more often than not.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(0xFF), Just(0x80), Just(0x7F), any::<u8>()];
    prop::collection::vec(byte, 1..9)
}

fn try_load(image: &[u8], protocol: Protocol) {
    let guest = TestGuest::new(24 * MIB, 20 * MIB);
    let modules = [Module { data: b"module", command_line: "name" }];
    let request = Request { modules: &modules, protocol, ..guest.request(image) };
    match guest.load(&request) {
        Ok(loaded) => {
            assert!(guest.map.is_ram(loaded.entry.address(), 1), "{:?}", loaded.entry);
            for item in &loaded.placed {
                assert!(guest.map.is_ram(item.start, item.size), "{item:?}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

proptest! {
    #[test]
    fn random_bytes_are_no_kernel(image in prop::collection::vec(any::<u8>(), 0..9000)) {
        try_load(&image, Protocol::Best);
    }

    #[test]
    fn a_mutated_image_is_loaded_or_refused(
        seed in 0..6_usize,
        mutations in prop::collection::vec((position(), value()), 1..5),
        length in prop::option::weighted(0.2, any::<usize>()),
        linux32 in any::<bool>(),
    ) {
        let mut image = seeds().swap_remove(seed);
        for (at, bytes) in mutations {
            let at = at % image.len();
            for (target, byte) in image[at..].iter_mut().zip(bytes) {
                *target = byte;
            }
        }
        if let Some(length) = length {
            image.truncate(length % (image.len() + 1));
        }
        try_load(&image, if linux32 { Protocol::Linux32 } else { Protocol::Best });
    }
}
