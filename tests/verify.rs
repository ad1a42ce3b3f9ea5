//! `landfall verify` on disks with real file systems, and how a file system was left against what the kernel,
//! mkfs and cryptsetup make. Needs root, and a kernel with ext4, XFS, Btrfs and loop devices.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use landfall::{
    BootPath, Condition, Disk, Header, Layout, LayoutRequest, MIB, Role, VerifiedDisk, condition,
};
use support::disk::{
    Loop, copy_sparse, feed, image, open, overwrite, request, run, stand_in_for_bootc, text,
};
use support::{hash_of_data, landfall};
use tempfile::TempDir;

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Boot partitions, 100 MiB of root and the config drive.
const SIZE: u64 = 700 * MIB;
/// What is put onto the root partition.
const ROOT_SIZE: u64 = 100 * MIB;

/// A disk as bootc leaves it.
struct Installed {
    directory: TempDir,
    device: Loop,
    layout: Layout,
}

impl Installed {
    fn new() -> Self {
        Self::by(BootPath::Loader)
    }

    fn by(boot_path: BootPath) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let size = SIZE;
        let device = Loop::over(&image(&directory, size), 512);
        let disk = Disk::probe(&device.0).unwrap();
        let request = LayoutRequest {
            geometry: disk.geometry,
            root_at_least_mib: 100,
            ..request(size, 512)
        };
        let layout = Layout::plan(&request).unwrap();
        let claim = Disk::claim(disk.give_up(false).unwrap()).unwrap();
        stand_in_for_bootc(
            &directory,
            &device.0,
            &request,
            layout.root_size_mib,
            (boot_path == BootPath::Loader).then_some("EFI/BOOT/BOOTX64.EFI"),
        );
        VerifiedDisk::verify(&claim, &layout, boot_path).unwrap();
        let this = Self {
            directory,
            device,
            layout,
        };
        this.put_root(DIGEST, true);
        this
    }

    fn start(&self, role: Role) -> u64 {
        self.layout.partition(role).unwrap().extent.start_lba * 512
    }

    /// What a root file system has that records `digest`, with a boot entry.
    fn tree(&self, digest: &str, with_kernel: bool) -> PathBuf {
        let tree = self.directory.path().join("root");
        let _ = fs::remove_dir_all(&tree);
        let write = |path: &str, text: &str| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".bootc-aleph.json", &format!("{{\"digest\": \"{DIGEST}\"}}"));
        write(
            "boot/loader/entries/ostree-1.conf",
            "title x\nlinux /boot/ostree/ab/vmlinuz\noptions ostree=/ostree/boot.1/default/ab/0 quiet\n",
        );
        write("ostree/deploy/default/deploy/cdef.0/usr/os-release", "");
        let commit = format!("ostree.manifest-digest\0{digest}\0");
        write("ostree/repo/objects/cd/ef.commit", &commit);
        fs::create_dir_all(tree.join("ostree/boot.1/default/ab")).unwrap();
        let link = tree.join("ostree/boot.1/default/ab/0");
        std::os::unix::fs::symlink("../../../deploy/default/deploy/cdef.0", link).unwrap();
        if with_kernel {
            write("boot/ostree/ab/vmlinuz", "kernel");
        }
        tree
    }

    fn put_root(&self, digest: &str, with_kernel: bool) {
        self.put_tree("mkfs.ext4", &["-q"], &self.tree(digest, with_kernel));
    }

    /// A root file system with the files of `tree`.
    fn put_tree(&self, maker: &str, options: &[&str], tree: &Path) {
        let file = self.empty();
        run(maker, &[options, &[text(&file)]].concat());
        mount(&file, |mounted| {
            run("cp", &["-a", &format!("{}/.", text(tree)), text(mounted)]);
        });
        self.put(&file);
    }

    /// An empty file that the root partition has room for.
    fn empty(&self) -> PathBuf {
        let file = self.directory.path().join("root.img");
        let _ = fs::remove_file(&file);
        File::create(&file).unwrap().set_len(ROOT_SIZE).unwrap();
        file
    }

    /// Puts a file onto the root partition.
    fn put(&self, file: &Path) {
        let disk = open(&self.device.0);
        disk.write_all_at(&vec![0; ROOT_SIZE as usize], self.start(Role::Root))
            .unwrap();
        copy_sparse(file, &disk, self.start(Role::Root));
        disk.sync_all().unwrap();
        run("blockdev", &["--flushbufs", text(&self.device.0)]);
    }

    /// Runs one of the mtools on the EFI system partition.
    fn mtool(&self, program: &str, arguments: &[&str]) {
        let esp = format!("{}@@{}", text(&self.device.0), self.start(Role::Esp));
        run(program, &[&["-i", &esp], arguments].concat());
    }

    /// Writes a file to the EFI system partition.
    fn put_on_esp(&self, path: &str, content: &str) {
        let file = self.directory.path().join("file");
        fs::write(&file, content).unwrap();
        self.mtool("mcopy", &["-o", text(&file), &format!("::{path}")]);
    }

    /// The status and the lines of a verification, which must not write anything.
    fn verify(&self) -> (Option<i32>, String) {
        let hash = || {
            run("blockdev", &["--flushbufs", text(&self.device.0)]);
            hash_of_data(&self.directory.path().join("disk.img"))
        };
        let before = hash();
        let ran = landfall(["verify", text(&self.device.0)]);
        assert_eq!(hash(), before, "verifying wrote to the disk");
        (ran.code, ran.stdout + &ran.stderr)
    }

    fn fails(&self, expected: &str) {
        let (code, said) = self.verify();
        assert_eq!(code, Some(3), "{said}");
        let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("FAILED")).collect();
        assert!(
            failed.len() == 1 && failed[0].contains(expected),
            "{expected:?}: {said}"
        );
    }
}

