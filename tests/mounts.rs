//! What mounts in an installation: all that bootc and its tools do, and nothing that shows or changes what is
//! not the image's.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::image::{Entry, Layer};
use support::{GIB, Lab, LoopDisk, Ran, assert_nothing_left, installable, landfall, output};

/// Says what fails, and goes on.
const SAYS: &str = r#"
PATH=/usr/bin
b=/usr/bin/busybox
works() { "$@" 2>/tmp/why || echo "FAILED: $*: $($b cat /tmp/why)"; }
fails() { "$@" 2>/tmp/why && echo "WORKED: $*"; }
$b mkdir -p /mnt/a /mnt/b /mnt/c
"#;

/// Runs an installation with this script as bootc, onto a disk with an ext4; gives what it did.
fn install(lab: &Lab, script: &str) -> (Ran, Vec<String>) {
    let disk = lab.disk(GIB);
    output(Command::new("mkfs.ext4").arg("-q").arg(&disk.device));
    let program = lab.directory.path().join("api");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mounts/api.c");
    output(
        Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(&program)
            .arg(source),
    );
    let image = installable(&format!("{SAYS}{script}\nexit 3"));
    let program = Entry::program("usr/bin/api", fs::read(program).unwrap());
    lab.layout
        .add(&image.layer(Layer::new([program])), "mounts")
        .unwrap();
    let report = lab.directory.path().join("report.json");
    let image = lab.place("mounts");
    let ran = landfall(disk.install(&image, &["--wipe", "--report", report.to_str().unwrap()]));
    assert_nothing_left();
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let refused = report["bootc"]["refused"].as_array().unwrap();
    let refused = refused
        .iter()
        .map(|what| what.as_str().unwrap().to_owned())
        .collect();
    (ran, refused)
}

/// What the script printed.
fn printed(ran: &Ran) -> Vec<&str> {
    let lines = ran.stderr.lines();
    lines.filter_map(|line| line.strip_prefix("  | ")).collect()
}

#[test]
fn what_an_installer_does_works() {
    let lab = Lab::new();
    let (ran, refused) = install(
        &lab,
        r#"
# A file system of the disk.
works mount -t ext4 $device /mnt/a
echo hello >/mnt/a/file
works mount -o remount,ro /mnt/a
fails $b touch /mnt/a/other
works mount -o remount,rw /mnt/a
works $b touch /mnt/a/other
echo "mount: $($b awk '$5 == "/mnt/a" { print $6, $9 }' /proc/self/mountinfo)"
works mount --bind /mnt/a /mnt/b
echo "bound: $($b cat /mnt/b/file)"
works umount /mnt/b
works umount /mnt/a
# In memory, and over others.
works mount -t tmpfs tmpfs /mnt/a
$b mkdir /mnt/a/lower /mnt/a/upper /mnt/a/work
echo below >/mnt/a/lower/file
cd /mnt/a
works mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work /mnt/b
cd /
echo "overlay: $($b cat /mnt/b/file)"
works umount /mnt/b
works mount --move /mnt/a /mnt/c
echo "moved: $($b cat /mnt/c/lower/file)"
works umount -l /mnt/c
works mount -t devpts -o newinstance devpts /mnt/a
works umount /mnt/a
works mount -t mqueue mqueue /mnt/a
works umount /mnt/a
# Its own way of calling itself.
works mount -t tmpfs tmpfs /proc/self/cwd/mnt/a
works umount /proc/self/root/mnt/a
# The kernel's own.
works mount -t proc proc /mnt/a
echo "second proc: $($b cat /mnt/a/self/comm)"
works umount /mnt/a
works mount -t sysfs sysfs /mnt/a
echo "second sys: $($b ls /mnt/a/class/net)"
works umount /mnt/a
# A root with all that it needs, in a namespace of its own.
cat >/tmp/inside <<'END'
PATH=/usr/bin
b=/usr/bin/busybox
works() { "$@" 2>/tmp/why || echo "FAILED: $*: $($b cat /tmp/why)"; }
works mount --make-rprivate /
works mount --rbind /mnt/c /mnt/c
works mount -t proc proc /mnt/c/proc
works mount --rbind /dev /mnt/c/dev
works mount --rbind /sys /mnt/c/sys
works mount --rbind /run /mnt/c/run
works $b chroot /mnt/c /usr/bin/busybox sh -c '
    PATH=/usr/bin
    echo "inside: $(busybox cat /proc/self/comm) $(busybox ls /dev/null) $(busybox ls /sys/class/net)"
    mount -t tmpfs tmpfs /tmp && echo content >/tmp/file && umount /tmp && echo "inside: mounts"
    mount -t proc proc /proc && echo "inside: proc"
'
cd /mnt/c
works $b mkdir -p old
works $b pivot_root . old
works umount -l /old
echo "pivoted: $($b ls -d old)"
works umount -l /proc
END
$b mkdir -p /mnt/c/usr /mnt/c/proc /mnt/c/dev /mnt/c/sys /mnt/c/run /mnt/c/tmp /mnt/c/bin
works mount --bind /mnt/c /mnt/c
works mount --bind /usr /mnt/c/usr
works $b unshare -m sh /tmp/inside
api honest
"#,
    );
    let printed = printed(&ran);
    for line in &printed {
        let fine = ["FAILED", "WORKED", "ANOTHER WAY", "descriptor", "still"]
            .iter()
            .all(|word| !line.contains(word));
        assert!(fine, "{line} of {ran:#?}");
    }
    for expected in [
        "mount: rw,nodev,relatime /dev/loop",
        "bound: hello",
        "overlay: below",
        "moved: below",
        "second proc: busybox",
        "second sys: lo",
        "inside: busybox /dev/null lo",
        "inside: mounts",
        "inside: proc",
        "pivoted: old",
        "honest: over",
    ] {
        let there = printed.iter().any(|line| line.starts_with(expected));
        assert!(there, "{expected:?} is not in {printed:#?}");
    }
    assert_eq!(refused, [""; 0]);
}

