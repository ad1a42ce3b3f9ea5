//! Reading integers and text out of foreign bytes.

use std::io::{self, Read, Seek, SeekFrom};

/// Reads up to `length` bytes from `offset` on; fewer only where the device ends.
pub fn read_up_to<R: Read + Seek>(from: &mut R, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    from.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(length);
    from.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The `N` bytes of `bytes` from `offset` on; zeros where it is too short.
pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk().copied())
        .unwrap_or([0; N])
}

pub(super) fn le16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array(bytes, offset))
}

pub(super) fn le32(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array(bytes, offset))
}

/// Padded text at `offset`: up to the first NUL, without spaces around it. `None` when nothing is left.
pub(super) fn text(bytes: &[u8], offset: usize, length: usize) -> Option<String> {
    let field = bytes.get(offset..)?;
    let field = &field[..field.len().min(length)];
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = String::from_utf8_lossy(&field[..end]);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}