#[test]
fn an_installed_disk_is_in_order_until_something_changes() {
    let installed = Installed::new();
    let (code, said) = installed.verify();
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        "ok           partition table: ",
        "ok           boot loader: EFI/BOOT/BOOTX64.EFI\n",
        "ok           root: ext4, clean\n",
        "ok           boot entries: the files of ostree-1.conf are there\n",
        &format!("ok           image on the disk: {DIGEST} boots\n"),
    ] {
        assert!(said.contains(expected), "{expected:?} is not in {said}");
    }

    let other = DIGEST.replace('a', "b").replace("shb", "sha");
    installed.put_root(&other, true);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(0), "{said}");
    let upgraded = format!("ok           image on the disk: {other} boots; {DIGEST} was installed first\n");
    assert!(said.contains(&upgraded), "{said}");
    installed.put_root(DIGEST, false);
    installed.fails("boot entries: ostree-1.conf needs /boot/ostree/ab/vmlinuz, which is missing");
}

#[test]
fn a_disk_that_was_installed_without_a_boot_loader_is_told_to_lack_one() {
    let installed = Installed::by(BootPath::Foreign);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("; with --bootloader none that is expected\n"),
        "{said}"
    );
}

#[test]
fn roots_of_every_kind_are_looked_into() {
    let installed = Installed::new();
    let makers: [(&str, &[&str], &str); 2] = [
        (
            "mkfs.xfs",
            &["-q", "--unsupported"],
            "not checked  root: xfs: only its log, which only the kernel reads,",
        ),
        (
            "mkfs.btrfs",
            &["-q", "--mixed"],
            "ok           root: btrfs, clean\n",
        ),
    ];
    for (maker, options, root) in makers {
        installed.put_tree(maker, options, &installed.tree(DIGEST, true));
        let (code, said) = installed.verify();
        assert_eq!(code, Some(0), "{said}");
        for expected in [
            root,
            "ok           boot entries: the files of ostree-1.conf are there\n",
            &format!("ok           image on the disk: {DIGEST} boots\n"),
        ] {
            assert!(said.contains(expected), "{expected:?} is not in {said}");
        }
    }

    installed.put_root(DIGEST, true);
    let file = installed.directory.path().join("root.img");
    run("debugfs", &["-w", "-R", "feature needs_recovery", text(&file)]);
    installed.put(&file);
    installed.fails("root: ext4: its journal is not empty: it was not unmounted");

    let file = installed.empty();
    let options = [
        "--batch-mode",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
    ];
    let format = [
        &["luksFormat", "--type", "luks2"],
        &options[..],
        &[text(&file), "-"],
    ]
    .concat();
    feed("cryptsetup", &format, "secret");
    installed.put(&file);
    installed.fails("root: LUKS without a TPM 2.0 token to unlock it at boot");

    let file = installed.empty();
    installed.put(&file);
    installed.fails("root: the root partition holds nothing known");
}

