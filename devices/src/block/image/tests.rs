//! Images of every format, whole and corrupt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imago::format::builder::FormatCreateBuilder;
use imago::{Storage, StorageOpenOptions};
use proptest::prelude::*;

use super::*;

const SIZE: u64 = 4 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A new qcow2 image, over `backing` if there is one: its name, and its format.
fn create(path: &Path, backing: Option<(&str, &str)>) {
    fs::write(path, b"").unwrap();
    let options = StorageOpenOptions::new().filename(path).write(true);
    let storage = File::open(options).unwrap();
    let mut builder = Qcow2::<File>::create_builder(storage).size(SIZE).cluster_size(4096);
    if let Some((name, format)) = backing {
        builder = builder.backing(name.to_owned(), format.to_owned());
    }
    builder.create().unwrap();
}

fn open(path: &Path) -> Box<dyn BlockDevice> {
    ImageOptions::new(path).open().unwrap_or_else(|error| panic!("{error}"))
}

fn options(
    path: &Path,
    format: Option<ImageFormat>,
    read_only: bool,
    snapshot: bool,
) -> ImageOptions {
    ImageOptions { path: path.into(), format, read_only, snapshot }
}

fn error(options: &ImageOptions) -> String {
    match options.open() {
        Ok(_) => panic!("{options:?} opens"),
        Err(error) => error.to_string(),
    }
}

fn read(image: &mut dyn BlockDevice, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xee; len];
    image.read_at(offset, &mut data).unwrap();
    data
}

/// QEMU's image tool, where it is installed.
fn qemu_img(arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("qemu-img").args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn a_raw_image_is_read_written_and_padded() {
    let directory = directory();
    let path = directory.path().join("disk");
    fs::write(&path, b"0123456789").unwrap();
    let mut image = open(&path);
    assert_eq!(image.size(), 512);
    assert_eq!(read(&mut *image, 0, 12), b"0123456789\0\0");
    image.write_at(2, b"ab").unwrap();
    image.flush().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"01ab456789");
    image.write_at(500, b"end").unwrap();
    assert_eq!(read(&mut *image, 498, 6), b"\0\0end\0");
    assert!(image.read_at(511, &mut [0; 2]).is_err());
    drop(image);
    let mut image = options(&path, None, true, false).open().unwrap();
    assert!(image.read_only() && image.write_at(0, b"x").is_err());
}

#[test]
fn a_qcow2_image_keeps_what_was_flushed_when_the_process_is_killed() {
    let directory = directory();
    let (path, copy) = (directory.path().join("disk"), directory.path().join("copy"));
    create(&path, None);
    let mut image = open(&path);
    assert_eq!((image.size(), image.read_only()), (SIZE, false));
    image.write_at(1 << 20, &[7; 70_000]).unwrap();
    image.write_at(SIZE - 512, &[8; 512]).unwrap();
    image.flush().unwrap();
    // As the file is at this moment, without the driver's last words.
    fs::copy(&path, &copy).unwrap();
    let mut killed = open(&copy);
    assert_eq!(read(&mut *killed, 1 << 20, 70_000), [7; 70_000]);
    assert_eq!(read(&mut *killed, SIZE - 512, 512), [8; 512]);
    assert_eq!(read(&mut *killed, 0, 512), [0; 512]);
    drop(killed);
    if let Some((sound, text)) = qemu_img(&["check", &copy.display().to_string()]) {
        assert!(sound, "{text}");
    }
}

#[test]
fn images_of_qemus_own_making_are_understood() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let name = |name: &str| at(name).display().to_string();
    let content: Vec<u8> = (0..SIZE).map(|i| (i / 4096 * 7 + i % 251) as u8).collect();
    fs::write(at("raw"), &content).unwrap();
    if qemu_img(&["--version"]).is_none() {
        eprintln!("SKIPPED: qemu-img is not installed (Debian: qemu-utils)");
        return;
    }
    for arguments in [
        &["-O", "qcow2"][..],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-o", "compat=0.10"],
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-o", "refcount_bits=1,lazy_refcounts=off"],
        &["-O", "vmdk", "-o", "subformat=monolithicFlat"],
    ] {
        let (raw, made) = (name("raw"), name("made"));
        let arguments = [&["convert", "-f", "raw"], arguments, &[&raw, &made]].concat();
        let (done, text) = qemu_img(&arguments).unwrap();
        assert!(done, "{arguments:?}: {text}");
        let mut image = options(&at("made"), None, true, false).open().unwrap();
        assert!(read(&mut *image, 0, SIZE as usize) == content, "{arguments:?}");
        fs::remove_file(at("made")).unwrap();
    }
}

