//! The file of a kernel module: read, inflated if need be, and handed to the kernel.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel inflates the file itself (since Linux 5.17, if so configured).
const COMPRESSED_FILE: u32 = 4;

/// No module is larger than this once inflated; the largest known has some 30 MB.
const LIMIT_BYTES: u64 = 256 << 20;

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("open({})", path.display()))?;
    let mut content = Vec::new();
    let mut inflated: Box<dyn Read> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).context("starting zstd")?),
        Some("xz") => Box::new(lzma_rust2::XzReader::new(file, true)),
        _ => Box::new(file),
    };
    inflated
        .by_ref()
        .take(LIMIT_BYTES + 1)
        .read_to_end(&mut content)
        .with_context(|| format!("reading {}", path.display()))?;
    if content.len() as u64 > LIMIT_BYTES {
        bail!(
            "{} is larger than {LIMIT_BYTES} bytes: not a kernel module",
            path.display()
        );
    }
    Ok(content)
}

/// Loads the module in the file at `path`; one that is loaded already is fine.
pub(super) fn load(path: &Path, parameters: &str) -> Result<()> {
    let words = CString::new(parameters).context("a module's parameters hold no NUL")?;
    let outcome = match hand_over(path, &words)? {
        // This kernel can't inflate this file.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOEXEC | Errno::ENOSYS) if is_compressed(path) => {
            init_module(&read(path)?, &words)
        }
        outcome => outcome,
    };
    match outcome {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("finit_module({}, {parameters:?})", path.display())),
    }
}

fn hand_over(path: &Path, words: &CString) -> Result<Result<(), Errno>> {
    let file = File::open(path).with_context(|| format!("open({})", path.display()))?;
    let bits = if is_compressed(path) { COMPRESSED_FILE } else { 0 };
    let flags = ModuleInitFlags::from_bits_retain(bits);
    Ok(finit_module(file, words, flags))
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending != "ko")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    const CONTENT: &[u8] = b"a module's bytes, a module's bytes, a module's bytes";

    fn xz(content: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("m"), content).unwrap();
        // As the kernel's build and Fedora's do it.
        let arguments = ["--check=crc32", "--x86", "--lzma2=dict=1MiB", "--stdout"];
        let output = Command::new("xz")
            .args(arguments)
            .arg(dir.path().join("m"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "xz: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    #[test]
    fn every_form_is_inflated() {
        let dir = tempfile::tempdir().unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(CONTENT).unwrap();
        for (name, bytes) in [
            ("m.ko", CONTENT.to_vec()),
            ("m.ko.gz", gz.finish().unwrap()),
            ("m.ko.zst", zstd::encode_all(CONTENT, 0).unwrap()),
            ("m.ko.xz", xz(CONTENT)),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap(), CONTENT, "{name}");
            if name != "m.ko" {
                std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                assert!(read(&path).is_err(), "{name}, cut");
            }
        }
    }
}
