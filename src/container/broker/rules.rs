//! What the installer may mount, change and unmount. No I/O: these are decisions over facts.

use nix::mount::{MntFlags, MsFlags};

/// Where something is, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The kernel's own `/proc`, `/sys` or `/dev`: parts of them are covered, and they can't be written to.
    Guarded,
    Elsewhere,
}

/// What is known of a mount that is to be changed, moved or copied.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub place: Place,
    /// Where it is mounted: what is on a guarded place covers something there.
    pub on: Place,
    /// The root of who asks.
    pub root: bool,
    pub read_only: bool,
    pub no_devices: bool,
}

impl Facts {
    fn guarded(&self) -> bool {
        [self.place, self.on].contains(&Place::Guarded)
    }
}

/// How a new file system of some type comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What the container has already, with all that covers parts of it.
    Own(Interface),
    /// A block device.
    Device,
    /// Memory, or other directories.
    None,
}

/// Interfaces of the kernel that the container has once, and copies of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    Proc,
    Sys,
    FirmwareVariables,
}

/// The file systems that may be mounted; no other one is.
pub fn source(kind: &str) -> Option<Source> {
    Some(match kind {
        "proc" => Source::Own(Interface::Proc),
        "sysfs" => Source::Own(Interface::Sys),
        "efivarfs" => Source::Own(Interface::FirmwareVariables),
        "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "vfat" | "f2fs" | "erofs" | "squashfs" | "iso9660" => {
            Source::Device
        }
        "tmpfs" | "overlay" | "devpts" | "mqueue" => Source::None,
        _ => return None,
    })
}

/// Options that name another device than the source.
const DEVICES_IN_OPTIONS: [&str; 5] = ["device=", "journal_dev=", "journal_path=", "logdev=", "rtdev="];

pub fn names_another_device(options: &str) -> bool {
    let mut options = options.split(',');
    options.any(|option| DEVICES_IN_OPTIONS.iter().any(|name| option.starts_with(name)))
}

/// Whether a file system of this type may be opened by `fsopen(2)`, without its source being seen. Where it
/// may not, programs call `mount(2)`.
pub fn may_be_opened(kind: &str) -> bool {
    ["erofs", "overlay"].contains(&kind)
}

/// Whether the options of a mounted file system may be changed by whoever picks it by `fspick(2)`, unseen.
pub fn may_be_picked(mount: &Facts) -> bool {
    !mount.guarded()
}

/// The flags of a new mount: device nodes come from the container's `/dev` alone, and from its terminals.
pub fn new_mount(kind: &str, asked: MsFlags) -> MsFlags {
    match kind {
        "devpts" => asked,
        _ => asked | MsFlags::MS_NODEV,
    }
}

/// The flags with which a mount, or its file system, may be mounted again; none if it may not.
pub fn remount(mount: &Facts, asked: MsFlags) -> Option<MsFlags> {
    let opens = mount.read_only && !asked.contains(MsFlags::MS_RDONLY);
    if opens && mount.guarded() {
        return None;
    }
    let mut flags = asked;
    // The file system itself is the machine's as well.
    flags.set(
        MsFlags::MS_BIND,
        asked.contains(MsFlags::MS_BIND) || mount.guarded(),
    );
    flags.set(
        MsFlags::MS_NODEV,
        asked.contains(MsFlags::MS_NODEV) || mount.no_devices,
    );
    Some(flags)
}

/// What `mount_setattr(2)` is asked for (`linux/mount.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub recursive: bool,
}

pub const ATTRIBUTE_READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const ATTRIBUTE_NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;

/// The change that may be made; none if it may not.
pub fn change(mount: &Facts, asked: Change) -> Option<Change> {
    let opens = asked.clear & ATTRIBUTE_READ_ONLY != 0;
    // Nobody knows what is mounted below.
    if opens && (asked.recursive || mount.read_only && mount.guarded()) {
        return None;
    }
    let clear = match mount.no_devices || asked.recursive {
        true => asked.clear & !ATTRIBUTE_NO_DEVICES,
        false => asked.clear,
    };
    Some(Change { clear, ..asked })
}

/// Whether what is mounted may be moved elsewhere, or unmounted.
pub fn may_go(mount: &Facts) -> bool {
    mount.on == Place::Elsewhere && !mount.root
}

/// The flags with which a mount is unmounted. Those of the kernel's interfaces are never without what covers
/// parts of them, which whoever mounted one did not mount.
pub fn unmount(mount: &Facts, asked: MntFlags) -> MntFlags {
    match mount.place {
        Place::Guarded => asked | MntFlags::MNT_DETACH,
        Place::Elsewhere => asked,
    }
}

/// Whether a copy is to have what is mounted below it as well, as that covers something.
pub fn copies_all(place: Place, asked: bool) -> bool {
    asked || place == Place::Guarded
}

/// The numbers of a block device.
pub type Number = (u64, u64);

/// What is known of a block device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Of itself, or of the disk that it is a partition of.
    pub disk: Number,
    /// It, or that disk, was there when the installation began, with something in it.
    pub old: bool,
    /// A loop device, or one of the device mapper's.
    pub made_of_others: bool,
}

