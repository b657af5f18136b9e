use super::images::{PAYLOAD, PAYLOAD_AT, bzimage, patch};
use crate::boot::{ImageError, Module, real_mode, wants_setup_code};
use devices::fw_cfg::LinuxImage;
use proptest::prelude::*;
use x86::cpuid::Model;

const RAM: u64 = 64 << 20;

fn load(image: &[u8], command_line: &str, initrd: &[u8]) -> Result<LinuxImage, ImageError> {
    let modules = [Module { data: initrd, command_line: "" }];
    let modules = if initrd.is_empty() { &[][..] } else { &modules[..] };
    real_mode(image, command_line, modules, RAM).map(|linux| linux.image)
}

fn word(setup: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([setup[at], setup[at + 1], setup[at + 2], setup[at + 3]])
}

#[test]
fn a_bzimage_goes_where_the_boot_protocol_says() {
    let image = load(&bzimage(), "quiet vga=0x317", &[7; 5000]).unwrap();
    let (at, setup) = image.setup;
    assert_eq!((at, setup.len()), (0x1_0000, PAYLOAD_AT));
    assert_eq!(image.kernel, (0x10_0000, PAYLOAD.to_vec()));
    assert_eq!(image.command_line, (0x2_0000, "quiet vga=0x317".to_owned()));
    // Below what firmware keeps for its tables, at a page.
    let initrd = 0x3EF_E000;
    assert_eq!(image.initrd, Some((initrd, vec![7; 5000])));
    assert_eq!(word(&setup, 0x218), initrd);
    assert_eq!(word(&setup, 0x21C), 5000);
    assert_eq!(word(&setup, 0x228), 0x2_0000);
    // Mode, loader, CAN_USE_HEAP beside the flags that were there, and where the heap ends.
    assert_eq!(setup[0x1FA..0x1FC], [0x17, 3]);
    assert_eq!(setup[0x210..0x212], [0xFF, 0xC1]);
    assert_eq!(setup[0x224..0x226], [0, 0xFE]);
    let entry = real_mode(&bzimage(), "", &[], RAM).unwrap();
    assert_eq!((entry.segment, entry.stack), (0x1000, 0xFFF0));
}

#[test]
fn old_protocols_have_their_places() {
    let mut image = bzimage();
    patch(&mut image, 0x206, &[1, 2]);
    let old = load(&image, "quiet", &[]).unwrap();
    assert_eq!((old.setup.0, old.kernel.0, old.command_line.0), (0x9_0000, 0x10_0000, 0x9_9FF0));
    assert_eq!(old.setup.1[0x20..0x24], [0x3F, 0xA3, 0xF0, 0x9F]);
    assert_eq!(word(&old.setup.1, 0x228), 0);
    assert!(old.initrd.is_none());
    // A zImage.
    patch(&mut image, 0x211, &[0]);
    assert_eq!(load(&image, "", &[]).unwrap().kernel.0, 0x1_0000);
    image.resize(PAYLOAD_AT + 0x8_0001, 0);
    let error = load(&image, "", &[]).unwrap_err().to_string();
    assert!(error.contains("the kernel needs 0x80001 bytes at 0x10000"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let initrd = vec![0; 48 << 20];
    let error = load(&bzimage(), "", &initrd).unwrap_err().to_string();
    assert!(error.contains("no room for initrd"), "{error}");
    assert!(matches!(load(&bzimage(), "a\0", &[]), Err(ImageError::CommandLineNul(1))));
    let long = "x".repeat(2048);
    assert!(matches!(
        load(&bzimage(), &long, &[]),
        Err(ImageError::CommandLineTooLong { length: 2048, limit: 2047 })
    ));
    let mut image = bzimage();
    patch(&mut image, 0x1F1, &[0xFF]);
    image.resize(0x2_1000, 0);
    let error = load(&image, "", &[]).unwrap_err().to_string();
    assert!(error.contains("setup_sects is 0xff"), "{error}");
    assert!(matches!(load(b"\x7FELF", "", &[]), Err(ImageError::NoSetupHeader)));
}

#[test]
fn the_setup_code_is_run_where_there_is_no_other_way_or_the_processor_lacks_something() {
    let host = Model::default().policy(1).unwrap();
    let wants = |at: usize, bytes: &[u8]| {
        let mut image = bzimage();
        patch(&mut image, at, bytes);
        wants_setup_code(&image, &host)
    };
    assert!(!wants(0x206, &[0x0F, 2]));
    assert!(!wants(0x206, &[5, 2]));
    assert!(wants(0x206, &[4, 2]), "before the 32-bit protocol");
    assert!(wants(0x211, &[0]), "a zImage");
    assert!(wants(0x214, &[0; 4]), "no code32_start");
    assert!(!wants_setup_code(b"\x7FELF", &host));
    for model in ["486", "pentium"] {
        let policy = model.parse::<Model>().unwrap().policy(1).unwrap();
        assert!(wants_setup_code(&bzimage(), &policy), "{model}");
    }
}

proptest! {
    #[test]
    fn no_image_breaks_it(
        at in 0x1F1usize..0x270,
        bytes in prop::collection::vec(any::<u8>(), 1..16),
        cut in 0usize..8000,
        ram in 0u64..0x1_0000_0000,
    ) {
        let mut image = bzimage();
        patch(&mut image, at, &bytes);
        image.truncate(cut.max(0x300));
        let module = Module { data: &[1; 3000], command_line: "" };
        if let Ok(linux) = real_mode(&image, "a b", &[module], ram) {
            let (at, data) = linux.image.initrd.expect("there is an initrd");
            prop_assert!(u64::from(at) + data.len() as u64 <= ram);
            prop_assert!(u64::from(linux.image.kernel.0) + linux.image.kernel.1.len() as u64 <= ram.max(0x9_0000));
        }
    }
}
