//! One client.
//!
//! The thread that serves a client reads its messages; a second one sends pictures. The second
//! sleeps until the client has asked for a picture and the screen has changed.

use super::encode::{self, Rectangle, Zrle};
use super::message::{self, Message, MessageError, encoding};
use super::pixel::PixelFormat;
use crate::Source;
use crate::keys::{self, Key};
use devices::legacy::i8042::MouseEvent;
use devices::vga::{Blink, Frame};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const VERSION: &[u8; 12] = b"RFB 003.008\n";
const SECURITY_NONE: u8 = 1;
const NAME: &[u8] = b"Ringshift";
/// How long a client may take for the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may not take what is sent.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// Between two pictures.
const FRAME_TIME: Duration = Duration::from_millis(33);
/// How often the sender looks around where nothing happens.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// In relative pointer events, no movement.
const CENTER: i32 = 0x7fff;

/// What the two threads share.
struct State {
    format: PixelFormat,
    zrle: bool,
    desktop_size: bool,
    relative_pointer: bool,
    extended_keys: bool,
    /// Pseudo-rectangles that the client is to get once: their encodings, and x.
    announce: Vec<(i32, u16)>,
    request: Option<Rectangle>,
    /// The request is for all of its area.
    full: bool,
    leaving: bool,
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A picture where there is no adapter, or it has none.
fn picture(source: &Source, blink: Blink) -> Frame {
    let frame = source.look(|vga| vga.frame_at(blink));
    frame.unwrap_or_else(|| Frame { width: 640, height: 400, rgb: vec![0; 640 * 400 * 3] })
}

/// Serves one client to its end.
///
/// # Errors
/// Why the connection ended.
pub(super) fn serve(mut stream: TcpStream, source: &Source) -> Result<(), MessageError> {
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    stream.set_write_timeout(Some(SEND_LIMIT))?;
    stream.set_nodelay(true)?;
    let frame = picture(source, Blink::SHOWN);
    handshake(&mut stream, &frame)?;
    stream.set_read_timeout(None)?;
    let state = Arc::new(Mutex::new(State {
        format: PixelFormat::SERVER,
        zrle: false,
        desktop_size: false,
        relative_pointer: false,
        extended_keys: false,
        announce: Vec::new(),
        request: None,
        full: true,
        leaving: false,
    }));
    let output = stream.try_clone()?;
    let (sender, pictures) = (state.clone(), source.clone());
    let size = (frame.width, frame.height);
    let thread = std::thread::Builder::new().name("vnc sender".into()).spawn(move || {
        if let Err(error) = send(&output, &sender, &pictures, size) {
            tracing::debug!(%error, "sending to a VNC client");
        }
        // Ends the reader too.
        let _ = output.shutdown(Shutdown::Both);
    })?;
    let mut listener =
        Listener { state: &state, source, pointer: None, held: Vec::new(), power: false };
    let result = listener.listen(BufReader::new(&stream));
    listener.release_all();
    lock(&state).leaving = true;
    source.changes().wake();
    let _ = stream.shutdown(Shutdown::Both);
    let _ = thread.join();
    result
}

/// RFC 6143, section 7.1 to 7.3: version, security, initialisation.
fn handshake(stream: &mut (impl Read + Write), frame: &Frame) -> io::Result<()> {
    let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    stream.write_all(VERSION)?;
    let mut version = [0; 12];
    stream.read_exact(&mut version)?;
    if !version.starts_with(b"RFB 003.") {
        return Err(invalid("the client does not speak RFB 3"));
    }
    let old = matches!(&version[8..11], b"003");
    if old {
        stream.write_all(&u32::from(SECURITY_NONE).to_be_bytes())?;
    } else {
        stream.write_all(&[1, SECURITY_NONE])?;
        let mut chosen = [0];
        stream.read_exact(&mut chosen)?;
        if chosen[0] != SECURITY_NONE {
            return Err(invalid("the client wants another kind of security than none"));
        }
        // Version 3.7 has no word of success.
        if &version[8..11] != b"007" {
            stream.write_all(&0u32.to_be_bytes())?;
        }
    }
    let mut shared = [0];
    stream.read_exact(&mut shared)?;
    let mut answer = Vec::new();
    answer.extend((frame.width as u16).to_be_bytes());
    answer.extend((frame.height as u16).to_be_bytes());
    answer.extend(PixelFormat::SERVER.bytes());
    answer.extend((NAME.len() as u32).to_be_bytes());
    answer.extend(NAME);
    stream.write_all(&answer)
}

/// The reader's half.
struct Listener<'a> {
    state: &'a Shared,
    source: &'a Source,
    /// Where the pointer was, and its buttons.
    pointer: Option<(u16, u16)>,
    /// Keys that are down, to be let go when the client leaves.
    held: Vec<Key>,
    /// The power key is down.
    power: bool,
}

