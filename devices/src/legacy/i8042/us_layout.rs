//! A US keyboard: the keys that type a character, in scan code set 2.

const SHIFT: u8 = 0x12;
const BREAK: u8 = 0xf0;
const EXTENDED: u8 = 0xe0;

/// Keys that need no shift, and what they give with it.
const KEYS: &[(u8, char, char)] = &[
    (0x0e, '`', '~'),
    (0x16, '1', '!'),
    (0x1e, '2', '@'),
    (0x26, '3', '#'),
    (0x25, '4', '$'),
    (0x2e, '5', '%'),
    (0x36, '6', '^'),
    (0x3d, '7', '&'),
    (0x3e, '8', '*'),
    (0x46, '9', '('),
    (0x45, '0', ')'),
    (0x4e, '-', '_'),
    (0x55, '=', '+'),
    (0x54, '[', '{'),
    (0x5b, ']', '}'),
    (0x5d, '\\', '|'),
    (0x4c, ';', ':'),
    (0x52, '\'', '"'),
    (0x41, ',', '<'),
    (0x49, '.', '>'),
    (0x4a, '/', '?'),
    (0x1c, 'a', 'A'),
    (0x32, 'b', 'B'),
    (0x21, 'c', 'C'),
    (0x23, 'd', 'D'),
    (0x24, 'e', 'E'),
    (0x2b, 'f', 'F'),
    (0x34, 'g', 'G'),
    (0x33, 'h', 'H'),
    (0x43, 'i', 'I'),
    (0x3b, 'j', 'J'),
    (0x42, 'k', 'K'),
    (0x4b, 'l', 'L'),
    (0x3a, 'm', 'M'),
    (0x31, 'n', 'N'),
    (0x44, 'o', 'O'),
    (0x4d, 'p', 'P'),
    (0x15, 'q', 'Q'),
    (0x2d, 'r', 'R'),
    (0x1b, 's', 'S'),
    (0x2c, 't', 'T'),
    (0x3c, 'u', 'U'),
    (0x2a, 'v', 'V'),
    (0x1d, 'w', 'W'),
    (0x22, 'x', 'X'),
    (0x35, 'y', 'Y'),
    (0x1a, 'z', 'Z'),
    (0x29, ' ', ' '),
    (0x5a, '\n', '\n'),
    (0x5a, '\r', '\r'),
    (0x0d, '\t', '\t'),
    (0x66, '\u{8}', '\u{8}'),
    (0x66, '\u{7f}', '\u{7f}'),
    (0x76, '\u{1b}', '\u{1b}'),
];

/// A key that types no character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialKey {
    /// Cursor up.
    Up,
    /// Cursor down.
    Down,
    /// Cursor left.
    Left,
    /// Cursor right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Delete.
    Delete,
    /// F1 to F12.
    Function(u8),
}

/// The scan codes of pressing and releasing the keys that type `character`; `None` if there are
/// none on the keyboard.
pub fn keystroke(character: char) -> Option<Vec<u8>> {
    let (code, plain, _) =
        KEYS.iter().find(|(_, plain, shifted)| character == *plain || character == *shifted)?;
    let key = [*code, BREAK, *code];
    Some(if character == *plain {
        key.to_vec()
    } else {
        [&[SHIFT], &key[..], &[BREAK, SHIFT]].concat()
    })
}

/// The scan codes of pressing and releasing a key; empty for a function key that is not there.
pub fn special(key: SpecialKey) -> Vec<u8> {
    const FUNCTIONS: [u8; 12] =
        [0x05, 0x06, 0x04, 0x0c, 0x03, 0x0b, 0x83, 0x0a, 0x01, 0x09, 0x78, 0x07];
    let code = match key {
        SpecialKey::Up => 0x75,
        SpecialKey::Down => 0x72,
        SpecialKey::Left => 0x6b,
        SpecialKey::Right => 0x74,
        SpecialKey::PageUp => 0x7d,
        SpecialKey::PageDown => 0x7a,
        SpecialKey::Home => 0x6c,
        SpecialKey::End => 0x69,
        SpecialKey::Delete => 0x71,
        SpecialKey::Function(number) => {
            let index = usize::from(number).checked_sub(1);
            return match index.and_then(|index| FUNCTIONS.get(index)) {
                Some(&code) => vec![code, BREAK, code],
                None => Vec::new(),
            };
        }
    };
    vec![EXTENDED, code, EXTENDED, BREAK, code]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_keys() {
        for character in ' '..='~' {
            let codes = keystroke(character).unwrap();
            assert_eq!(codes.len() > 3, codes[0] == SHIFT, "{character}");
        }
        assert_eq!(keystroke('é'), None);
        assert_eq!(keystroke('A').unwrap(), [0x12, 0x1c, 0xf0, 0x1c, 0xf0, 0x12]);
    }

    #[test]
    fn special_keys() {
        assert_eq!(special(SpecialKey::Down), [0xe0, 0x72, 0xe0, 0xf0, 0x72]);
        assert_eq!(special(SpecialKey::Function(10)), [0x09, 0xf0, 0x09]);
        assert!(special(SpecialKey::Function(0)).is_empty());
    }
}
