//! Decodes the given config drive to its bytes: raw, gzip, base64, base64 of gzip as Ironic sends it, or
//! Ironic's JSON.
//!
//! What comes out is a file system that readers find: ISO 9660 or FAT, labelled `config-2`, at most 64 MiB.

use std::io::{Cursor, Read};

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use flate2::bufread::MultiGzDecoder;

use super::error::ConfigDriveError;
use super::form::{Encoding, Kind, LABEL, MAX_BYTES, MAX_INPUT_BYTES};
use super::secret::Secret;
use crate::machine::filesystem::fat::Volume;
use crate::machine::filesystem::{identify, iso9660};

/// Padding may be missing; the rest is strict.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A config drive, ready to be written.
///
/// It has no `Debug`, and its memory is wiped: it may hold secrets.
pub struct ConfigDrive {
    content: Secret,
    kind: Kind,
    label: String,
    encoding: Encoding,
    sector_bytes: u64,
}

impl ConfigDrive {
    /// Reads and unpacks what `source` gives, up to its end.
    pub fn read(mut source: impl Read) -> Result<Self, ConfigDriveError> {
        let mut input = Secret::with_limit(MAX_INPUT_BYTES);
        if !input.fill(&mut source)? {
            return Err(ConfigDriveError::TooLarge);
        }
        if input.is_empty() {
            return Err(ConfigDriveError::Empty);
        }
        // Neither base64 nor a file system begins like this.
        if input.trim_ascii_start().starts_with(b"{") {
            return Self::from_json(&input);
        }
        let (encoding, content) = unpack(input)?;
        if content.len() as u64 > MAX_BYTES {
            return Err(ConfigDriveError::TooLarge);
        }
        Self::recognise(content, encoding)
    }

    pub(super) fn recognise(content: Secret, encoding: Encoding) -> Result<Self, ConfigDriveError> {
        let mut reader = Cursor::new(&content[..]);
        let found = identify(&mut reader, content.len() as u64)?;
        let known = found.iter().find_map(|signature| match signature.kind {
            "iso9660" => Some((Kind::Iso9660, signature)),
            "vfat" => Some((Kind::Vfat, signature)),
            _ => None,
        });
        let Some((kind, signature)) = known else {
            let found = found.first().map_or("no known file system", |other| other.kind);
            return Err(ConfigDriveError::Unknown { found: found.into() });
        };
        let label = signature.label.clone().unwrap_or_default();
        if !label.eq_ignore_ascii_case(LABEL) {
            let found = if label.is_empty() {
                "nothing".into()
            } else {
                format!("\"{}\"", label.escape_debug())
            };
            return Err(ConfigDriveError::Label { found });
        }
        let sector_bytes = match kind {
            Kind::Iso9660 => iso9660::SECTOR_BYTES,
            Kind::Vfat => Volume::open(&mut reader).map_or(512, |volume| volume.sector_bytes()),
        };
        Ok(Self {
            content,
            kind,
            label,
            encoding,
            sector_bytes,
        })
    }

    /// The bytes of the file system. They may hold secrets.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.content.len() as u64
    }

    /// The file system.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The label: `config-2`, or `CONFIG-2` of what others made.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How it was packed.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// An error when a disk with sectors of `disk` bytes can't hold this file system: no kernel would mount
    /// it there.
    pub fn check_sector_bytes(&self, disk: u64) -> Result<(), ConfigDriveError> {
        if disk <= self.sector_bytes {
            return Ok(());
        }
        Err(ConfigDriveError::Sectors {
            kind: self.kind,
            drive: self.sector_bytes,
            disk,
        })
    }
}

fn unpack(input: Secret) -> Result<(Encoding, Secret), ConfigDriveError> {
    if is_gzip(&input) {
        return Ok((Encoding::Gzip, inflate(&input)?));
    }
    if !is_base64(&input) {
        return Ok((Encoding::Raw, input));
    }
    let decoded = decode_base64(input)?;
    if is_gzip(&decoded) {
        return Ok((Encoding::Base64Gzip, inflate(&decoded)?));
    }
    Ok((Encoding::Base64, decoded))
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Whether these bytes can be base64. A file system can't: it has zeros in it.
fn is_base64(bytes: &[u8]) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    bytes
        .iter()
        .all(|byte| is_digit(*byte) || byte.is_ascii_whitespace())
}