impl Listener<'_> {
    fn listen(&mut self, mut input: impl Read) -> Result<(), MessageError> {
        loop {
            match message::read(&mut input)? {
                Message::SetPixelFormat(format) => {
                    let mut state = lock(self.state);
                    state.format = format;
                }
                Message::SetEncodings(encodings) => self.set_encodings(&encodings),
                Message::UpdateRequest { incremental, area } => {
                    let mut state = lock(self.state);
                    state.full |= !incremental;
                    state.request = Some(area);
                    drop(state);
                    self.source.changes().wake();
                }
                Message::Key { down, keysym } => self.key(keysym, 0, down),
                Message::ExtendedKey { down, keysym, keycode } => self.key(keysym, keycode, down),
                Message::Pointer { buttons, x, y } => self.pointer(buttons, x, y),
                Message::CutText => {}
            }
        }
    }

    fn set_encodings(&self, encodings: &[i32]) {
        let mut state = lock(self.state);
        let knows = |encoding| encodings.contains(&encoding);
        state.zrle = knows(encoding::ZRLE);
        state.desktop_size = knows(encoding::DESKTOP_SIZE);
        if knows(encoding::EXTENDED_KEY_EVENT) && !state.extended_keys {
            state.extended_keys = true;
            state.announce.push((encoding::EXTENDED_KEY_EVENT, 0));
        }
        // The mouse is a relative one.
        if knows(encoding::POINTER_MOTION_CHANGE) && !state.relative_pointer {
            state.relative_pointer = true;
            state.announce.push((encoding::POINTER_MOTION_CHANGE, 0));
        }
        drop(state);
        self.source.changes().wake();
    }

    fn key(&mut self, keysym: u32, xt: u32, down: bool) {
        if keys::is_power(keysym, xt) {
            // Clients repeat a key that is held down.
            if down && !self.power {
                self.source.press_power_button();
            }
            self.power = down;
            return;
        }
        let Some(key) = Key::from_xt(xt).or_else(|| Key::from_keysym(keysym)) else { return };
        self.held.retain(|held| *held != key);
        if down {
            self.held.push(key);
        }
        self.source.keys(&key.scancodes(down));
    }

    fn release_all(&mut self) {
        for key in std::mem::take(&mut self.held) {
            self.source.keys(&key.scancodes(false));
        }
    }

    fn pointer(&mut self, buttons: u8, x: u16, y: u16) {
        let relative = lock(self.state).relative_pointer;
        let (dx, dy) = if relative {
            (i32::from(x) - CENTER, i32::from(y) - CENTER)
        } else {
            let (old_x, old_y) = self.pointer.unwrap_or((x, y));
            (i32::from(x) - i32::from(old_x), i32::from(y) - i32::from(old_y))
        };
        self.pointer = Some((x, y));
        let clamp = |value: i32| value.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        // RFB has the middle button second, PS/2 has it last.
        let event = MouseEvent {
            dx: clamp(dx),
            dy: clamp(-dy),
            wheel: i8::from(buttons & 16 != 0) - i8::from(buttons & 8 != 0),
            buttons: buttons & 1 | buttons >> 1 & 2 | (buttons & 2) << 1,
        };
        self.source.mouse(event);
    }
}

/// What the sender does next.
struct Task {
    area: Rectangle,
    full: bool,
    format: PixelFormat,
    zrle: bool,
    desktop_size: bool,
    announce: Vec<(i32, u16)>,
}

