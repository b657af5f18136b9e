//! What clients say after the handshake.

use super::encode::Rectangle;
use super::pixel::PixelFormat;
use std::io::{self, Read};
use thiserror::Error;

/// Most encodings that a client may list.
const MAX_ENCODINGS: u16 = 1024;
/// Longest text that a client may cut; it is dropped.
const MAX_CUT_TEXT: u32 = 1 << 20;

/// Encodings and pseudo-encodings that the server knows.
pub(super) mod encoding {
    /// Pixels as they are.
    pub(in crate::rfb) const RAW: i32 = 0;
    /// Zlib run-length encoding.
    pub(in crate::rfb) const ZRLE: i32 = 16;
    /// The client bears changes of the screen's size.
    pub(in crate::rfb) const DESKTOP_SIZE: i32 = -223;
    /// The client bears a change from absolute to relative pointer events.
    pub(in crate::rfb) const POINTER_MOTION_CHANGE: i32 = -257;
    /// The client sends keys by their scan codes.
    pub(in crate::rfb) const EXTENDED_KEY_EVENT: i32 = -258;
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Pixels are wanted in this format from now on.
    SetPixelFormat(PixelFormat),
    /// These encodings are understood, the best first.
    SetEncodings(Vec<i32>),
    /// A picture is wanted: of what has changed, or of all.
    UpdateRequest {
        /// Only of what has changed.
        incremental: bool,
        /// Of this part.
        area: Rectangle,
    },
    /// A key goes down or up, by its X11 keysym.
    Key {
        /// Down.
        down: bool,
        /// Keysym.
        keysym: u32,
    },
    /// The same, with an XT scan code.
    ExtendedKey {
        /// Down.
        down: bool,
        /// Keysym.
        keysym: u32,
        /// Scan code, 0 where the client does not know it.
        keycode: u32,
    },
    /// The pointer's buttons, and its place or its movement.
    Pointer {
        /// Bit 0 left, 1 middle, 2 right, 3 wheel up, 4 wheel down.
        buttons: u8,
        /// From the left, or relative with 0x7FFF meaning no movement.
        x: u16,
        /// From the top.
        y: u16,
    },
    /// Text was cut; the guest has no place for it.
    CutText,
}

/// Why a client is no longer listened to.
#[derive(Debug, Error)]
pub(super) enum MessageError {
    /// The connection ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A message that the protocol does not have.
    #[error("message type {0} is unknown")]
    Unknown(u8),
    /// A message of QEMU's that was not offered.
    #[error("QEMU message type {0} is unknown")]
    UnknownQemu(u8),
    /// A pixel format that cannot be.
    #[error("pixel format {0:02x?} cannot be served")]
    PixelFormat([u8; 16]),
    /// A list of encodings that is too long.
    #[error("{0} encodings are more than the {MAX_ENCODINGS} that are read")]
    Encodings(u16),
    /// A text that is too long.
    #[error("{0} bytes of cut text are more than the {MAX_CUT_TEXT} that are read")]
    CutText(u32),
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16_of(input: &mut impl Read) -> io::Result<u16> {
    take(input).map(u16::from_be_bytes)
}

fn u32_of(input: &mut impl Read) -> io::Result<u32> {
    take(input).map(u32::from_be_bytes)
}

/// Reads a message. It takes no more memory than a bounded list of encodings, whatever the client
/// announces.
///
/// # Errors
/// [`MessageError`]; the connection cannot be used any more.
pub(super) fn read(input: &mut impl Read) -> Result<Message, MessageError> {
    let [kind] = take(input)?;
    match kind {
        0 => {
            let [_, _, _] = take(input)?;
            let bytes = take(input)?;
            let format = PixelFormat::parse(&bytes).ok_or(MessageError::PixelFormat(bytes))?;
            Ok(Message::SetPixelFormat(format))
        }
        2 => {
            let [_] = take(input)?;
            let count = u16_of(input)?;
            if count > MAX_ENCODINGS {
                return Err(MessageError::Encodings(count));
            }
            let encodings: io::Result<_> =
                (0..count).map(|_| take(input).map(i32::from_be_bytes)).collect();
            Ok(Message::SetEncodings(encodings?))
        }
        3 => {
            let [incremental] = take(input)?;
            let mut side = || u16_of(input).map(usize::from);
            let area = Rectangle { x: side()?, y: side()?, width: side()?, height: side()? };
            Ok(Message::UpdateRequest { incremental: incremental != 0, area })
        }
        4 => {
            let [down, _, _] = take(input)?;
            Ok(Message::Key { down: down != 0, keysym: u32_of(input)? })
        }
        5 => {
            let [buttons] = take(input)?;
            Ok(Message::Pointer { buttons, x: u16_of(input)?, y: u16_of(input)? })
        }
        6 => {
            let [_, _, _] = take(input)?;
            let length = u32_of(input)?;
            if length > MAX_CUT_TEXT {
                return Err(MessageError::CutText(length));
            }
            io::copy(&mut input.take(length.into()), &mut io::sink())?;
            Ok(Message::CutText)
        }
        255 => match take(input)? {
            [0] => {
                let down = u16_of(input)? != 0;
                Ok(Message::ExtendedKey { down, keysym: u32_of(input)?, keycode: u32_of(input)? })
            }
            [other] => Err(MessageError::UnknownQemu(other)),
        },
        other => Err(MessageError::Unknown(other)),
    }
}