fn inflate(packed: &[u8]) -> Result<Secret, ConfigDriveError> {
    let mut content = Secret::with_limit(MAX_BYTES);
    match content.fill(&mut MultiGzDecoder::new(packed)) {
        Ok(true) => Ok(content),
        Ok(false) => Err(ConfigDriveError::TooLarge),
        Err(error) => Err(ConfigDriveError::Damaged {
            encoding: "gzip",
            problem: error.to_string(),
        }),
    }
}

fn decode_base64(mut text: Secret) -> Result<Secret, ConfigDriveError> {
    text.retain(|byte| !byte.is_ascii_whitespace());
    let decoded = BASE64.decode(&text[..]).map(Secret::from);
    decoded.map_err(|error| ConfigDriveError::Damaged {
        encoding: "base64",
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};

    fn iso(label: &str) -> Vec<u8> {
        let mut image = vec![0; 40_960];
        image[0x8000..0x8006].copy_from_slice(b"\x01CD001");
        image[0x8028..0x8048].fill(b' ');
        image[0x8028..0x8028 + label.len()].copy_from_slice(label.as_bytes());
        image
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn base64_lines(bytes: &[u8]) -> Vec<u8> {
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        text.as_bytes()
            .chunks(76)
            .flat_map(|line| [line, b"\r\n"].concat())
            .collect()
    }

    fn error(input: &[u8]) -> String {
        ConfigDrive::read(input).err().expect("an error").to_string()
    }

    #[test]
    fn each_packing_gives_the_same_drive() {
        let image = iso("config-2");
        let unpadded = base64_lines(&gzip(&image))
            .into_iter()
            .filter(|byte| *byte != b'=')
            .collect();
        let cases = [
            (Encoding::Raw, image.clone()),
            (Encoding::Gzip, gzip(&image)),
            (
                Encoding::Gzip,
                [gzip(&image[..100]), gzip(&image[100..])].concat(),
            ),
            (Encoding::Base64, base64_lines(&image)),
            (Encoding::Base64Gzip, base64_lines(&gzip(&image))),
            (Encoding::Base64Gzip, unpadded),
        ];
        for (encoding, input) in cases {
            let drive = ConfigDrive::read(&input[..]).unwrap_or_else(|error| panic!("{encoding:?}: {error}"));
            assert_eq!(drive.encoding(), encoding);
            assert_eq!((drive.kind(), drive.label()), (Kind::Iso9660, "config-2"));
            assert!(drive.content() == image, "{encoding:?}");
        }
    }

    #[test]
    fn labels_in_any_case_but_no_others() {
        assert!(ConfigDrive::read(&iso("CONFIG-2")[..]).is_ok());
        assert_eq!(
            error(&iso("cidata")),
            "the config drive is labelled \"cidata\"; readers look for \"config-2\""
        );
        assert_eq!(
            error(&iso("")),
            "the config drive is labelled nothing; readers look for \"config-2\""
        );
        assert!(error(&iso("config-2x")).contains("\"config-2x\""));
    }

    #[test]
    fn what_is_no_config_drive_is_said_plainly() {
        assert_eq!(error(b""), "the config drive is empty");
        assert!(error(b"<html>not found</html>").contains("no known file system"));
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        assert!(error(&xfs).contains("holds xfs"));
        let packed = gzip(&iso("config-2"));
        assert!(error(&packed[..packed.len() - 5]).contains("damaged gzip"));
        assert!(error(b"AAAAA").contains("damaged base64"));
        assert!(error(b"AA=A").contains("damaged base64"));
    }

    #[test]
    fn the_size_is_bounded_before_and_after_unpacking() {
        let mut largest = iso("config-2");
        largest.resize(MAX_BYTES as usize, 0);
        assert!(ConfigDrive::read(&largest[..]).is_ok());
        assert!(ConfigDrive::read(&gzip(&largest)[..]).is_ok());
        largest.push(0);
        let too_large = "the config drive is larger than 64 MiB, the size of its partition";
        assert_eq!(error(&largest), too_large);
        assert_eq!(error(&gzip(&largest)), too_large);
        assert_eq!(error(&base64_lines(&gzip(&largest))), too_large);
        let endless = ConfigDrive::read(io::repeat(b'A'));
        assert_eq!(endless.err().unwrap().to_string(), too_large);
    }

    #[test]
    fn a_disk_with_large_sectors_holds_no_iso() {
        let drive = ConfigDrive::read(&iso("config-2")[..]).unwrap_or_else(|error| panic!("{error}"));
        assert!(drive.check_sector_bytes(512).is_ok());
        assert!(drive.check_sector_bytes(4096).is_err());
    }
}