#[test]
fn nonsense_and_crowds_do_no_harm() {
    let lab = Lab::new();
    let (ran, refused) = install(&lab, "api nonsense crowd honest");
    let expected = ["nonsense: over", "crowd: over", "honest: over"];
    assert_eq!(printed(&ran), expected, "{ran:#?}");
    assert_eq!(refused, ["call kexec_load", "mount debugfs on /mnt/n"]);
}

/// What is told of must be refused as well: what could be seen then is looked for in its own test.
#[test]
fn what_is_refused_is_told() {
    let lab = Lab::new();
    let other = LoopDisk::new(&lab.directory.path().join("other"), 64 << 20);
    output(Command::new("mkfs.ext4").arg("-q").arg(&other.device));
    let before = other.hash();
    let device = other.device.to_str().unwrap();
    let number = device.strip_prefix("/dev/loop").unwrap();
    let types = "debugfs tracefs securityfs binfmt_misc cgroup cgroup2 devtmpfs bpf pstore hugetlbfs fuse";
    let script = r#"
for type in TYPES; do fails mount -t $type none /mnt/a; done
fails mount -t ext4 DEVICE /mnt/a
fails mknod /tmp/node b 7 NUMBER
fails mount -t ext4 -o journal_dev=1793 $device /mnt/a
fails umount -l /
fails umount /proc/kallsyms
fails umount -l /proc/timer_list
fails $b mount --make-unbindable /proc/kallsyms
fails mount --move /proc/kallsyms /mnt/file
fails mount -o remount,rw /sys
fails mount -o remount,bind,rw /sys
api hostile
"#;
    let script = script
        .replace("TYPES", types)
        .replace("DEVICE", device)
        .replace("NUMBER", number);
    let (ran, refused) = install(&lab, &script);
    assert_eq!(
        printed(&ran),
        ["shown by a copy: -1", "hostile: over"],
        "{ran:#?}"
    );
    let expected = [
        format!("mount {device} on /mnt/a"),
        format!("make a node of the block device 7:{number} ({device})"),
        "unmount /".into(),
        "unmount /proc/kallsyms".into(),
        "unmount /proc/timer_list".into(),
        "make /proc/kallsyms unbindable".into(),
        "move the mount /proc/kallsyms".into(),
        "make /sys writable".into(),
        "change the file system /sys".into(),
    ];
    for what in types
        .split(' ')
        .map(|kind| format!("mount {kind} on /mnt/a"))
        .chain(expected)
    {
        assert!(
            refused.contains(&what),
            "{what} is not in {refused:#?} of {ran:#?}"
        );
        assert!(
            ran.stderr
                .contains(&format!("warning: the image tried to {what}: refused")),
            "{ran:#?}"
        );
    }
    assert_eq!(other.hash(), before);
}

