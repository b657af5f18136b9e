//! A guest's screen and keyboard, as a person in front of it has them.

use devices::legacy::i8042::{I8042Device, us_layout};
use machine::VgaDevice;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A folder for pictures of the screens that tests waited for, for people to look at.
const PICTURES: &str = "RINGSHIFT_PICTURES";

/// Time between two keys: firmware holds few of them, and drops what it has no room for.
const KEY_PACE: Duration = Duration::from_millis(60);

/// The scan codes of the keys that type `character`: with Ctrl for a control character that has
/// no key of its own.
fn scan_codes(character: char) -> Option<Vec<u8>> {
    const CTRL: u8 = 0x14;
    const BREAK: u8 = 0xF0;
    let plain = us_layout::keystroke(character);
    if plain.is_some() || !character.is_ascii_control() {
        return plain;
    }
    let letter = char::from(character as u8 | 0x60);
    let key = us_layout::keystroke(letter)?;
    Some([&[CTRL], &key[..], &[BREAK, CTRL]].concat())
}

/// What a machine shows and hears.
pub(crate) struct Screen {
    display: Option<Arc<Mutex<VgaDevice>>>,
    keyboard: Arc<Mutex<I8042Device>>,
    pictures: AtomicU32,
}

impl Screen {
    pub(crate) fn new(
        display: Option<Arc<Mutex<VgaDevice>>>,
        keyboard: Arc<Mutex<I8042Device>>,
    ) -> Screen {
        Screen { display, keyboard, pictures: AtomicU32::new(0) }
    }

    /// The lines of a text screen.
    pub(crate) fn text(&self) -> String {
        let Some(display) = &self.display else { return String::new() };
        let display = display.lock().unwrap_or_else(PoisonError::into_inner);
        display.vga().text().map_or(String::new(), |text| text.lines.join("\n"))
    }

    /// Presses and releases a key. Says whether the keyboard had room for it.
    pub(crate) fn press(&self, character: char) -> bool {
        let codes = scan_codes(character)
            .unwrap_or_else(|| panic!("no key of a US keyboard types {character:?}"));
        let taken =
            self.keyboard.lock().unwrap_or_else(PoisonError::into_inner).key_scancodes(&codes);
        std::thread::sleep(KEY_PACE);
        taken
    }

    /// Writes the picture as PNG where the environment asks for it.
    pub(crate) fn keep_picture(&self) {
        let (Some(folder), Some(display)) = (std::env::var_os(PICTURES), &self.display) else {
            return;
        };
        let frame = display.lock().unwrap_or_else(PoisonError::into_inner).vga().frame();
        let number = self.pictures.fetch_add(1, Ordering::Relaxed);
        // The test runner names a test's thread after the test.
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("main").replace("::", "-");
        let path = PathBuf::from(folder).join(format!("{name}-{number}.png"));
        let file = std::fs::File::create(&path).expect("the folder for pictures can be written");
        frame.write_png(std::io::BufWriter::new(file)).expect("the picture is written");
    }
}
