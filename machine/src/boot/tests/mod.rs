//! Images made by hand, loaded and read back; and hostile ones.

mod hostile;
mod images;
mod linux;
mod multiboot;
mod pvh;
mod real_mode;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{ImageError, Loaded, MemoryMap, Module, Protocol, Request, load};

const MIB: u64 = 1 << 20;

/// A guest whose RAM holds no zeroes before something is loaded.
struct TestGuest {
    memory: GuestMemoryMmap<()>,
    map: MemoryMap,
}

impl TestGuest {
    fn new(ram: u64, mmio_start: u64) -> Self {
        let ranges: Vec<_> = MemoryMap::ram_ranges(ram, mmio_start)
            .into_iter()
            .map(|(start, size)| (GuestAddress(start), size as usize))
            .collect();
        Self {
            memory: GuestMemoryMmap::from_ranges(&ranges).unwrap(),
            map: MemoryMap::pc(ram, mmio_start),
        }
    }

    fn request<'a>(&'a self, kernel: &'a [u8]) -> Request<'a> {
        Request {
            kernel,
            name: "kernel",
            command_line: "console=ttyS0",
            modules: &[],
            memory_map: &self.map,
            rsdp: Some(0x9_FC00),
            text_screen: false,
            protocol: Protocol::Best,
        }
    }

    fn load(&self, request: &Request<'_>) -> Result<Loaded, ImageError> {
        load(&self.memory, request)
    }

    fn bytes(&self, start: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.memory.read_slice(&mut bytes, GuestAddress(start)).unwrap();
        bytes
    }

    fn u8(&self, at: u64) -> u8 {
        self.bytes(at, 1)[0]
    }

    fn u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.bytes(at, 2).try_into().unwrap())
    }

    fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at, 4).try_into().unwrap())
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    fn string(&self, at: u64) -> String {
        let bytes = (at..).map(|at| self.u8(at)).take_while(|byte| *byte != 0).collect();
        String::from_utf8(bytes).unwrap()
    }
}

/// A guest that has enough memory for every image here.
fn guest() -> TestGuest {
    TestGuest::new(32 * MIB, 0xC000_0000)
}

/// The message of the error that loading `kernel` must give.
fn refusal(kernel: &[u8]) -> String {
    let guest = guest();
    guest.load(&guest.request(kernel)).expect_err("a malformed image was loaded").to_string()
}

#[test]
fn what_is_no_kernel_is_described() {
    for (image, message) in [
        (&b""[..], "the file is empty"),
        (b"\x1F\x8B\x08", "gzip"),
        (b"MZ and more", "EFI"),
        (b"070701", "initrd"),
        (b"hello", "5 bytes that begin with 68 65 6c 6c 6f"),
        (&[0; 100_000], "100000 bytes that begin with 00 00"),
    ] {
        let refusal = refusal(image);
        assert!(refusal.contains(message), "{refusal}");
    }
    let mut image = vec![0; 64];
    for (index, word) in [0xE852_50D6_u32, 0, 16, 0x17AD_AF1A].iter().enumerate() {
        image[4 * index..4 * index + 4].copy_from_slice(&word.to_le_bytes());
    }
    assert!(refusal(&image).contains("Multiboot 2"), "{}", refusal(&image));
}