/// Whether a device may be mounted by an installer of `target`.
pub fn may_mount_device(device: &Device, target: Number) -> bool {
    device.disk == target || (device.made_of_others && !device.old)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Facts = Facts {
        place: Place::Elsewhere,
        on: Place::Elsewhere,
        root: false,
        read_only: true,
        no_devices: true,
    };
    const GUARDED: Facts = Facts {
        place: Place::Guarded,
        ..PLAIN
    };
    /// Covers something of a guarded one.
    const COVER: Facts = Facts {
        on: Place::Guarded,
        ..PLAIN
    };

    #[test]
    fn types_of_file_systems() {
        for (kind, expected) in [
            ("ext4", Some(Source::Device)),
            ("vfat", Some(Source::Device)),
            ("overlay", Some(Source::None)),
            ("tmpfs", Some(Source::None)),
            ("proc", Some(Source::Own(Interface::Proc))),
            ("sysfs", Some(Source::Own(Interface::Sys))),
        ] {
            assert_eq!(source(kind), expected, "{kind}");
        }
        for kind in [
            "debugfs",
            "tracefs",
            "securityfs",
            "binfmt_misc",
            "cgroup",
            "cgroup2",
            "cpuset",
            "devtmpfs",
            "configfs",
            "fuse",
            "fuse.x",
            "fuseblk",
            "fusectl",
            "nfs",
            "nfs4",
            "cifs",
            "9p",
            "virtiofs",
            "bpf",
            "pstore",
            "hugetlbfs",
            "ramfs",
            "autofs",
            "selinuxfs",
            "smackfs",
            "ext4 ",
            "EXT4",
            "",
        ] {
            assert_eq!(source(kind), None, "{kind}");
            assert!(!may_be_opened(kind), "{kind}");
        }
        for kind in ["proc", "sysfs", "efivarfs", "ext4", "devpts"] {
            assert!(!may_be_opened(kind), "{kind}");
        }
    }

    #[test]
    fn options_name_no_second_device() {
        assert!(names_another_device("ro,journal_dev=2049"));
        assert!(names_another_device("device=/dev/sdb"));
        assert!(!names_another_device("ro,data=journal,lowerdir=/device=x"));
    }

    #[test]
    fn what_is_read_only_and_guarded_stays_so() {
        let (ro, rw) = (MsFlags::MS_RDONLY, MsFlags::empty());
        let (nodev, bind) = (MsFlags::MS_NODEV, MsFlags::MS_BIND);
        let writable = |facts| Facts {
            read_only: false,
            ..facts
        };
        let nodes = |facts| Facts {
            no_devices: false,
            ..facts
        };
        for (mount, asked, expected) in [
            (PLAIN, rw, Some(nodev)),
            (PLAIN, ro, Some(ro | nodev)),
            (nodes(PLAIN), rw, Some(rw)),
            (GUARDED, rw, None),
            (GUARDED, ro, Some(ro | nodev | bind)),
            (COVER, rw, None),
            (COVER, ro, Some(ro | nodev | bind)),
            (nodes(GUARDED), ro, Some(ro | bind)),
            (writable(GUARDED), rw, Some(nodev | bind)),
        ] {
            assert_eq!(remount(&mount, asked), expected, "{mount:?} {asked:?}");
        }
    }

    #[test]
    fn attributes_that_may_change() {
        let change_of = |set, clear, recursive| Change {
            set,
            clear,
            recursive,
        };
        let (ro, nodev) = (ATTRIBUTE_READ_ONLY, ATTRIBUTE_NO_DEVICES);
        for (mount, asked, expected) in [
            (PLAIN, change_of(ro, 0, true), Some(change_of(ro, 0, true))),
            (PLAIN, change_of(0, ro, false), Some(change_of(0, ro, false))),
            (PLAIN, change_of(0, ro, true), None),
            (PLAIN, change_of(0, nodev, false), Some(change_of(0, 0, false))),
            (GUARDED, change_of(0, ro, false), None),
            (GUARDED, change_of(ro, 0, false), Some(change_of(ro, 0, false))),
            (COVER, change_of(0, ro | nodev, false), None),
        ] {
            assert_eq!(change(&mount, asked), expected, "{mount:?} {asked:?}");
        }
    }

    #[test]
    fn what_covers_something_stays_where_it_is() {
        let root = Facts { root: true, ..PLAIN };
        for (mount, free) in [(PLAIN, true), (GUARDED, true), (COVER, false), (root, false)] {
            assert_eq!(may_go(&mount), free, "{mount:?}");
        }
        for (mount, free) in [(PLAIN, true), (GUARDED, false), (COVER, false)] {
            assert_eq!(may_be_picked(&mount), free, "{mount:?}");
        }
        assert!(copies_all(Place::Guarded, false) && copies_all(Place::Elsewhere, true));
        assert!(!copies_all(Place::Elsewhere, false));
    }

    #[test]
    fn devices_of_others_are_not_mounted() {
        let device = |disk, old, made_of_others| Device {
            disk,
            old,
            made_of_others,
        };
        for (given, expected) in [
            (device((8, 0), true, false), true),
            (device((8, 16), true, false), false),
            (device((8, 16), false, false), false),
            (device((7, 0), false, true), true),
            (device((7, 0), true, true), false),
            (device((253, 0), true, true), false),
        ] {
            assert_eq!(may_mount_device(&given, (8, 0)), expected, "{given:?}");
        }
    }

    #[test]
    fn device_nodes_come_from_dev_alone() {
        let nothing = MsFlags::empty();
        assert_eq!(new_mount("ext4", nothing), MsFlags::MS_NODEV);
        assert_eq!(new_mount("devpts", nothing), nothing);
    }
}
