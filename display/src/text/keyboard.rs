//! The terminal's keys. Terminals tell of characters and of some keys, with modifiers, but not of
//! keys going up: each press is a whole keystroke.

use crate::keys::Key;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use devices::legacy::i8042::us_layout::{self, SpecialKey};

/// What the user asks of Ringshift, after Ctrl-A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the machine.
    Quit,
    /// Show the keys.
    Help,
    /// Draw everything again.
    Redraw,
    /// Press the machine's power button.
    PowerButton,
}

/// What a key press is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Press {
    /// Bytes of scan code set 2 for the guest.
    Keys(Vec<u8>),
    /// Something for Ringshift.
    Action(Action),
}

/// Tells the guest's keys from Ringshift's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keyboard {
    prefixed: bool,
}

impl Keyboard {
    /// Takes a key of the terminal. `None` where it means nothing, or more must follow.
    pub fn press(&mut self, event: &KeyEvent) -> Option<Press> {
        if event.kind == KeyEventKind::Release {
            return None;
        }
        let is_prefix =
            event.code == KeyCode::Char('a') && event.modifiers == KeyModifiers::CONTROL;
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = is_prefix;
            return if is_prefix { None } else { keystroke(event).map(Press::Keys) };
        }
        match event.code {
            _ if is_prefix => keystroke(event).map(Press::Keys),
            KeyCode::Char('x' | 'X') => Some(Press::Action(Action::Quit)),
            KeyCode::Char('h' | 'H' | '?') => Some(Press::Action(Action::Help)),
            KeyCode::Char('r' | 'R') => Some(Press::Action(Action::Redraw)),
            KeyCode::Char('p' | 'P') => Some(Press::Action(Action::PowerButton)),
            KeyCode::Char('c' | 'C') => {
                Some(Press::Keys(chord(&[Key::CTRL, Key::ALT], &tap(Key::DELETE))))
            }
            _ => None,
        }
    }
}

fn tap(key: Key) -> Vec<u8> {
    [key.scancodes(true), key.scancodes(false)].concat()
}

/// `keystroke` with modifiers held down.
fn chord(modifiers: &[Key], keystroke: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = modifiers.iter().flat_map(|key| key.scancodes(true)).collect();
    bytes.extend_from_slice(keystroke);
    bytes.extend(modifiers.iter().rev().flat_map(|key| key.scancodes(false)));
    bytes
}

/// The scan codes of a whole keystroke; `None` for what a PC keyboard has no key for.
fn keystroke(event: &KeyEvent) -> Option<Vec<u8>> {
    let special = |key| Some(us_layout::special(key)).filter(|bytes| !bytes.is_empty());
    let is_character = matches!(event.code, KeyCode::Char(_));
    let bytes = match event.code {
        KeyCode::Char(character) => us_layout::keystroke(character),
        KeyCode::Enter => us_layout::keystroke('\n'),
        KeyCode::Tab | KeyCode::BackTab => us_layout::keystroke('\t'),
        KeyCode::Backspace => us_layout::keystroke('\u{8}'),
        KeyCode::Esc => us_layout::keystroke('\u{1b}'),
        KeyCode::Up => special(SpecialKey::Up),
        KeyCode::Down => special(SpecialKey::Down),
        KeyCode::Left => special(SpecialKey::Left),
        KeyCode::Right => special(SpecialKey::Right),
        KeyCode::PageUp => special(SpecialKey::PageUp),
        KeyCode::PageDown => special(SpecialKey::PageDown),
        KeyCode::Home => special(SpecialKey::Home),
        KeyCode::End => special(SpecialKey::End),
        KeyCode::Delete => special(SpecialKey::Delete),
        KeyCode::Insert => Some(tap(Key::extended(0x70))),
        KeyCode::F(number) => special(SpecialKey::Function(number)),
        _ => None,
    }?;
    let mut modifiers = Vec::new();
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        modifiers.push(Key::CTRL);
    }
    if event.modifiers.contains(KeyModifiers::ALT) {
        modifiers.push(Key::ALT);
    }
    // A character brings its own.
    let shifted = event.modifiers.contains(KeyModifiers::SHIFT) && !is_character;
    if shifted || event.code == KeyCode::BackTab {
        modifiers.push(Key::SHIFT);
    }
    Some(chord(&modifiers, &bytes))
}
