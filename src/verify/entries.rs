//! Boot entries (UAPI.1 Boot Loader Specification, and bootc's menu for GRUB): the files that they name must
//! exist, and one of the entries is what boots.

use std::fmt::Display;
use std::io::{Cursor, Read, Seek};

use super::check::Outcome;
use super::order::Key;
use crate::bootc::uki;
use crate::console::text::printable;
use crate::image::rootfs::Rootfs;
use crate::machine::disk::installed::BootPath;
use crate::machine::disk::layout::Arch;
use crate::machine::filesystem::FilesystemError;
use crate::machine::filesystem::fat::Volume;

const MAX_ENTRY_BYTES: u64 = 64 << 10;
const MAX_ENTRIES: usize = 128;
/// Enough for the section table of an EFI program.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// Boot entries that were looked at.
#[derive(Default)]
pub(super) struct Entries {
    found: Vec<String>,
    broken: Vec<String>,
    unread: Vec<String>,
    all: Vec<(Reader, Entry)>,
}

/// Who reads an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    SystemdBoot,
    /// GRUB, in the menu that bootc writes.
    GrubMenu,
    /// GRUB, in entries of the Boot Loader Specification.
    Grub,
    /// The firmware or systemd-boot, which need none for a unified kernel image.
    Itself,
}

/// What a boot entry says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    name: String,
    /// The files that it needs, as it writes them.
    pub(super) files: Vec<String>,
    /// The link to the deployment that ostree is to start.
    pub(super) ostree: Option<String>,
    /// The deployment of bootc's composefs backend.
    pub(super) composefs: Option<String>,
    sort_key: Option<String>,
    machine_id: Option<String>,
    version: Option<String>,
}

impl Entry {
    fn parse(name: &str, text: &str) -> Self {
        let mut entry = Self {
            name: name.into(),
            ..Self::default()
        };
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once(char::is_whitespace) else {
                continue;
            };
            let value = value.trim();
            match key {
                "linux" | "initrd" | "efi" | "uki" | "devicetree" => entry.files.push(value.into()),
                "options" => entry.parse_options(value),
                "sort-key" => entry.sort_key = Some(value.into()),
                "machine-id" => entry.machine_id = Some(value.into()),
                "version" => entry.version = Some(value.into()),
                _ => {}
            }
        }
        entry
    }

    fn parse_options(&mut self, options: &str) {
        for word in options.split_ascii_whitespace() {
            if let Some(link) = word.strip_prefix("ostree=") {
                self.ostree = Some(link.into());
            } else if let Some(deployment) = word.strip_prefix("composefs=") {
                self.composefs = Some(deployment.into());
            }
        }
    }

    /// The programs that a menu of GRUB hands over to, in its order.
    fn parse_menu(text: &str) -> Vec<Self> {
        let program = |line: &str| {
            let (command, path) = line.trim().split_once(char::is_whitespace)?;
            (command == "chainloader").then(|| Self::of_program("user.cfg", path.trim()))
        };
        text.lines().filter_map(program).collect()
    }

    fn of_program(name: &str, path: &str) -> Self {
        Self {
            name: name.into(),
            files: vec![path.into()],
            ..Self::default()
        }
    }

    fn key(&self) -> Key<'_> {
        Key {
            name: self.name.trim_end_matches(".conf"),
            sort_key: self.sort_key.as_deref(),
            machine_id: self.machine_id.as_deref(),
            version: self.version.as_deref(),
        }
    }
}

impl Entries {
    /// Notes a place that may have entries but could not be read.
    pub(super) fn cannot_read(&mut self, place: &str, why: &dyn Display) {
        self.unread.push(format!("{place}: {why}"));
    }

    /// Looks at the entries on an EFI system partition: those of systemd-boot, and unified kernel images.
    pub(super) fn add_esp<D: Read + Seek>(&mut self, esp: &mut Volume<D>) {
        if let Err(error) = self.try_esp(esp) {
            self.cannot_read("the EFI system partition", &error);
        }
    }

    fn try_esp<D: Read + Seek>(&mut self, esp: &mut Volume<D>) -> Result<(), FilesystemError> {
        for file in esp.list("loader/entries")?.into_iter().take(MAX_ENTRIES) {
            if !file.name.to_lowercase().ends_with(".conf") {
                continue;
            }
            let text = esp.read(&file, MAX_ENTRY_BYTES)?;
            let entry = Entry::parse(&file.name, &String::from_utf8_lossy(&text));
            let missing = missing_on(esp, &entry)?;
            self.note(Reader::SystemdBoot, entry, &missing);
        }
        let mut programs = esp.list("EFI/Linux")?;
        // bootc's own directory, where systemd-boot doesn't look by itself.
        programs.extend(esp.list("EFI/Linux/bootc")?);
        for file in programs.into_iter().take(MAX_ENTRIES) {
            if !file.is_directory && file.name.to_lowercase().ends_with(".efi") {
                let entry = Entry::of_program(&file.name, &file.name);
                let is_program = esp.read(&file, 2)? == b"MZ";
                let missing = if is_program { &[][..] } else { &[file.name] };
                self.note(Reader::Itself, entry, missing);
            }
        }
        self.try_fallback(esp)
    }