#[test]
fn what_the_boot_partitions_lack_is_found() {
    const UKI: &str = "/EFI/Linux/bootc/bootc_composefs-ab.efi";
    let installed = Installed::new();
    let tree = installed.tree(DIGEST, true);
    fs::create_dir_all(tree.join("boot/grub2")).unwrap();
    let menu = format!("menuentry \"x\" {{\nchainloader {UKI}\n}}\n");
    fs::write(tree.join("boot/grub2/user.cfg"), menu).unwrap();
    installed.put_tree("mkfs.ext4", &["-q"], &tree);
    installed.fails(&format!("boot entries: user.cfg needs {UKI}, which is missing"));
    installed.mtool("mmd", &["::EFI/Linux/bootc"]);
    installed.put_on_esp(UKI, "MZ");
    let (code, said) = installed.verify();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the files of bootc_composefs-ab.efi, ostree-1.conf, user.cfg are there"),
        "{said}"
    );
    installed.put_on_esp(UKI, "nothing");
    installed.fails("bootc_composefs-ab.efi needs bootc_composefs-ab.efi, which is missing");
    installed.put_on_esp(UKI, "MZ");

    installed.mtool("mmd", &["::loader", "::loader/entries"]);
    installed.put_on_esp("loader/entries/a.conf", "title a\nuki /EFI/Linux/none.efi\n");
    installed.fails("boot entries: a.conf needs /EFI/Linux/none.efi, which is missing");
    installed.put_on_esp("loader/entries/a.conf", "title a\n");
    installed.fails("boot entries: a.conf names no kernel");
    installed.mtool("mdel", &["::loader/entries/a.conf"]);

    installed.put_on_esp("EFI/BOOT/BOOTX64.EFI", "");
    let (code, said) = installed.verify();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("FAILED       boot loader: "), "{said}");
    installed.mtool("mdeltree", &["::EFI"]);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("FAILED       boot loader: the EFI system partition holds no boot loader"),
        "{said}"
    );
}

#[test]
fn a_boot_loader_without_anything_to_start_is_found() {
    let installed = Installed::new();
    let nothing = installed.directory.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    installed.put_tree("mkfs.ext4", &["-q"], &nothing);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("ok           boot loader: EFI/BOOT/BOOTX64.EFI\n"),
        "{said}"
    );
    assert!(
        said.contains("FAILED       boot entries: there are none ("),
        "{said}"
    );

    // The header of an EFI program with one section.
    let unified = format!("MZ{0:58}@\0\0\0PE\0\0\0\0\x01{0:17}.linux\0\0{0:32}", "").replace(' ', "\0");
    installed.put_on_esp("EFI/BOOT/BOOTX64.EFI", &unified);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ok           boot entries: the files of EFI/BOOT/BOOTX64.EFI are there\n"),
        "{said}"
    );

    installed.mtool("mdel", &["::EFI/BOOT/BOOTX64.EFI"]);
    installed.put_on_esp("EFI/Linux/fedora.efi", &unified);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ok           boot loader: EFI/Linux/fedora.efi, which needs a firmware boot entry"),
        "{said}"
    );
}

#[test]
fn a_kernel_with_another_view_of_the_table_is_told_or_the_user_is() {
    let installed = Installed::new();
    let device = text(&installed.device.0);
    let root = installed.layout.partition(Role::Root).unwrap();
    let (number, start) = (root.number.to_string(), root.extent.start_lba.to_string());
    run("addpart", &[device, &number, &start, "8"]);
    let busy = File::open(format!("{device}p{number}")).unwrap();
    let (code, said) = installed.verify();
    assert_eq!(code, Some(0), "{said}");
    let unseen = "root file system: the kernel does not see the partition (ioctl(BLKPG_ADD_PARTITION): ";
    let advice = format!("run `partx -u {device}`, then `landfall verify {device}`\n");
    assert!(said.contains(unseen) && said.contains(&advice), "{said}");

    drop(busy);
    run("partx", &["--update", device]);
    let (_, said) = installed.verify();
    assert!(said.contains("ok           image on the disk: "), "{said}");
    run("partx", &["--delete", device]);
    let (_, said) = installed.verify();
    assert!(said.contains("ok           image on the disk: "), "{said}");
}