fn send(
    mut output: &TcpStream,
    state: &Shared,
    source: &Source,
    mut size: (usize, usize),
) -> io::Result<()> {
    let changes = source.changes();
    let mut zrle = Zrle::new();
    let mut last: Option<Frame> = None;
    let mut seen = None;
    let begin = Instant::now();
    // Where something blinks, and how it was sent last.
    let mut blinks = None;
    loop {
        let ready = || {
            let turned = blinks.is_some_and(|sent| sent != Blink::at(begin.elapsed()));
            let state = lock(state);
            let news =
                state.full || !state.announce.is_empty() || turned || seen != Some(changes.count());
            state.leaving || state.request.is_some() && news
        };
        let patience = || match blinks {
            Some(_) => Blink::lasts(begin.elapsed()),
            None => IDLE_CHECK,
        };
        while !changes.wait_until(patience(), ready) {}
        let started = Instant::now();
        let task = {
            let mut state = lock(state);
            if state.leaving {
                return Ok(());
            }
            let Some(area) = state.request.take() else { continue };
            Task {
                area,
                full: std::mem::take(&mut state.full),
                format: state.format,
                zrle: state.zrle,
                desktop_size: state.desktop_size,
                announce: std::mem::take(&mut state.announce),
            }
        };
        // Before looking: what is written meanwhile counts as news.
        seen = Some(changes.count());
        let blink = Blink::at(begin.elapsed());
        blinks = source.look(|vga| vga.blinks()).unwrap_or(false).then_some(blink);
        let frame = picture(source, blink);
        if size != (frame.width, frame.height) && task.desktop_size {
            size = (frame.width, frame.height);
            // A message of its own; the client asks again then, and gets everything.
            let mut message = Update::new(&task.announce);
            let area = Rectangle { x: 0, y: 0, width: frame.width, height: frame.height };
            message.header(area, encoding::DESKTOP_SIZE);
            output.write_all(&message.finish())?;
            (last, seen) = (None, None);
            continue;
        }
        let message = update(&frame, last.as_ref(), &task, &mut zrle, size);
        remember(&mut last, frame, task.area);
        match message {
            Some(message) => output.write_all(&message)?,
            None => {
                // Nothing that shows has changed: the request stands, but for a newer one.
                let mut state = lock(state);
                state.request.get_or_insert(task.area);
            }
        }
        std::thread::sleep(FRAME_TIME.saturating_sub(started.elapsed()));
    }
}

/// Notes that the client has seen `area` of `frame`.
fn remember(last: &mut Option<Frame>, frame: Frame, area: Rectangle) {
    let same = |old: &&mut Frame| (old.width, old.height) == (frame.width, frame.height);
    match (last.as_mut().filter(same), area.clip(frame.width, frame.height)) {
        (Some(old), Some(area)) if (area.width, area.height) != (frame.width, frame.height) => {
            for y in area.y..area.y + area.height {
                let start = (y * frame.width + area.x) * 3;
                let range = start..start + area.width * 3;
                if let (Some(to), Some(from)) =
                    (old.rgb.get_mut(range.clone()), frame.rgb.get(range))
                {
                    to.copy_from_slice(from);
                }
            }
        }
        (Some(_), None) => {}
        (Some(_) | None, _) => *last = Some(frame),
    }
}

/// A FramebufferUpdate.
struct Update {
    bytes: Vec<u8>,
    count: u16,
}

impl Update {
    /// With these pseudo-rectangles.
    fn new(announce: &[(i32, u16)]) -> Update {
        let mut update = Update { bytes: vec![0; 4], count: 0 };
        for &(encoding, x) in announce {
            update.header(Rectangle { x: x.into(), y: 0, width: 0, height: 0 }, encoding);
        }
        update
    }

    fn header(&mut self, area: Rectangle, encoding: i32) {
        for side in [area.x, area.y, area.width, area.height] {
            self.bytes.extend((side as u16).to_be_bytes());
        }
        self.bytes.extend(encoding.to_be_bytes());
        self.count = self.count.saturating_add(1);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[2..4].copy_from_slice(&self.count.to_be_bytes());
        self.bytes
    }
}

/// The message with everything that the client is to see; `None` if there is nothing. `size` is
/// what the client believes the screen's size to be.
fn update(
    frame: &Frame,
    last: Option<&Frame>,
    task: &Task,
    zrle: &mut Zrle,
    size: (usize, usize),
) -> Option<Vec<u8>> {
    let mut update = Update::new(&task.announce);
    // A client that bears no other size sees what fits its own.
    let area = task.area.clip(frame.width.min(size.0), frame.height.min(size.1));
    let same = |old: &&Frame| (old.width, old.height) == (frame.width, frame.height);
    let old = last.filter(same).filter(|_| !task.full);
    let parts = match (area, old) {
        (Some(area), Some(old)) => encode::differences(old, frame, area),
        (Some(area), None) => vec![area],
        (None, _) => Vec::new(),
    };
    for part in parts {
        if task.zrle {
            update.header(part, encoding::ZRLE);
            zrle.encode(frame, part, &task.format, &mut update.bytes);
        } else {
            update.header(part, encoding::RAW);
            encode::raw(frame, part, &task.format, &mut update.bytes);
        }
    }
    (update.count != 0 || task.full).then(|| update.finish())
}
