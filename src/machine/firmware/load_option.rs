//! Boot entries as the firmware keeps them: `EFI_LOAD_OPTION` (UEFI 2.10, 3.1.3) and the device paths in them
//! (10.3).

use uuid::Uuid;

const ACTIVE: u32 = 1;
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const END: [u8; 4] = [0x7f, 0xff, 4, 0];
/// The signature is that of a GPT partition.
const SIGNATURE_GUID: u8 = 2;

const DESCRIPTION: &str = "Installed by Landfall";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    attributes: u32,
    description: String,
    /// Device path nodes: type, subtype, content.
    path: Vec<(u8, u8, Vec<u8>)>,
    /// What the entry's program gets to know.
    data: Vec<u8>,
}

/// A program on an EFI system partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspPath {
    /// The partition's number.
    pub partition_number: u32,
    /// Its own GUID.
    pub partition_uuid: Uuid,
    /// Its first sector.
    pub start_lba: u64,
    /// How many sectors it has.
    pub sectors: u64,
    /// The path on it, with `/` between the names.
    pub path: String,
}

impl EspPath {
    /// A boot entry for the program.
    pub fn load_option(&self) -> LoadOption {
        let mut drive = Vec::with_capacity(38);
        drive.extend(self.partition_number.to_le_bytes());
        drive.extend(self.start_lba.to_le_bytes());
        drive.extend(self.sectors.to_le_bytes());
        drive.extend(self.partition_uuid.to_bytes_le());
        // The table is a GPT, and what identifies the partition is a GUID.
        drive.extend([2, SIGNATURE_GUID]);
        let path = format!("\\{}\0", self.path.trim_start_matches('/').replace('/', "\\"));
        LoadOption {
            attributes: ACTIVE,
            description: DESCRIPTION.into(),
            path: vec![(MEDIA, HARD_DRIVE, drive), (MEDIA, FILE_PATH, utf16(&path))],
            data: Vec::new(),
        }
    }
}

impl LoadOption {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (attributes, rest) = bytes.split_first_chunk::<4>()?;
        let (path_bytes, rest) = rest.split_first_chunk::<2>()?;
        let (units, _) = rest.as_chunks::<2>();
        let end = units.iter().position(|unit| *unit == [0, 0])?;
        let description: Vec<u16> = units[..end]
            .iter()
            .map(|unit| u16::from_le_bytes(*unit))
            .collect();
        let rest = &rest[2 * (end + 1)..];
        let (path, data) = rest.split_at_checked(u16::from_le_bytes(*path_bytes).into())?;
        Some(Self {
            attributes: u32::from_le_bytes(*attributes),
            description: String::from_utf16_lossy(&description),
            path: nodes(path)?,
            data: data.into(),
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut path = Vec::new();
        for (kind, subkind, content) in &self.path {
            path.extend([*kind, *subkind]);
            path.extend((content.len() as u16 + 4).to_le_bytes());
            path.extend(content);
        }
        path.extend(END);
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend((path.len() as u16).to_le_bytes());
        bytes.extend(utf16(&format!("{}\0", self.description)));
        bytes.extend(path);
        bytes.extend(&self.data);
        bytes
    }

    /// The entry that `bytes` are, if all it does is to start a program on one of `partitions`: by the short
    /// form of a path, as efibootmgr and bootctl make it, and with nothing hidden behind the path's end.
    pub fn that_starts_from(partitions: &[Uuid], bytes: &[u8]) -> Option<Self> {
        let option = Self::parse(bytes).filter(|option| option.to_bytes() == bytes)?;
        let [drive, files @ ..] = &option.path[..] else {
            return None;
        };
        let is_short = (drive.0, drive.1) == (MEDIA, HARD_DRIVE)
            && files.iter().all(|node| (node.0, node.1) == (MEDIA, FILE_PATH));
        let partition = option.partition().filter(|_| is_short)?;
        partitions.contains(&partition).then_some(option)
    }

    /// Whether both have one name, which is by what installers tell entries of their own.
    pub fn is_called_as(&self, other: &Self) -> bool {
        self.description.to_lowercase() == other.description.to_lowercase()
    }

    /// Whether [`EspPath::load_option`] made it, as far as its description tells.
    pub fn is_made_here(&self) -> bool {
        self.description == DESCRIPTION
    }

    /// The GPT partition that the entry's program is on.
    pub fn partition(&self) -> Option<Uuid> {
        let drive = self
            .path
            .iter()
            .find(|(kind, subkind, _)| (*kind, *subkind) == (MEDIA, HARD_DRIVE))?;
        let signature = drive.2.get(20..38).filter(|rest| rest[17] == SIGNATURE_GUID)?;
        Some(Uuid::from_bytes_le(*signature.first_chunk()?))
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The nodes of a device path up to its end. Paths of several instances end with the first.
fn nodes(mut path: &[u8]) -> Option<Vec<(u8, u8, Vec<u8>)>> {
    let mut nodes = Vec::new();
    while let [kind, subkind, low, high, ..] = *path {
        let length = usize::from(u16::from_le_bytes([low, high]));
        let content = path.get(4..length)?;
        if kind & 0x7f == 0x7f {
            break;
        }
        nodes.push((kind, subkind, content.to_vec()));
        path = &path[length..];
    }
    Some(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry called "Fedora" for `\EFI\fedora\shimx64.efi`, byte by byte as the specification has it.
    const FEDORA: &str = "01000000 6200 4600650064006f00720061000000 0401 2a00 02000000 0010000000000000 \
        0000100000000000 33221100554477668899aabbccddeeff 02 02 0404 3400 \
        5c004500460049005c006600650064006f00720061005c007300680069006d007800360034002e006500660069000000 7fff0400";

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(pair).collect()
    }

    #[test]
    fn entries_are_read_and_written_alike() {
        let bytes = unhex(FEDORA);
        let option = LoadOption::parse(&bytes).unwrap();
        let uuid: Uuid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        assert_eq!(option.partition(), Some(uuid));
        assert_eq!(option.to_bytes(), bytes);
        let own = EspPath {
            partition_number: 2,
            partition_uuid: uuid,
            start_lba: 4096,
            sectors: 1_048_576,
            path: "EFI/fedora/shimx64.efi".into(),
        };
        assert_eq!(own.load_option().path, option.path);
        assert_eq!(
            LoadOption::parse(&own.load_option().to_bytes()),
            Some(own.load_option())
        );
    }

    #[test]
    fn what_is_cut_off_or_a_lie_is_no_entry() {
        let bytes = unhex(FEDORA);
        for length in 0..bytes.len() {
            assert_eq!(LoadOption::parse(&bytes[..length]), None, "{length} bytes");
        }
        for offset in 0..bytes.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[offset] = value;
                let _ = LoadOption::parse(&bytes).map(|option| (option.partition(), option.to_bytes()));
            }
        }
    }
}
