use super::*;

#[test]
fn a_metapackage_names_its_kernel() {
    let record = "Package: linux-image-686-pae\nDepends: other (>= 2) | x, \
        linux-image-6.1.0-56-686-pae:i386 (= 6.1.192-2), y\nSize: 1\n";
    let name = dependency(record, "linux-image-");
    assert_eq!(name.as_deref(), Some("linux-image-6.1.0-56-686-pae"));
    assert_eq!(dependency(record, "linux-headers-"), None);
    assert_eq!(dependency("Package: none\n", "linux-image-"), None);
}

#[test]
fn the_wanted_file_is_taken_out_of_the_archive() {
    let directory = std::env::temp_dir().join(format!("ringshift-unpack-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let target = directory.join("file");
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in
        [("./boot/config-6.1", "no"), ("./boot/vmlinuz-6.1", "kernel"), ("./usr/x", "no")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let wanted = |paths, name| Wanted { paths, target: directory.join(name) };
    let kernel = [wanted(&["boot/vmlinuz-"], "file")];
    assert!(copy_entries(&bytes[..], &kernel).unwrap().is_none());
    assert_eq!(fs::read(&target).unwrap(), b"kernel");
    let two = [wanted(&["usr/x"], "x"), wanted(&["boot/vmlinuz-"], "vmlinuz")];
    assert!(copy_entries(&bytes[..], &two).unwrap().is_none());
    assert_eq!(fs::read(directory.join("x")).unwrap(), b"no");
    assert_eq!(fs::read(directory.join("vmlinuz")).unwrap(), b"kernel");
    let busybox = [wanted(&["bin/busybox"], "busybox")];
    assert!(copy_entries(&bytes[..], &busybox).unwrap().is_some());
    assert!(copy_entries(&bytes[..600], &kernel).is_err());
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_failure_is_told_in_the_programs_own_last_words() {
    assert_eq!(last_lines("a\n\nb\nc\nd\n"), "b; c; d");
    assert_eq!(last_lines("only\n"), "only");
    assert_eq!(last_lines(""), "it gave no reason");
}

#[test]
fn a_cached_file_is_not_fetched_again() {
    let root = std::env::temp_dir().join(format!("ringshift-cache-{}", std::process::id()));
    fs::create_dir_all(root.join("files")).unwrap();
    fs::write(root.join("files/busybox-static_i386"), b"x").unwrap();
    let path = Cache::at(root.clone())
        .file(&Package::busybox(Architecture::I386), &|line| panic!("{line}"))
        .unwrap();
    assert_eq!(fs::read(path).unwrap(), b"x");
    fs::remove_dir_all(&root).unwrap();
}