#[test]
fn a_backing_file_is_found_beside_its_image_and_stays_as_it_is() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("base"), vec![1; SIZE as usize]).unwrap();
    create(&at("middle"), Some(("base", "raw")));
    create(&at("top"), Some(("middle", "qcow2")));
    let mut image = open(&at("top"));
    assert_eq!(read(&mut *image, 5000, 3), [1; 3]);
    image.write_at(5001, &[9]).unwrap();
    assert_eq!(read(&mut *image, 5000, 3), [1, 9, 1]);
    // The chain below is being read, so nobody may write there.
    let told = error(&ImageOptions::new(at("base")));
    assert!(told.contains("base") && told.contains("in use"), "{told}");
    drop(image);
    assert!(fs::read(at("base")).unwrap().iter().all(|&byte| byte == 1));

    fs::remove_file(at("base")).unwrap();
    let told = error(&ImageOptions::new(at("top")));
    assert!(told.contains("backing file") && told.contains("base"), "{told}");
    create(&at("loop"), Some(("loop", "qcow2")));
    let told = error(&options(&at("loop"), None, true, false));
    assert!(told.contains("chain"), "{told}");
    create(&at("net"), Some(("nbd://host/disk", "raw")));
    let told = error(&ImageOptions::new(at("net")));
    assert!(told.contains("nbd://host/disk") && told.contains("no local file"), "{told}");
}

/// A guest's raw disk gets a qcow2 header that names a file of the host's.
#[test]
fn what_a_guest_writes_is_not_taken_for_a_header() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("secret"), vec![b's'; SIZE as usize]).unwrap();
    create(&at("evil"), Some(("secret", "raw")));
    let evil = fs::read(at("evil")).unwrap();
    fs::write(at("disk"), vec![0; SIZE as usize]).unwrap();

    let mut disk = open(&at("disk"));
    let refused = disk.write_at(0, &evil).unwrap_err().to_string();
    assert!(refused.contains("disk") && refused.contains("format=raw"), "{refused}");
    drop(disk);
    assert_eq!(read(&mut *open(&at("disk")), 0, 4), [0; 4]);

    // The user may say that the format is raw; then it is, each time that the user says so.
    let raw = options(&at("disk"), Some(ImageFormat::Raw), false, false);
    raw.open().unwrap().write_at(0, &evil).unwrap();
    assert_eq!(read(&mut *raw.open().unwrap(), 0, evil.len()), evil);

    // Below another image it is not probed either.
    create(&at("top"), Some(("disk", "raw")));
    assert_eq!(read(&mut *open(&at("top")), 0, evil.len()), evil);
    // An image that does not tell its backing file's format.
    let mut top = fs::read(at("top")).unwrap();
    let extension = top.windows(4).position(|w| w == 0xe279_2aca_u32.to_be_bytes()).unwrap();
    top[extension] = 0x22;
    fs::write(at("top"), top).unwrap();
    let told = error(&ImageOptions::new(at("top")));
    assert!(told.contains("looks like qcow2") && told.contains("rebase"), "{told}");
}

#[test]
fn an_image_has_one_writer_or_many_readers() {
    let directory = directory();
    let path = directory.path().join("disk");
    fs::write(&path, vec![0; 4096]).unwrap();
    let reader = options(&path, None, true, false);
    let writer = ImageOptions::new(&path);
    let (first, second) = (reader.open().unwrap(), reader.open().unwrap());
    let told = error(&writer);
    assert!(told.contains("in use") && told.contains("lets nobody else write"), "{told}");
    drop((first, second));
    let first = writer.open().unwrap();
    for second in [&reader, &writer, &options(&path, None, false, true)] {
        assert!(error(second).contains("which writes it"));
    }
    let name = path.display().to_string();
    // `info` reads a raw image without asking.
    if let Some((done, text)) = qemu_img(&["resize", "-f", "raw", &name, "8K"]) {
        assert!(!done && text.contains("lock"), "qemu-img heeds the lock: {text}");
    }
    drop(first);
    writer.open().unwrap();
}

