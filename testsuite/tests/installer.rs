//! Debian's installer for the network, to its first screen.
//!
//! Its package, of 130 MB, is fetched with apt into the user's cache. Where that is impossible, the
//! tests say so and pass.

use machine::guests::debian::Architecture;
use testsuite::media::debian_files;
use testsuite::{EngineKind, Guest};

const FILES: &[&str] = &[
    "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux",
    "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz",
];

/// What the first screen shows, from its top to its bottom, as far as a PC's characters have it.
const FIRST_SCREEN: &[&str] = &[
    "[!!] Select a language",
    "Choose the language to be used for the installation process. The",
    "selected language will also be the default language for the installed",
    "Language:",
    "C                    -  No localization",
    "English              -  English",
    "French               -  Français",
    "<Go Back>",
    "<Tab> moves; <Space> selects; <Enter> activates buttons",
];

fn asks_for_a_language(engine: EngineKind) {
    let package = "debian-installer-12-netboot-amd64";
    let Some(mut files) = debian_files(package, Architecture::Amd64, FILES) else { return };
    let initrd = files.pop().expect("two files were asked for");
    let kernel = files.pop().expect("two files were asked for");
    let guest = Guest::kernel("debian-installer", kernel)
        .initrd(initrd)
        // Text mode throughout; there is a driver for this VGA adapter's other modes.
        .append("nomodeset vga=normal fb=false cryptomgr.notests")
        .memory(1 << 30)
        .vga()
        .engine(engine)
        .timeout(std::time::Duration::from_secs(900))
        .start();
    guest.wait_for_screen("<Tab> moves; <Space> selects; <Enter> activates buttons");
    guest.wait_for_screen("<Go Back>");
    let screen = guest.screen();
    let mut rest = screen.as_str();
    for part in FIRST_SCREEN {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part:?} in:\n{screen}"));
        rest = &rest[at + part.len()..];
    }
    guest.quit();
    guest.finish();
}

#[test]
fn first_screen() {
    asks_for_a_language(EngineKind::Jit);
}

#[test]
#[ignore = "long: some minutes interpreted"]
fn first_screen_interpreted() {
    asks_for_a_language(EngineKind::Interp);
}
