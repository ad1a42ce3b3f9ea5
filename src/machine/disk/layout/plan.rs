//! The partition layout that bootc will make, computed before the disk is touched (bootc:
//! `install/baseline.rs`).
//!
//! The root partition is made to end exactly where the config drive's begins. Every number here is what
//! `sfdisk` will put on the disk, so that after the installation the table can be compared with it, sector by
//! sector.

use std::cmp::Reverse;
use std::fmt;

use serde::Serialize;
use uuid::{Uuid, uuid};

use super::request::{Arch, Backend, BlockSetup, BootcVersion, LayoutRequest};
use super::sfdisk::Sfdisk;
use crate::machine::disk::table::geometry::{Extent, Geometry, MIB};

/// The size of the config drive's partition in MiB, as Ironic has it.
pub const CONFIG_DRIVE_MIB: u64 = 64;

const BIOS_BOOT_MIB: u64 = 1;
const ESP_MIB: u64 = 512;
const COMPOSEFS_ESP_MIB: u64 = 1024;
const BOOT_MIB: u64 = 510;

const BIOS_BOOT_TYPE: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
const ESP_TYPE: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// "Linux filesystem data": bootc's `boot`, its `root` before 1.11, and the config drive.
pub const LINUX_TYPE: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Room for GRUB on machines with a BIOS.
    BiosBoot,
    /// The EFI system partition.
    Esp,
    /// `/boot`.
    Boot,
    /// The root file system, or LUKS with it inside.
    Root,
}

impl Role {
    /// The role that a partition's type says, where it says one.
    pub(in crate::machine::disk) fn of_type(type_guid: &Uuid) -> Option<Self> {
        match *type_guid {
            BIOS_BOOT_TYPE => Some(Self::BiosBoot),
            ESP_TYPE => Some(Self::Esp),
            other => Arch::of_root_type(other).map(|_| Self::Root),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its number, from 1.
    pub number: u32,
    pub role: Role,
    pub name: &'static str,
    pub type_guid: Uuid,
    pub extent: Extent,
}

/// The layout of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// The disk.
    pub geometry: Geometry,
    /// The machine.
    pub arch: Arch,
    /// What is on the root partition.
    pub block_setup: BlockSetup,
    /// The partitions that bootc makes, by number.
    pub partitions: Vec<Planned>,
    /// bootc's `--root-size`, in MiB.
    pub root_size_mib: u64,
    /// Where the config drive will be.
    pub config_drive: Option<Extent>,
}

/// Why there is no layout. Sizes are in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("the disk has sectors of {0} bytes; only 512 and 4096 are supported")]
    SectorSize(u64),
    #[error(
        "the disk has {disk_mib} MiB, but needs at least {needed} MiB: {fixed} MiB of boot partitions, a \
         root partition of {root} MiB{}", ConfigDriveClause(*config_drive)
    )]
    TooSmall {
        disk_mib: u64,
        needed: u64,
        fixed: u64,
        root: u64,
        config_drive: bool,
    },
    #[error("a root partition of {wanted} MiB is too small: the image needs at least {needed} MiB")]
    RootTooSmall { wanted: u64, needed: u64 },
}

struct ConfigDriveClause(bool);

impl fmt::Display for ConfigDriveClause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 {
            write!(out, " and a config drive of {CONFIG_DRIVE_MIB} MiB")
        } else {
            Ok(())
        }
    }
}

impl LayoutRequest {
    /// The partitions before root: role, name, type GUID, size in MiB.
    fn fixed(&self) -> Vec<(Role, &'static str, Uuid, u64)> {
        let mut partitions = Vec::with_capacity(3);
        if self.arch == Arch::X86_64 {
            partitions.push((Role::BiosBoot, "BIOS-BOOT", BIOS_BOOT_TYPE, BIOS_BOOT_MIB));
        }
        partitions.push((Role::Esp, "EFI-SYSTEM", ESP_TYPE, self.esp_mib()));
        if self.block_setup == BlockSetup::Tpm2Luks {
            partitions.push((Role::Boot, "boot", LINUX_TYPE, BOOT_MIB));
        }
        partitions
    }

    fn esp_mib(&self) -> u64 {
        match self.backend {
            Backend::Composefs if self.bootc >= BootcVersion::DISCOVERABLE => COMPOSEFS_ESP_MIB,
            _ => ESP_MIB,
        }
    }

    fn root_type(&self) -> Uuid {
        if self.bootc >= BootcVersion::DISCOVERABLE {
            self.arch.root_type()
        } else {
            LINUX_TYPE
        }
    }

    fn root_wanted_mib(&self) -> u64 {
        self.root_exactly_mib.unwrap_or(self.root_at_least_mib).max(1)
    }