    /// A unified kernel image in the place of a boot loader needs no entry.
    fn try_fallback<D: Read + Seek>(&mut self, esp: &mut Volume<D>) -> Result<(), FilesystemError> {
        for path in [Arch::X86_64, Arch::Aarch64].map(Arch::fallback_loader) {
            if let Some(file) = esp.find(path)?
                && uki::is_unified(Cursor::new(esp.read(&file, MAX_HEADER_BYTES)?))
            {
                self.note(Reader::Itself, Entry::of_program(path, path), &[]);
            }
        }
        Ok(())
    }

    /// Looks at the entries in the `boot` of a root file system: those that ostree writes for GRUB.
    pub(super) fn add_root(&mut self, root: &Rootfs) {
        self.add_directory(root, "boot/loader/entries", true);
    }

    /// Looks at the entries of a `/boot` that is a file system of its own.
    pub(super) fn add_boot(&mut self, boot: &Rootfs) {
        self.add_directory(boot, "loader/entries", false);
    }

    fn add_directory(&mut self, root: &Rootfs, directory: &str, has_deployments: bool) {
        let names = root.list(directory).unwrap_or_else(|error| {
            self.cannot_read(directory, &format!("{error:#}"));
            Vec::new()
        });
        for name in names {
            let name = name.to_string_lossy().into_owned();
            if !name.ends_with(".conf") {
                continue;
            }
            if let Err(error) = self.try_file(root, directory, &name, has_deployments) {
                self.cannot_read(&printable(&name), &format!("{error:#}"));
            }
        }
    }

    fn try_file(
        &mut self,
        root: &Rootfs,
        directory: &str,
        name: &str,
        has_deployments: bool,
    ) -> anyhow::Result<()> {
        let Some(text) = root.read_if_there(&format!("{directory}/{name}"), MAX_ENTRY_BYTES)? else {
            self.broken.push(format!("{} is a broken link", printable(name)));
            return Ok(());
        };
        let entry = Entry::parse(name, &String::from_utf8_lossy(&text));
        let missing = missing_in(root, &entry, has_deployments)?;
        self.note(Reader::Grub, entry, &missing);
        Ok(())
    }

    /// Looks at the menu that bootc writes for GRUB in `boot` if the image boots a unified kernel image.
    pub(super) fn add_menu<D: Read + Seek>(&mut self, root: &Rootfs, boot: &str, esp: &mut Volume<D>) {
        let menu = format!("{boot}/grub2/user.cfg");
        let text = match root.read_if_there(&menu, MAX_ENTRY_BYTES) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => return self.cannot_read(&menu, &format!("{error:#}")),
        };
        for entry in Entry::parse_menu(&String::from_utf8_lossy(&text)) {
            match missing_on(esp, &entry) {
                Ok(missing) => self.note(Reader::GrubMenu, entry, &missing),
                Err(error) => self.cannot_read("the EFI system partition", &error),
            }
        }
    }

    fn note(&mut self, reader: Reader, entry: Entry, missing: &[String]) {
        let name = printable(&entry.name);
        if entry.files.is_empty() {
            self.broken.push(format!("{name} names no kernel"));
        } else if !missing.is_empty() {
            let missing = printable(&missing.join(", "));
            let broken = format!("{name} needs {missing}, which is missing");
            self.broken.push(broken);
        } else if !self.found.contains(&name) {
            self.found.push(name);
        }
        self.all.push((reader, entry));
    }

    /// The entry that boots by default, as far as that can be told.
    pub(super) fn first(&self) -> Option<&Entry> {
        let of = |reader| {
            let read = self.all.iter().filter(move |(each, _)| *each == reader);
            read.map(|(_, entry)| entry)
        };
        let by_systemd_boot = of(Reader::SystemdBoot).min_by_key(|entry| entry.key().for_systemd_boot());
        let by_grub = || of(Reader::Grub).min_by_key(|entry| entry.key().for_grub());
        let only = || {
            let mut images = of(Reader::Itself);
            images.next().filter(|_| images.next().is_none())
        };
        by_systemd_boot
            .or_else(|| of(Reader::GrubMenu).next())
            .or_else(by_grub)
            .or_else(only)
    }

    /// How it went with all of them on a disk that is to boot by `boot`.
    pub(super) fn outcome(&self, boot: BootPath) -> Outcome {
        if !self.broken.is_empty() {
            Outcome::Failed(self.broken.join("; "))
        } else if !self.unread.is_empty() {
            Outcome::NotChecked(self.unread.join("; "))
        } else if !self.found.is_empty() {
            Outcome::Passed(format!("the files of {} are there", self.found.join(", ")))
        } else if boot == BootPath::Foreign {
            Outcome::NotChecked("there are no known entries".into())
        } else {
            Outcome::Failed(
                "there are none (no Boot Loader Specification file, GRUB menu by bootc or unified kernel \
                 image): the boot loader has nothing to start; install again"
                    .into(),
            )
        }
    }
}