#[test]
fn a_lost_backup_table_and_an_empty_esp_are_found() {
    let installed = Installed::new();
    let mut disk = open(&installed.device.0);
    overwrite(&mut disk, SIZE - 512, 512);
    installed.fails("partition table: a copy of it");
    run("sgdisk", &["--move-second-header", text(&installed.device.0)]);
    overwrite(&mut disk, installed.start(Role::Esp), 4096);
    let (code, said) = installed.verify();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("FAILED       boot loader: the EFI system partition: not a sound FAT"),
        "{said}"
    );
}

/// Mounts the file system in `file` while `work` is done.
fn mount(file: &Path, work: impl FnOnce(&Path)) {
    let mounted = tempfile::tempdir().unwrap();
    let device = Loop::over(file, 512);
    run("mount", &[text(&device.0), text(mounted.path())]);
    work(mounted.path());
    run("umount", &[text(mounted.path())]);
    // A mount namespace that another test has just made may have it too.
    while Disk::probe(&device.0).unwrap().refuse_if_in_use().is_err() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// The condition of a file system before it is mounted, while files are written to it, after that, and when
/// the kernel has put in order what power failing meanwhile would have left.
fn conditions(maker: &[&str], size_bytes: u64) -> [Condition; 4] {
    const FILES: u32 = 50;
    let directory = tempfile::tempdir().unwrap();
    let path = image(&directory, size_bytes);
    run(maker[0], &[&maker[1..], &[text(&path)]].concat());
    let kind = maker[0].trim_start_matches("mkfs.");
    let condition = |path: &Path| condition(&mut open(path), kind).unwrap();
    let fresh = condition(&path);
    let copy = directory.path().join("copy");
    mount(&path, |mounted| {
        for number in 0..FILES {
            let file = File::create(mounted.join(number.to_string())).unwrap();
            file.write_all_at(&[1; 5000], 0).unwrap();
            // Goes to the journal, and no further for now.
            file.sync_all().unwrap();
        }
        run("cp", &["--sparse=always", text(&path), text(&copy)]);
    });
    let cut_off = condition(&copy);
    mount(&copy, |_| {});
    [fresh, cut_off, condition(&path), condition(&copy)]
}

#[test]
fn file_systems_that_were_not_unmounted_are_told_from_those_that_were() {
    let makers: [(&[&str], u64); 3] = [
        (&["mkfs.ext4", "-q"], 64),
        (&["mkfs.ext4", "-q", "-b", "1024", "-O", "^metadata_csum"], 64),
        (&["mkfs.btrfs", "-q"], 256),
    ];
    for (maker, size_mib) in makers {
        let [fresh, cut_off, unmounted, recovered] = conditions(maker, size_mib * MIB);
        assert_eq!(fresh, Condition::Clean, "{maker:?}");
        assert!(matches!(cut_off, Condition::Unclean(_)), "{maker:?}: {cut_off:?}");
        assert_eq!(unmounted, Condition::Clean, "{maker:?}");
        assert_eq!(recovered, Condition::Clean, "{maker:?}");
    }
}

#[test]
fn headers_of_cryptsetup_are_read_and_a_token_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(&directory, 64 * MIB);
    let fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let format = [
        &["luksFormat", "--batch-mode", "--type", "luks2"],
        &fast[..],
        &[text(&path), "-"],
    ]
    .concat();
    feed("cryptsetup", &format, "secret");
    assert!(!Header::read(&mut open(&path)).unwrap().has_tpm2_token());
    // As systemd-cryptenroll writes it.
    let token = r#"{"type": "systemd-tpm2", "keyslots": ["0"], "tpm2-blob": "AA==", "tpm2-pcrs": [], "tpm2-policy-hash": "00"}"#;
    feed("cryptsetup", &["token", "import", text(&path)], token);
    assert!(Header::read(&mut open(&path)).unwrap().has_tpm2_token());
    let output = Command::new("cryptsetup")
        .args(["token", "remove", "--token-id", "0"])
        .arg(&path)
        .output();
    assert!(output.unwrap().status.success());
    assert!(!Header::read(&mut open(&path)).unwrap().has_tpm2_token());
}