/// `/proc/kallsyms` is covered, so it's empty.
#[test]
fn no_trick_shows_what_is_covered() {
    let lab = Lab::new();
    let (ran, _) = install(
        &lab,
        r#"
cat >/tmp/look <<'END'
b=/usr/bin/busybox
PATH=/usr/bin
look() { echo "$1: $($b wc -c <"$2") $($b wc -c <"$3")" 2>&1; }
END
try() { cat /tmp/look - >/tmp/trick; $b unshare -m sh /tmp/trick 2>/dev/null; }
try <<'END'
look plain /proc/kallsyms /proc/timer_list
END
try <<'END'
umount /proc/kallsyms; umount -l /proc/kallsyms; umount -l /proc/timer_list
look unmounted /proc/kallsyms /proc/timer_list
END
try <<'END'
mount --bind /proc /mnt/a
look bound /mnt/a/kallsyms /mnt/a/timer_list
END
try <<'END'
$b mount --make-unbindable /proc/kallsyms; $b mount --make-runbindable /
mount --rbind /proc /mnt/a
look unbindable /mnt/a/kallsyms /mnt/a/timer_list
END
try <<'END'
mount -t proc proc /mnt/a
look second /mnt/a/kallsyms /mnt/a/timer_list
cd /mnt/a
umount /mnt/a
look gone kallsyms timer_list
END
try <<'END'
cd /proc
umount -l /proc
look detached kallsyms timer_list
END
try <<'END'
mount --bind /mnt /mnt
mount -t proc proc /mnt/a
cd /mnt/a
umount -l /mnt
look with-parent kallsyms timer_list
END
try <<'END'
exec 3</proc
$b nsenter --mount=/proc/1/ns/mnt sh -c "cd /proc/self/fd/3; echo \"namespace ended: \$($b wc -c <kallsyms) \$($b wc -c <timer_list)\""
END
try <<'END'
$b unshare -m $b true
cd /proc/scsi && $b pivot_root . .
cd /
look pivoted /proc/kallsyms /proc/timer_list
END
try <<'END'
$b mkdir /mnt/c/x /mnt/c/old
mount --bind /mnt/c /mnt/c
mount --move /proc /mnt/c/x
$b cp $b /mnt/c/busybox; b=/busybox
cd /mnt/c; /usr/bin/busybox pivot_root . old
$b umount -l /old
look moved /x/kallsyms /x/timer_list
END
try <<'END'
$b mkdir -p /mnt/b/proc /mnt/b/p
$b touch /mnt/b/proc/kallsyms /mnt/b/proc/timer_list
$b cp $b /mnt/b/busybox
mount -t proc proc /mnt/b/p
exec 3</proc
$b chroot /mnt/b /busybox sh -c 'cd /p/self/fd/3; b=/busybox
for name in kallsyms timer_list; do $b umount -l $name; $b umount $name; done
echo "outside: $($b wc -c <kallsyms) $($b wc -c <timer_list)"'
END
"#,
    );
    let printed = printed(&ran);
    let tricks = [
        "plain",
        "unmounted",
        "bound",
        "unbindable",
        "second",
        "gone",
        "detached",
        "with-parent",
        "namespace ended",
        "pivoted",
        "moved",
        "outside",
    ];
    for trick in tricks {
        let seen = printed
            .iter()
            .find_map(|line| line.strip_prefix(trick)?.strip_prefix(": "));
        assert_eq!(seen, Some("0 0"), "{trick}: {ran:#?}");
    }
}