    fn too_small(&self) -> LayoutError {
        let fixed = self.fixed().iter().map(|partition| partition.3).sum();
        let config_drive = if self.config_drive { CONFIG_DRIVE_MIB } else { 0 };
        let root = self.root_wanted_mib();
        // Whatever aligns, a grain before the first partition and one after the last are enough.
        let grain = Sfdisk::on(self.geometry)
            .map_or(MIB, |sfdisk| sfdisk.grain_bytes())
            .max(MIB)
            / MIB;
        LayoutError::TooSmall {
            disk_mib: self.geometry.size_bytes / MIB,
            needed: root.saturating_add(fixed + config_drive + 2 * grain),
            fixed,
            root,
            config_drive: self.config_drive,
        }
    }
}

impl Layout {
    /// Computes the layout for `request`.
    pub fn plan(request: &LayoutRequest) -> Result<Self, LayoutError> {
        let geometry = request.geometry;
        if !matches!(geometry.sector_bytes, 512 | 4096) {
            return Err(LayoutError::SectorSize(geometry.sector_bytes));
        }
        if let Some(wanted) = request.root_exactly_mib
            && wanted < request.root_at_least_mib
        {
            return Err(LayoutError::RootTooSmall {
                wanted,
                needed: request.root_at_least_mib,
            });
        }
        Self::fit(request).ok_or_else(|| request.too_small())
    }

    fn fit(request: &LayoutRequest) -> Option<Self> {
        let geometry = request.geometry;
        let sfdisk = Sfdisk::on(geometry)?;
        let config_drive = match request.config_drive {
            true => Some(config_drive_extent(&geometry, sfdisk.last_usable_lba)?),
            false => None,
        };
        let limit_lba = config_drive.map_or(sfdisk.last_usable_lba, |extent| extent.start_lba);
        let (extents, root_size_mib) = place_root(request, &sfdisk, limit_lba)?;
        let root = (Role::Root, "root", request.root_type(), root_size_mib);
        let partitions = request.fixed().into_iter().chain([root]).zip(extents).zip(1..);
        Some(Self {
            geometry,
            arch: request.arch,
            block_setup: request.block_setup,
            partitions: partitions
                .map(|(((role, name, type_guid, _), extent), number)| Planned {
                    number,
                    role,
                    name,
                    type_guid,
                    extent,
                })
                .collect(),
            root_size_mib,
            config_drive,
        })
    }

    /// The planned partition of a role.
    pub fn partition(&self, role: Role) -> Option<&Planned> {
        self.partitions.iter().find(|planned| planned.role == role)
    }
}

/// Finds the size of root that makes it end at `limit_lba` or as little as possible before: all extents, and
/// the size.
fn place_root(request: &LayoutRequest, sfdisk: &Sfdisk, limit_lba: u64) -> Option<(Vec<Extent>, u64)> {
    let fixed: Vec<u64> = request.fixed().iter().map(|partition| partition.3).collect();
    let mib = request.geometry.sectors_per_mib();
    let grain_mib = sfdisk.grain_bytes().div_ceil(MIB);
    let with_root = |root_mib: u64| {
        let extents = sfdisk.place(&[&fixed[..], &[root_mib]].concat())?;
        let root = *extents.last()?;
        (root.end_lba() <= limit_lba).then_some((extents, root, root_mib))
    };
    let wanted = request.root_wanted_mib();
    let (extents, root, _) = with_root(wanted)?;
    if request.root_exactly_mib.is_some() {
        // Rounded to the grain is as asked for; less than that is clamped.
        return ((root.sectors + mib * grain_mib / 2) / mib >= wanted).then_some((extents, wanted));
    }
    // With the usual grain of 1 MiB the largest size fits exactly; a larger grain rounds by half of it.
    let largest = limit_lba.saturating_sub(root.start_lba) / mib;
    (largest.saturating_sub(2 * grain_mib).max(wanted)..=largest)
        .filter_map(with_root)
        .max_by_key(|(_, root, size)| (root.sectors, Reverse(root.sectors.abs_diff(size * mib))))
        .filter(|(_, root, _)| root.sectors / mib >= request.root_at_least_mib)
        .map(|(extents, _, size)| (extents, size))
}

