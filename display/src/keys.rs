//! Keys as the two protocols of VNC name them, to scan code set 2; and the power key.
//!
//! Sources: X.Org, keysymdef.h and XF86keysym.h, for keysyms; "The RFB Protocol" (rfbproto), "QEMU Extended Key
//! Event Message", for XT codes; Microsoft, "Keyboard Scan Code Specification" (2000), for the
//! pairs of set 1 and set 2.

use devices::legacy::i8042::us_layout;

const BREAK: u8 = 0xf0;
const EXTENDED: u8 = 0xe0;

/// Scan code set 2 by scan code set 1, from 0x00 to 0x58; 0 where there is no key.
const SET_2: [u8; 0x59] = [
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x84, 0x00, 0x61, 0x78, 0x07,
];

/// Whether a client's key is the power key, by its keysym (XF86PowerOff) or its XT scan code (E0 5E;
/// 0 where it is not known). It stands for the machine's power button: the guest's keyboard has no
/// such key, so that one press is one event.
pub fn is_power(keysym: u32, xt: u32) -> bool {
    keysym == 0x1008_ff2a || xt == 0xde
}

/// A key: its code in set 2, and whether the prefix E0 belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    code: u8,
    extended: bool,
}

impl Key {
    /// Ctrl, the left one.
    pub const CTRL: Key = Key::plain(0x14);
    /// Alt, the left one.
    pub const ALT: Key = Key::plain(0x11);
    /// Shift, the left one.
    pub const SHIFT: Key = Key::plain(0x12);
    /// Delete.
    pub const DELETE: Key = Key::extended(0x71);

    /// A key without prefix.
    pub const fn plain(code: u8) -> Key {
        Key { code, extended: false }
    }

    /// A key with prefix.
    pub const fn extended(code: u8) -> Key {
        Key { code, extended: true }
    }

    /// The bytes that the keyboard sends when the key goes down or up.
    pub fn scancodes(self, down: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3);
        if self.extended {
            bytes.push(EXTENDED);
        }
        if !down {
            bytes.push(BREAK);
        }
        bytes.push(self.code);
        bytes
    }

    /// The key of an XT scan code as QEMU's extended key events have it: set 1, bit 7 standing for
    /// the prefix E0.
    pub fn from_xt(code: u32) -> Option<Key> {
        match code {
            // Pause has a sequence of its own; Print Screen is like any other with a prefix.
            0xc6 => None,
            0xb7 => Some(Key::extended(0x7c)),
            _ => {
                let set_2 = *SET_2.get((code & 0x7f) as usize)?;
                (code <= 0xff && set_2 != 0)
                    .then_some(Key { code: set_2, extended: code & 0x80 != 0 })
            }
        }
    }

    /// The key that gives an X11 keysym on a US keyboard.
    pub fn from_keysym(keysym: u32) -> Option<Key> {
        let plain = |code| Some(Key::plain(code));
        let extended = |code| Some(Key::extended(code));
        match keysym {
            0x20..=0x7e => {
                let bytes = us_layout::keystroke(char::from_u32(keysym)?)?;
                // Shift, if the character needs it, is a key event of its own.
                let code = bytes.iter().find(|&&byte| byte != Key::SHIFT.code)?;
                plain(*code)
            }
            0xff08 => plain(0x66),
            0xff09 | 0xfe20 => plain(0x0d),
            0xff0d => plain(0x5a),
            0xff14 => plain(0x7e),
            0xff1b => plain(0x76),
            0xff50 => extended(0x6c),
            0xff51 => extended(0x6b),
            0xff52 => extended(0x75),
            0xff53 => extended(0x74),
            0xff54 => extended(0x72),
            0xff55 => extended(0x7d),
            0xff56 => extended(0x7a),
            0xff57 => extended(0x69),
            0xff61 => extended(0x7c),
            0xff63 => extended(0x70),
            0xff67 => extended(0x2f),
            0xff7f => plain(0x77),
            0xff8d => extended(0x5a),
            0xffaa => plain(0x7c),
            0xffab => plain(0x79),
            0xffad => plain(0x7b),
            0xffae | 0xff9f => plain(0x71),
            0xffaf => extended(0x4a),
            0xffb0 | 0xff9e => plain(0x70),
            0xffb1 | 0xff9c => plain(0x69),
            0xffb2 | 0xff99 => plain(0x72),
            0xffb3 | 0xff9b => plain(0x7a),
            0xffb4 | 0xff96 => plain(0x6b),
            0xffb5 | 0xff9d => plain(0x73),
            0xffb6 | 0xff98 => plain(0x74),
            0xffb7 | 0xff95 => plain(0x6c),
            0xffb8 | 0xff97 => plain(0x75),
            0xffb9 | 0xff9a => plain(0x7d),
            0xffbe..=0xffc9 => {
                let number = (keysym - 0xffbd) as u8;
                plain(*us_layout::special(us_layout::SpecialKey::Function(number)).first()?)
            }
            0xffe1 => plain(0x12),
            0xffe2 => plain(0x59),
            0xffe3 => plain(0x14),
            0xffe4 => extended(0x14),
            0xffe5 => plain(0x58),
            0xffe7 | 0xffe9 => plain(0x11),
            0xffe8 | 0xffea | 0xfe03 => extended(0x11),
            0xffeb => extended(0x1f),
            0xffec => extended(0x27),
            0xffff => extended(0x71),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keysyms_and_xt_codes_agree() {
        for (keysym, xt) in [
            (u32::from('a'), 0x1e),
            (u32::from('A'), 0x1e),
            (u32::from('!'), 0x02),
            (0xff0d, 0x1c),
            (0xff1b, 0x01),
            (0xff52, 0xc8),
            (0xff54, 0xd0),
            (0xffff, 0xd3),
            (0xffbe, 0x3b),
            (0xffc7, 0x44),
            (0xffc8, 0x57),
            (0xffc9, 0x58),
            (0xffe4, 0x9d),
            (0xff8d, 0x9c),
            (0xff61, 0xb7),
            (0xff7f, 0x45),
            (0xffb8, 0x48),
        ] {
            let key = Key::from_keysym(keysym);
            assert!(key.is_some() && key == Key::from_xt(xt), "{keysym:#x} {xt:#x} {key:?}");
        }
    }

    #[test]
    fn every_printable_keysym_is_a_key() {
        for keysym in 0x20..=0x7e {
            assert!(Key::from_keysym(keysym).is_some(), "{keysym:#x}");
        }
        assert_eq!(Key::from_keysym(0x20ac), None);
        assert_eq!(Key::from_xt(0x1_001e), None);
        assert_eq!(Key::from_xt(0x7f), None);
    }

    #[test]
    fn scancodes_have_prefix_and_break() {
        assert_eq!(Key::DELETE.scancodes(false), [0xe0, 0xf0, 0x71]);
        assert_eq!(Key::CTRL.scancodes(true), [0x14]);
    }
}
