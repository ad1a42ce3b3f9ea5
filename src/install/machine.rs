//! What the machine must have for one kind of installation. Without it bootc fails after it has wiped the
//! disk.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::machine::disk::chosen;
use crate::machine::disk::layout::{Backend, BlockSetup};
use crate::machine::kernel;
use crate::machine::kernel::modules::{self, Loader};

const TPMS: &str = "/sys/class/tpm";

/// The function by which Linux reads a GUID Partition Table.
const GPT_FUNCTION: &str = "efi_partition";

/// Refuses a kernel that lacks what every installation needs. Gives what could not be found out.
pub fn check_kernel() -> Result<Option<String>> {
    kernel::need_filesystem("vfat")?;
    // Where the kernel shows it, no trial disk is needed.
    if kernel::has_function(GPT_FUNCTION).unwrap_or(false) {
        return Ok(None);
    }
    let _ = modules::load(&["loop"]);
    match chosen::kernel_reads_gpt() {
        Ok(true) => Ok(None),
        Ok(false) => bail!(
            "this kernel does not read GUID Partition Tables, which bootc needs: use a kernel with \
             CONFIG_EFI_PARTITION"
        ),
        Err(error) => Ok(Some(format!(
            "whether this kernel reads GUID Partition Tables ({error:#})"
        ))),
    }
}

/// Refuses a machine that lacks something.
pub fn check(block_setup: BlockSetup, backend: Backend) -> Result<()> {
    if block_setup == BlockSetup::Tpm2Luks {
        check_tpm(Path::new(TPMS))?;
        // Where there are no modules, it is unknown what is built in.
        if let Ok(mut loader) = Loader::open() {
            loader
                .load("dm_crypt")
                .context("this kernel cannot encrypt disks: add the module dm_crypt to the ramdisk")?;
        }
    }
    if backend == Backend::Composefs {
        kernel::need_filesystem("erofs")?;
    }
    Ok(())
}

/// `tpms` is where the kernel lists them.
fn check_tpm(tpms: &Path) -> Result<()> {
    let version = |tpm: fs::DirEntry| fs::read_to_string(tpm.path().join("tpm_version_major")).ok();
    let tpms = fs::read_dir(tpms).into_iter().flatten().flatten();
    if tpms.filter_map(version).any(|version| version.trim() == "2") {
        return Ok(());
    }
    bail!(
        "--block-setup tpm2-luks needs a TPM 2.0, and this machine shows none: enable it in the firmware's \
         settings, and check that the ramdisk has its driver (tpm_crb or tpm_tis)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tpm_of_version_2_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let tpms = directory.path();
        assert!(check_tpm(&tpms.join("none")).is_err());
        for (name, version, enough) in [("tpm0", "1\n", false), ("tpm1", "2\n", true)] {
            fs::create_dir(tpms.join(name)).unwrap();
            fs::write(tpms.join(name).join("tpm_version_major"), version).unwrap();
            assert_eq!(check_tpm(tpms).is_ok(), enough, "{version}");
        }
    }
}