/// The last 64 MiB of the usable sectors, begun at a mebibyte (as `sgdisk --new=0:-64M` begins it).
pub fn config_drive_extent(geometry: &Geometry, last_usable_lba: u64) -> Option<Extent> {
    let mib = geometry.sectors_per_mib();
    let sectors = CONFIG_DRIVE_MIB * mib;
    let start_lba = (last_usable_lba + 1).checked_sub(sectors)? / mib * mib;
    Some(Extent { start_lba, sectors })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn request(size_bytes: u64, sector_bytes: u64) -> LayoutRequest {
        LayoutRequest {
            geometry: Geometry::plain(size_bytes, sector_bytes),
            arch: Arch::X86_64,
            backend: Backend::Ostree,
            block_setup: BlockSetup::Direct,
            bootc: BootcVersion::default(),
            config_drive: true,
            root_at_least_mib: 1024,
            root_exactly_mib: None,
        }
    }

    fn each_variant(mut check: impl FnMut(LayoutRequest)) {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for backend in [Backend::Ostree, Backend::Composefs] {
                for block_setup in [BlockSetup::Direct, BlockSetup::Tpm2Luks] {
                    for sector_bytes in [512, 4096] {
                        for config_drive in [false, true] {
                            let base = request(10 * GIB, sector_bytes);
                            check(LayoutRequest {
                                arch,
                                backend,
                                block_setup,
                                config_drive,
                                ..base
                            });
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_usual_layout() {
        let layout = Layout::plan(&request(12 * GIB, 512)).unwrap();
        let table: Vec<_> = layout
            .partitions
            .iter()
            .map(|planned| {
                (
                    planned.number,
                    planned.name,
                    planned.extent.start_lba,
                    planned.extent.sectors,
                )
            })
            .collect();
        assert_eq!(
            table,
            [
                (1, "BIOS-BOOT", 2048, 2048),
                (2, "EFI-SYSTEM", 4096, 1_048_576),
                (3, "root", 1_052_672, 23_980_032)
            ]
        );
        assert_eq!(layout.root_size_mib, 12 * 1024 - 514 - 64 - 1);
        assert_eq!(
            layout.config_drive,
            Some(Extent {
                start_lba: 25_032_704,
                sectors: 131_072
            })
        );
    }

    #[test]
    fn root_ends_where_the_config_drive_begins_and_at_the_last_whole_mebibyte_without_one() {
        each_variant(|request| {
            let layout = Layout::plan(&request).unwrap();
            let root = layout.partition(Role::Root).unwrap().extent;
            let mib = request.geometry.sectors_per_mib();
            assert_eq!(root.sectors, layout.root_size_mib * mib);
            let end = layout
                .config_drive
                .map_or(10 * 1024 * mib - mib, |extent| extent.start_lba);
            assert_eq!(root.end_lba(), end, "{request:?}");
        });
    }

    #[test]
    fn the_smallest_disk_is_as_the_error_says() {
        each_variant(|request| {
            let LayoutError::TooSmall { needed, .. } = Layout::plan(&LayoutRequest {
                geometry: Geometry::plain(100 * MIB, request.geometry.sector_bytes),
                ..request
            })
            .unwrap_err() else {
                panic!("{request:?}")
            };
            let with_disk = |size| LayoutRequest {
                geometry: Geometry::plain(size, request.geometry.sector_bytes),
                ..request
            };
            assert!(Layout::plan(&with_disk(needed * MIB)).is_ok(), "{request:?}");
            assert!(
                Layout::plan(&with_disk((needed - 1) * MIB)).is_err(),
                "{request:?}"
            );
        });
    }

    #[test]
    fn a_given_root_size_is_kept_or_refused_and_never_clamped() {
        let exactly = |size| {
            let request = LayoutRequest {
                root_exactly_mib: Some(size),
                ..request(4 * GIB, 512)
            };
            Layout::plan(&request).map(|layout| layout.root_size_mib)
        };
        let most = 4096 - 514 - 64 - 1;
        assert_eq!(exactly(1500), Ok(1500));
        assert_eq!(exactly(most), Ok(most));
        assert!(matches!(exactly(most + 1), Err(LayoutError::TooSmall { root, .. }) if root == most + 1));
        assert!(exactly(u64::MAX).is_err());
        assert_eq!(
            exactly(1023),
            Err(LayoutError::RootTooSmall {
                wanted: 1023,
                needed: 1024
            })
        );
    }

    #[test]
    fn older_bootc_makes_smaller_esps_and_plain_roots() {
        let composefs = LayoutRequest {
            backend: Backend::Composefs,
            ..request(10 * GIB, 512)
        };
        let esp = |bootc| {
            let layout = Layout::plan(&LayoutRequest { bootc, ..composefs }).unwrap();
            let root_is_linux = layout.partition(Role::Root).unwrap().type_guid == LINUX_TYPE;
            (
                layout.partition(Role::Esp).unwrap().extent.sectors / 2048,
                root_is_linux,
            )
        };
        assert_eq!(esp(BootcVersion(1, 10)), (512, true));
        assert_eq!(esp(BootcVersion(1, 11)), (1024, false));
    }

    #[test]
    fn a_large_grain_never_reaches_into_the_config_drive() {
        for grain in [3 * MIB / 2, 2 * MIB, 4 * MIB, 7 * MIB, 33_553_920] {
            let geometry = Geometry {
                optimal_io_bytes: grain,
                ..Geometry::plain(8 * GIB + 12_345, 512)
            };
            let layout = Layout::plan(&LayoutRequest {
                geometry,
                ..request(0, 512)
            })
            .unwrap();
            let gap = layout.config_drive.unwrap().start_lba
                - layout.partition(Role::Root).unwrap().extent.end_lba();
            assert!(gap * 512 < grain.max(MIB), "grain {grain} leaves {gap} sectors");
        }
    }

    #[test]
    fn strange_disks_are_errors() {
        assert_eq!(
            Layout::plan(&request(10 * GIB, 520)),
            Err(LayoutError::SectorSize(520))
        );
        for size in [0, 512, MIB, 600 * MIB] {
            assert!(
                matches!(
                    Layout::plan(&request(size, 512)),
                    Err(LayoutError::TooSmall { .. })
                ),
                "{size}"
            );
        }
    }
}
