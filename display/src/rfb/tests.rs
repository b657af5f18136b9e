//! A scripted client.

use super::*;
use devices::legacy::i8042::{self, I8042Device};
use devices::vga::{VgaDevice, VgaWindow};
use devices::{BusDevice, ManualClock, interrupt::UnconnectedIrq};
use flate2::{Decompress, FlushDecompress};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

struct Bench {
    vga: Arc<Mutex<VgaDevice>>,
    keyboard: Arc<Mutex<I8042Device>>,
    /// How often the power button was pressed.
    power: Arc<AtomicUsize>,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let vga = Arc::new(Mutex::new(VgaDevice::new(Arc::new(ManualClock::new(0)))));
        let keyboard = Arc::new(Mutex::new(I8042Device::new(i8042::Outputs {
            irq_1: Box::new(UnconnectedIrq),
            irq_12: Box::new(UnconnectedIrq),
            a20: Box::new(|_| {}),
            reset: Box::new(|_| {}),
        })));
        let source = Source::default();
        let power = Arc::<AtomicUsize>::default();
        let presses = power.clone();
        let press = Arc::new(move || {
            presses.fetch_add(1, Ordering::SeqCst);
        });
        source.attach(Some(vga.clone()), keyboard.clone(), press);
        let server = Server::start("127.0.0.1:0".parse().unwrap(), source).unwrap();
        Self { vga, keyboard, power, server }
    }

    /// A linear mode of 32 bits per pixel.
    fn set_mode(&self, width: u16, height: u16) {
        let mut vga = self.vga.lock().unwrap();
        for (index, value) in [(4u16, 0), (1, width), (2, height), (3, 32), (4, 0x41)] {
            vga.write(0x1ce, &index.to_le_bytes());
            vga.write(0x1cf, &value.to_le_bytes());
        }
    }

    /// Writes a pixel of the linear mode through the banked window.
    fn set_pixel(&self, at: u64, bgr: [u8; 4]) {
        {
            let mut vga = self.vga.lock().unwrap();
            vga.write(0x3c2, &[0x63]);
            vga.write(0x3c4, &[4, 0x0e]);
            vga.write(0x3c4, &[2, 0x0f]);
            vga.write(0x3ce, &[6, 0x05]);
            vga.write(0x1ce, &5u16.to_le_bytes());
            vga.write(0x1cf, &((at >> 16) as u16).to_le_bytes());
        }
        VgaWindow::new(self.vga.clone()).write(at & 0xffff, &bgr);
    }

    /// The next byte that the guest reads from the keyboard controller.
    fn guest_byte(&self) -> Option<u8> {
        for _ in 0..2000 {
            let mut keyboard = self.keyboard.lock().unwrap();
            let mut byte = [0];
            keyboard.read(0x64, &mut byte);
            if byte[0] & 1 != 0 {
                keyboard.read(0x60, &mut byte);
                return Some(byte[0]);
            }
            drop(keyboard);
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

struct Client {
    stream: TcpStream,
    width: u16,
    height: u16,
    inflate: Decompress,
}

impl Client {
    fn connect(bench: &Bench, version: &[u8; 12]) -> Self {
        let mut stream = TcpStream::connect(bench.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut hello = [0; 12];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"RFB 003.008\n");
        stream.write_all(version).unwrap();
        let mut client = Self { stream, width: 0, height: 0, inflate: Decompress::new(true) };
        match &version[8..11] {
            b"003" => assert_eq!(client.take(4), [0, 0, 0, 1]),
            other => {
                assert_eq!(client.take(2), [1, 1]);
                client.say(&[1]);
                if other != b"007" {
                    assert_eq!(client.take(4), [0; 4]);
                }
            }
        }
        client.say(&[1]);
        let start = client.take(24);
        client.width = u16::from_be_bytes([start[0], start[1]]);
        client.height = u16::from_be_bytes([start[2], start[3]]);
        assert_eq!(client.take(9), b"Ringshift");
        client
    }

    fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn number(&mut self, count: usize) -> usize {
        self.take(count).iter().fold(0, |value, &byte| value << 8 | usize::from(byte))
    }

    fn encodings(&mut self, list: &[i32]) {
        let mut message = vec![2, 0];
        message.extend((list.len() as u16).to_be_bytes());
        message.extend(list.iter().flat_map(|encoding| encoding.to_be_bytes()));
        self.say(&message);
    }

    fn request(&mut self, incremental: bool) {
        let mut message = vec![3, incremental.into(), 0, 0, 0, 0];
        message.extend(self.width.to_be_bytes());
        message.extend(self.height.to_be_bytes());
        self.say(&message);
    }

    /// An update's rectangles: place, encoding, and pixels as 32-bit values.
    fn update(&mut self) -> Vec<([usize; 4], i32, Vec<u32>)> {
        assert_eq!(self.take(2), [0, 0]);
        let count = self.number(2);
        (0..count)
            .map(|_| {
                let place = [(); 4].map(|()| self.number(2));
                let encoding = self.number(4) as u32 as i32;
                let [_, _, width, height] = place;
                let pixels = match encoding {
                    0 => (0..width * height)
                        .map(|_| u32::from_le_bytes(self.take(4).try_into().unwrap()))
                        .collect(),
                    16 => self.zrle(width, height),
                    _ => Vec::new(),
                };
                (place, encoding, pixels)
            })
            .collect()
    }

    fn zrle(&mut self, width: usize, height: usize) -> Vec<u32> {
        let length = self.number(4);
        let compressed = self.take(length);
        let mut data = Vec::with_capacity(width * height * 4 + 65536);
        let flush = FlushDecompress::Sync;
        self.inflate.decompress_vec(&compressed, &mut data, flush).unwrap();
        let mut data = data.into_iter();
        let mut pixels = vec![0; width * height];
        for y in (0..height).step_by(64) {
            for x in (0..width).step_by(64) {
                let (w, h) = (64.min(width - x), 64.min(height - y));
                for (index, pixel) in tile(&mut data, w, h).into_iter().enumerate() {
                    pixels[(y + index / w) * width + x + index % w] = pixel;
                }
            }
        }
        assert_eq!(data.next(), None);
        pixels
    }
}

fn tile(data: &mut impl Iterator<Item = u8>, width: usize, height: usize) -> Vec<u32> {
    fn pixel(data: &mut impl Iterator<Item = u8>) -> u32 {
        (0..3).fold(0, |value, byte| value | u32::from(data.next().unwrap()) << (8 * byte))
    }
    let kind = data.next().unwrap();
    let count = width * height;
    match kind {
        0 => (0..count).map(|_| pixel(data)).collect(),
        1 => vec![pixel(data); count],
        2..=16 => {
            let palette: Vec<u32> = (0..kind).map(|_| pixel(data)).collect();
            let bits = [1, 2, 4][usize::from(kind > 2) + usize::from(kind > 4)];
            let mut pixels = Vec::new();
            for _ in 0..height {
                let line: Vec<u8> =
                    (0..(width * bits).div_ceil(8)).map(|_| data.next().unwrap()).collect();
                pixels.extend((0..width).map(|x| {
                    let shift = 8 - bits - x * bits % 8;
                    palette[usize::from(line[x * bits / 8] >> shift) & ((1 << bits) - 1)]
                }));
            }
            pixels
        }
        128 => {
            let mut pixels = Vec::new();
            while pixels.len() < count {
                let value = pixel(data);
                let mut run = 1;
                loop {
                    let byte = data.next().unwrap();
                    run += usize::from(byte);
                    if byte != 255 {
                        break;
                    }
                }
                pixels.extend(std::iter::repeat_n(value, run));
            }
            pixels
        }
        other => panic!("tile {other}"),
    }
}

#[test]
fn raw_pixels_and_what_changes() {
    let bench = Bench::new();
    bench.set_mode(640, 480);
    bench.set_pixel(4 * (640 * 100 + 70), [1, 2, 3, 0]);
    let mut client = Client::connect(&bench, b"RFB 003.008\n");
    assert_eq!((client.width, client.height), (640, 480));
    client.request(false);
    let update = client.update();
    let [([0, 0, 640, 480], 0, pixels)] = &update[..] else { panic!("{}", update.len()) };
    assert_eq!(pixels[640 * 100 + 70], 0x03_02_01);
    assert_eq!(pixels.iter().filter(|&&pixel| pixel != 0).count(), 1);
    // Nothing has changed: no answer before something does.
    client.request(true);
    bench.set_pixel(4 * (640 * 300 + 630), [9, 8, 7, 0]);
    let update = client.update();
    let [([576, 256, 64, 64], 0, pixels)] = &update[..] else { panic!("{:?}", update[0].0) };
    assert_eq!(pixels[64 * 44 + 54], 0x07_08_09);
}

/// The cursor of a text screen comes and goes without the guest doing anything; colors are left out
/// of account, since there is no palette.
#[test]
fn the_cursor_blinks() {
    let bench = Bench::new();
    {
        let mut vga = bench.vga.lock().unwrap();
        vga.set_text_mode(&[]);
        vga.write(0x3c8, &[7]);
        for _ in 0..3 {
            vga.write(0x3c9, &[0x3f]);
        }
    }
    VgaWindow::new(bench.vga.clone()).write(0x1_8000, &[b' ', 0x07]);
    let mut client = Client::connect(&bench, b"RFB 003.008\n");
    client.request(false);
    client.update();
    let mut counts = Vec::new();
    for _ in 0..3 {
        client.request(true);
        let update = client.update();
        let [([0, 0, 64, 64], 0, pixels)] = &update[..] else { panic!("{:?}", update[0].0) };
        counts.push(pixels.iter().filter(|&&pixel| pixel != 0).count());
    }
    // Two lines of nine dots.
    counts.sort_unstable();
    assert!(matches!(counts[..], [0, 0, 18] | [0, 18, 18]), "{counts:?}");
}

#[test]
fn zrle_and_a_change_of_size() {
    let bench = Bench::new();
    bench.set_mode(320, 200);
    let mut client = Client::connect(&bench, b"RFB 003.007\n");
    client.encodings(&[16, 0, -223]);
    // Every kind of tile: one color, few, runs, many.
    for x in 0..64u64 {
        bench.set_pixel(4 * (64 + x), [x as u8 & 3, 0, 0, 0]);
        for y in 0..40 {
            bench.set_pixel(4 * (320 * y + 128 + x), [x as u8, y as u8, 5, 0]);
            bench.set_pixel(4 * (320 * y + 192 + x), [0, y as u8, 6, 0]);
        }
    }
    client.request(false);
    let update = client.update();
    let [([0, 0, 320, 200], 16, pixels)] = &update[..] else { panic!("{}", update.len()) };
    assert_eq!(pixels[65], 1);
    assert_eq!(pixels[320 * 39 + 128 + 63], 0x05_27_3f);
    assert_eq!(pixels[320 * 17 + 192], 0x06_11_00);
    client.request(true);
    bench.set_mode(400, 300);
    loop {
        // The mode is set register by register: pictures in between are right too.
        let update = client.update();
        if let Some(([0, 0, 400, 300], -223, _)) = update.last() {
            break;
        }
        client.request(true);
    }
    (client.width, client.height) = (400, 300);
    client.request(true);
    let update = client.update();
    assert_eq!(update[0].0, [0, 0, 400, 300]);
}

#[test]
fn keys_and_pointer_reach_the_guest() {
    let bench = Bench::new();
    let mut client = Client::connect(&bench, b"RFB 003.003\n");
    client.encodings(&[0, -258, -257]);
    client.request(false);
    let kinds: Vec<i32> = client.update().iter().map(|rectangle| rectangle.1).collect();
    assert_eq!(kinds[..2], [-258, -257]);
    // 'a' by its keysym, then Up by its scan code; the guest sees set 1.
    client.say(&[4, 1, 0, 0, 0, 0, 0, 0x61]);
    client.say(&[4, 0, 0, 0, 0, 0, 0, 0x61]);
    client.say(&[255, 0, 0, 1, 0, 0, 0xff, 0x52, 0, 0, 0, 0xc8]);
    for expected in [0x1e, 0x9e, 0xe0, 0x48] {
        assert_eq!(bench.guest_byte(), Some(expected));
    }
    // A client that leaves lets go of its keys.
    drop(client);
    assert_eq!((bench.guest_byte(), bench.guest_byte()), (Some(0xe0), Some(0xc8)));
    let mut client = Client::connect(&bench, b"RFB 003.008\n");
    {
        let mut keyboard = bench.keyboard.lock().unwrap();
        keyboard.write(0x64, &[0xa8]);
        keyboard.write(0x64, &[0xd4]);
        keyboard.write(0x60, &[0xf4]);
    }
    assert_eq!(bench.guest_byte(), Some(0xfa));
    client.say(&[5, 0, 0, 10, 0, 10]);
    client.say(&[5, 4, 0, 15, 0, 7]);
    let bytes: Vec<_> = (0..6).filter_map(|_| bench.guest_byte()).collect();
    assert_eq!(bytes, [0x08, 0, 0, 0x0a, 5, 3]);
}

#[test]
fn the_power_key_is_the_machines_power_button() {
    let bench = Bench::new();
    let mut client = Client::connect(&bench, b"RFB 003.008\n");
    let power = |down| [4, down, 0, 0, 0x10, 0x08, 0xff, 0x2a];
    // Held until it repeats, and pressed again; the second time by its scan code.
    for down in [1, 1, 1, 0] {
        client.say(&power(down));
    }
    client.say(&[255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xde]);
    // The guest's keyboard gets the next key, and none before.
    client.say(&[4, 1, 0, 0, 0, 0, 0, 0x61]);
    assert_eq!(bench.guest_byte(), Some(0x1e));
    assert_eq!(bench.power.load(Ordering::SeqCst), 2);
}

#[test]
fn bad_clients_are_dropped_and_good_ones_served() {
    let bench = Bench::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"RFB 003.008\n\x02",
        b"RFB 003.008\n\x01\x01\x09",
        b"RFB 003.008\n\x01\x01\x02\0\xff\xff",
        b"RFB 003.008\n\x01\x01\x06\0\0\0\xff\xff\xff\xff",
        b"RFB 003.008\n\x01\x01\x00\0\0\0\x18\x18\0\0\0\0\0\0\0\0\xff\xff\xff\0\0\0",
        b"RFB 003.008\n\x01\x01\xff\x07",
    ] {
        let mut stream = TcpStream::connect(bench.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(bytes).unwrap();
        // The server says what it has to say, and hangs up.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 100);
    }
    let mut client = Client::connect(&bench, b"RFB 003.008\n");
    client.request(false);
    assert!(!client.update().is_empty());
}

#[test]
fn too_many_clients_are_turned_away() {
    let bench = Bench::new();
    let clients: Vec<_> =
        (0..MAX_CLIENTS).map(|_| Client::connect(&bench, b"RFB 003.008\n")).collect();
    let mut stream = TcpStream::connect(bench.server.address()).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    drop(clients);
}
