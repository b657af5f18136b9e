//! Ctrl-A, the key that talks to Ringshift instead of the guest.

/// Ctrl-A.
const PREFIX: u8 = 0x01;

/// What the user asks of Ringshift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// End the machine.
    Quit,
    /// Show the keys.
    Help,
    /// Show what was used so far.
    Stats,
    /// Press the machine's power button.
    PowerButton,
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A byte for the guest.
    Byte(u8),
    /// A break for the guest.
    Break,
    /// Something for Ringshift.
    Action(Action),
}

/// Tells the user's words to Ringshift from those to the guest.
#[derive(Debug, Default)]
pub(crate) struct Escape {
    prefixed: bool,
}

impl Escape {
    /// Takes a byte from the terminal. `None` where more must follow, or where the key after
    /// Ctrl-A has no meaning.
    pub(crate) fn key(&mut self, byte: u8) -> Option<Key> {
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = byte == PREFIX;
            return (!self.prefixed).then_some(Key::Byte(byte));
        }
        match byte {
            PREFIX => Some(Key::Byte(PREFIX)),
            b'x' | b'X' => Some(Key::Action(Action::Quit)),
            b'h' | b'H' | b'?' => Some(Key::Action(Action::Help)),
            b's' | b'S' => Some(Key::Action(Action::Stats)),
            b'p' | b'P' => Some(Key::Action(Action::PowerButton)),
            b'b' | b'B' => Some(Key::Break),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(input: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        input.iter().filter_map(|&byte| escape.key(byte)).collect()
    }

    #[test]
    fn ordinary_bytes_pass() {
        assert_eq!(keys(b"a\x03\xff"), [Key::Byte(b'a'), Key::Byte(3), Key::Byte(0xff)]);
    }

    #[test]
    fn prefix_selects_an_action() {
        assert_eq!(keys(b"\x01x"), [Key::Action(Action::Quit)]);
        assert_eq!(
            keys(b"x\x01Sx"),
            [Key::Byte(b'x'), Key::Action(Action::Stats), Key::Byte(b'x')]
        );
        assert_eq!(keys(b"\x01p"), [Key::Action(Action::PowerButton)]);
        assert_eq!(keys(b"\x01b\x01h"), [Key::Break, Key::Action(Action::Help)]);
    }

    #[test]
    fn doubled_prefix_is_one_for_the_guest() {
        assert_eq!(keys(b"\x01\x01x"), [Key::Byte(1), Key::Byte(b'x')]);
        assert_eq!(keys(b"\x01\x01\x01x"), [Key::Byte(1), Key::Action(Action::Quit)]);
    }

    #[test]
    fn unknown_keys_are_swallowed_with_the_prefix() {
        assert_eq!(keys(b"\x01qx"), [Key::Byte(b'x')]);
    }
}