#[test]
fn a_snapshot_leaves_the_image_as_it_is() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("raw"), vec![3; 8192]).unwrap();
    create(&at("qcow2"), None);
    for name in ["raw", "qcow2"] {
        let before = fs::read(at(name)).unwrap();
        let mut image = options(&at(name), None, false, true).open().unwrap();
        assert!(!image.read_only());
        // It is not probed again, so that anything may be written.
        image.write_at(0, b"QFI\xfb\0\0\0\x03").unwrap();
        image.flush().unwrap();
        assert_eq!(read(&mut *image, 0, 4), b"QFI\xfb");
        drop(image);
        assert!(fs::read(at(name)).unwrap() == before);
    }
}

#[test]
fn a_vmdk_image_is_its_extents() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("extent"), [[4; 1024], [5; 1024]].concat()).unwrap();
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\n\nRW 3 FLAT \"extent\" 1\nRW 2 ZERO\n";
    fs::write(at("disk.vmdk"), descriptor).unwrap();
    let mut image = options(&at("disk.vmdk"), None, true, false).open().unwrap();
    assert_eq!(image.size(), 5 * 512);
    assert_eq!(read(&mut *image, 510, 4), [4, 4, 5, 5]);
    assert_eq!(read(&mut *image, 3 * 512 - 1, 2), [5, 0]);
    drop(image);
    let mut snapshot = options(&at("disk.vmdk"), None, false, true).open().unwrap();
    snapshot.write_at(0, b"new").unwrap();
    drop(snapshot);
    let told = error(&ImageOptions::new(at("disk.vmdk")));
    assert!(told.contains("snapshot=on"), "{told}");
    fs::remove_file(at("extent")).unwrap();
    let told = error(&options(&at("disk.vmdk"), None, true, false));
    assert!(told.contains("extent"), "{told}");
}

/// What cannot be read is named as the tools that made it name it.
#[test]
fn vmdk_sub_formats_are_told() {
    let directory = directory();
    let at = directory.path().join("disk.vmdk");
    let told = |content: &[u8]| {
        fs::write(&at, content).unwrap();
        error(&options(&at, None, true, false))
    };
    let text = |create_type: &str, line: &str| {
        format!("# Disk DescriptorFile\nversion=1\ncreateType=\"{create_type}\"\n{line}\n")
    };
    // The embedded descriptor is in the second sector.
    let mut sparse = vec![0; 2048];
    sparse[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    assert!(told(&sparse[..8]).contains("a sparse VMDK extent without a descriptor"));
    sparse[28] = 1;
    let descriptor = text("monolithicSparse", "RW 8 SPARSE \"disk.vmdk\"");
    sparse[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
    assert!(told(&sparse).contains("of the sub-format monolithicSparse; only"));
    sparse[28..32].fill(0xFF);
    assert!(told(&sparse).contains("a sparse VMDK extent without"));
    sparse[10] = 1;
    assert!(told(&sparse).contains("with compressed grains"));
    let split = text("twoGbMaxExtentSparse", "RW 8 SPARSE \"a-s001.vmdk\"");
    let message = told(split.as_bytes());
    assert!(message.contains("twoGbMaxExtentSparse, with SPARSE extents"), "{message}");
    let delta = text("monolithicFlat", "parentFileNameHint=\"base.vmdk\"");
    assert!(told(delta.as_bytes()).contains("a difference to another image"));

    if qemu_img(&["--version"]).is_none() {
        eprintln!("not compared with qemu-img, which is not installed (Debian: qemu-utils)");
        return;
    }
    for kind in ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse"] {
        fs::remove_file(&at).unwrap();
        let options = format!("subformat={kind}");
        let name = at.to_str().unwrap();
        let (done, text) = qemu_img(&["create", "-f", "vmdk", "-o", &options, name, "4M"]).unwrap();
        assert!(done, "{text}");
        let message = error(&ImageOptions::new(&at));
        assert!(message.contains(kind), "{message}");
    }
}

#[test]
fn what_is_no_image_is_told() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    assert!(error(&ImageOptions::new(directory.path())).contains("a directory"));
    assert!(error(&ImageOptions::new("/dev/null")).contains("a special file"));
    assert!(error(&ImageOptions::new(at("missing"))).contains("missing"));
    fs::write(at("empty"), b"").unwrap();
    assert!(error(&ImageOptions::new(at("empty"))).contains("empty"));
    fs::write(at("vhdx"), b"vhdxfile").unwrap();
    let told = error(&ImageOptions::new(at("vhdx")));
    assert!(told.contains("VHDX") && told.contains("qemu-img convert"), "{told}");
    fs::write(at("raw"), [0; 512]).unwrap();
    let told = error(&options(&at("raw"), Some(ImageFormat::Qcow2), true, false));
    assert!(told.contains("the magic number"), "{told}");
}