/// Paths are relative to the EFI system partition.
fn missing_on<D: Read + Seek>(esp: &mut Volume<D>, entry: &Entry) -> Result<Vec<String>, FilesystemError> {
    let mut missing = Vec::new();
    for path in &entry.files {
        let found = esp.find(path)?;
        if found.is_none_or(|found| found.is_directory || found.size_bytes == 0) {
            missing.push(path.clone());
        }
    }
    Ok(missing)
}

/// Paths are relative to the file system with the entries, which is that of `/boot`: the root or one of its
/// own.
fn missing_in(root: &Rootfs, entry: &Entry, has_deployments: bool) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    let deployment = entry.ostree.as_ref().filter(|_| has_deployments);
    for needed in entry.files.iter().chain(deployment) {
        let path = needed.trim_start_matches('/');
        if !root.exists(path)? && !root.exists(&format!("boot/{path}"))? {
            missing.push(needed.clone());
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const OSTREE: &str = "title Fedora Linux 42 (ostree:0)\nversion 1\noptions root=UUID=1 rw \
        ostree=/ostree/boot.1/default/ab/0 quiet\nlinux /boot/ostree/default-ab/vmlinuz-6.12\n\
        initrd /boot/ostree/default-ab/initramfs-6.12.img\n";

    #[test]
    fn entries_are_read_as_the_specification_has_them() {
        let entry = Entry::parse(
            "a.conf",
            "# a comment\ntitle x\nlinux   /a\ninitrd\t/b\ninitrd /c \noptions quiet\nbroken\n",
        );
        assert_eq!((entry.files.join(" ").as_str(), entry.ostree), ("/a /b /c", None));
        let entry = Entry::parse("ostree-1.conf", OSTREE);
        assert_eq!(entry.ostree.as_deref(), Some("/ostree/boot.1/default/ab/0"));
        assert_eq!(entry.version.as_deref(), Some("1"));
        assert_eq!(entry.files.len(), 2);
    }

    #[test]
    fn menus_of_grub_are_read_as_bootc_writes_them() {
        let menu = "if [ -f ${config_directory}/efiuuid.cfg ]; then\n    source ${config_directory}/efiuuid.cfg\nfi\n\
            menuentry \"Fedora 43: (ab)\" {\ninsmod fat\ninsmod chain\n\
            search --no-floppy --set=root --fs-uuid \"${EFI_PART_UUID}\"\n\
            chainloader /EFI/Linux/bootc/bootc_composefs-ab.efi\n}\n";
        let entries = Entry::parse_menu(menu);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].files, ["/EFI/Linux/bootc/bootc_composefs-ab.efi"]);
        assert_eq!(Entry::parse_menu("set superusers=\"root\"\n"), []);
    }

    #[test]
    fn what_an_entry_of_ostree_names_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let outcome = || {
            let mut entries = Entries::default();
            entries.add_root(&Rootfs::open(directory.path()).unwrap());
            entries.outcome(BootPath::Loader)
        };
        assert!(matches!(outcome(), Outcome::Failed(why) if why.starts_with("there are none")));
        assert!(matches!(
            Entries::default().outcome(BootPath::Foreign),
            Outcome::NotChecked(_)
        ));
        write("boot/loader.1/entries/ostree-1.conf", OSTREE);
        std::os::unix::fs::symlink("loader.1", directory.path().join("boot/loader")).unwrap();
        write("boot/ostree/default-ab/vmlinuz-6.12", "kernel");
        write("boot/ostree/default-ab/initramfs-6.12.img", "initramfs");
        let expected = "ostree-1.conf needs /ostree/boot.1/default/ab/0, which is missing";
        assert_eq!(outcome(), Outcome::Failed(expected.into()));
        write("ostree/deploy/default/deploy/cd.0/usr/os-release", "");
        fs::create_dir_all(directory.path().join("ostree/boot.1/default/ab")).unwrap();
        let link = directory.path().join("ostree/boot.1/default/ab/0");
        std::os::unix::fs::symlink("../../../deploy/default/deploy/cd.0", link).unwrap();
        assert_eq!(
            outcome(),
            Outcome::Passed("the files of ostree-1.conf are there".into())
        );
        fs::remove_file(directory.path().join("boot/ostree/default-ab/vmlinuz-6.12")).unwrap();
        assert!(matches!(outcome(), Outcome::Failed(why) if why.contains("vmlinuz-6.12")));
    }
}