/// A qcow2 image with data in several L2 tables.
fn sound() -> Vec<u8> {
    let directory = directory();
    let path = directory.path().join("disk");
    create(&path, None);
    let mut image = open(&path);
    for at in [0, 4096 * 3, 1 << 20, (2 << 20) + 512, SIZE - 4096] {
        image.write_at(at, &[0x5a; 3000]).unwrap();
    }
    drop(image);
    fs::read(path).unwrap()
}

#[test]
fn corrupt_headers_are_told_by_field() {
    let directory = directory();
    let path = directory.path().join("disk");
    let sound = sound();
    for (at, bytes, field) in [
        (4, &[0, 0, 0, 9][..], "version 9"),
        (20, &[0, 0, 0, 5], "cluster_bits"),
        (20, &[0, 0, 0, 63], "cluster_bits"),
        (24, &[0xff; 8], "size"),
        (24, &[0, 0x10, 0, 0, 0, 0, 0, 0], "l1_size"),
        (32, &[0, 0, 0, 1], "encrypted"),
        (32, &[0, 0, 0, 7], "crypt_method"),
        (36, &[0xff; 4], "l1_table_offset"),
        (36, &[0, 0x10, 0, 0], "l1_table_offset"),
        (40, &[0xff; 8], "l1_table_offset"),
        (40, &[0, 0, 1, 0, 0, 0, 0, 0], "l1_table_offset"),
        (48, &[0, 0, 0, 0, 0, 0, 0, 1], "refcount_table_offset"),
        (48, &[0; 8], "refcount_table_offset"),
        (56, &[0xff; 4], "refcount_table_clusters"),
        (56, &[0; 4], "refcount_table_offset"),
        (8, &[0, 0, 0, 0, 0, 0, 0x0f, 0xff], "backing_file_size"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 1], "dirty"),
        (72, &[0, 0, 0, 0, 0, 0, 0, 2], "corrupt"),
        (72, &[0x80, 0, 0, 0, 0, 0, 0, 0], "incompatible_features"),
        (96, &[0, 0, 0, 7], "refcount_order"),
        (100, &[0, 0, 0, 1], "header_length"),
        (100, &[0xff; 4], "header_length"),
    ] {
        let mut corrupt = sound.clone();
        corrupt[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, &corrupt).unwrap();
        let told = error(&ImageOptions::new(&path));
        assert!(told.contains(field) && told.contains("disk"), "{field}: {told}");
    }
    for len in [4, 71, 103] {
        fs::write(&path, &sound[..len]).unwrap();
        let told = error(&ImageOptions::new(&path));
        assert!(told.contains("the file's length"), "{len}: {told}");
    }
}

/// Uses an image, whatever it answers.
fn use_up(path: PathBuf) {
    let Ok(mut image) = ImageOptions::new(path).open() else { return };
    let size = image.size();
    let mut data = vec![0; 4096];
    for at in (0..size.min(SIZE)).step_by(4096) {
        let len = data.len().min((size - at) as usize);
        let _ = image.read_at(at, &mut data[..len]);
    }
    for at in [0, 5000, 1 << 20, SIZE - 4096] {
        let _ = image.write_at(at, &[1; 2000]);
    }
    let _ = image.flush();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Flipped bits and overwritten words anywhere, most of them in the tables: errors at most.
    #[test]
    fn corrupt_images_are_survived(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..8),
        words in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![
                u64::MAX, 0, 1 << 63, 1 << 62, 3 << 62, 1, 0x8000_0000_0000_1000,
                0x00ff_ffff_ffff_fe00, 0x4000_0000_0000_0fff,
            ])),
            0..4,
        ),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let directory = directory();
        let path = directory.path().join("disk");
        let mut image = sound();
        // The first nine clusters are the header and the tables.
        let tables = image.len().min(9 * 4096);
        for (at, bit) in flips {
            image[at.index(tables)] ^= 1 << bit;
        }
        for (at, word) in words {
            let at = at.index(tables / 8) * 8;
            image[at..at + 8].copy_from_slice(&u64::to_be_bytes(word));
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        fs::write(&path, &image).unwrap();
        use_up(path);
    }
}
