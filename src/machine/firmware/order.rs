//! The order of boot entries. Pure.

use serde::Serialize;

/// Where the installed system comes in the firmware's boot order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BootEntry {
    /// Last: the order is as it was before.
    Keep,
    /// First.
    First,
    /// Last, but first at the next boot, once.
    Next,
}

pub(super) fn name(number: u16) -> String {
    format!("Boot{number:04X}")
}

pub(super) fn number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    // The specification has capital letters; some firmware doesn't.
    let is_number = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u16::from_str_radix(digits, 16).ok())?
}

pub(super) fn free_number(known: &[u16]) -> Option<u16> {
    (0..=u16::MAX).find(|number| !known.contains(number))
}

pub(super) fn from_bytes(bytes: &[u8]) -> Vec<u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
}

pub(super) fn to_bytes(order: &[u16]) -> Vec<u8> {
    order.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The wanted order, from what was before, what is now, the installed disk's own entries and all entries.
///
/// No entry gets lost, and no missing one is named.
pub(super) fn arrange(wish: BootEntry, before: &[u16], now: &[u16], own: &[u16], known: &[u16]) -> Vec<u16> {
    let others = before.iter().chain(now).filter(|number| !own.contains(number));
    let wanted: Vec<u16> = match wish {
        BootEntry::First => own.iter().chain(others).copied().collect(),
        BootEntry::Keep | BootEntry::Next => others.chain(own).copied().collect(),
    };
    let mut order = Vec::with_capacity(wanted.len());
    for number in wanted {
        if known.contains(&number) && !order.contains(&number) {
            order.push(number);
        }
    }
    order
}

/// The order from `before`, less what is `gone`. An installer's `own` entries come where it has them `now`:
/// each follows what it follows there.
pub(super) fn merge(before: &[u16], now: &[u16], own: &[u16], gone: &[u16]) -> Vec<u16> {
    let stays = |number: &u16| !gone.contains(number);
    let mut order: Vec<u16> = before.iter().copied().filter(stays).collect();
    let mut place = 0;
    for number in now {
        match order.iter().position(|each| each == number) {
            Some(found) => place = found + 1,
            None if own.contains(number) => {
                order.insert(place, *number);
                place += 1;
            }
            None => {}
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_installer_adds_to_the_order_keeps_its_place_in_it() {
        for (before, now, own, gone, expected) in [
            // Nothing asked for: the order is as it was.
            (&[1, 2, 3][..], &[3][..], &[][..], &[][..], &[1, 2, 3][..]),
            (&[1, 2, 3], &[3, 2, 1], &[], &[], &[1, 2, 3]),
            (&[], &[5], &[], &[], &[]),
            // First, last, in between; and what stands before it is nothing that stays.
            (&[1, 2], &[9, 1, 2], &[9], &[], &[9, 1, 2]),
            (&[1, 2], &[1, 2, 9], &[9], &[], &[1, 2, 9]),
            (&[1, 2], &[1, 9, 2], &[9], &[], &[1, 9, 2]),
            (&[1, 2], &[7, 9, 1], &[9], &[], &[9, 1, 2]),
            // All others were dropped, two are added, one twice.
            (&[1, 2], &[9], &[9], &[], &[9, 1, 2]),
            (&[1, 2], &[9, 8, 9, 2], &[8, 9], &[], &[9, 8, 1, 2]),
            // One that was removed for good, its number in use again or not.
            (&[1, 2, 3], &[2, 1, 3], &[2], &[2], &[2, 1, 3]),
            (&[1, 2, 3], &[9, 1, 3], &[9], &[2], &[9, 1, 3]),
            // An entry without a place gets none; one that was missing keeps its own.
            (&[1, 4], &[1, 4], &[9], &[], &[1, 4]),
        ] {
            let merged = merge(before, now, own, gone);
            assert_eq!(merged, expected, "{before:?} {now:?} {own:?} {gone:?}");
        }
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_made_up() {
        let arranged = |wish, before: &[u16], now: &[u16], own: &[u16], known: &[u16]| {
            arrange(wish, before, now, own, known)
        };
        use BootEntry::{First, Keep};
        assert_eq!(arranged(Keep, &[1, 2], &[9, 1, 2], &[9], &[1, 2, 9]), [1, 2, 9]);
        assert_eq!(arranged(First, &[1, 2], &[1, 2, 9], &[9], &[1, 2, 9]), [9, 1, 2]);
        // An entry that is new but not ours, one that is gone, one that was there twice.
        assert_eq!(
            arranged(Keep, &[1, 2, 2], &[9, 4, 2], &[9], &[4, 2, 9]),
            [2, 4, 9]
        );
        // Ours was there before: an installation onto the same disk.
        assert_eq!(arranged(Keep, &[9, 1], &[9, 1], &[9], &[1, 9]), [1, 9]);
        assert_eq!(arranged(First, &[], &[], &[3, 4], &[3, 4]), [3, 4]);
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(name(0x1a), "Boot001A");
        for (text, expected) in [
            ("Boot001A", Some(0x1a)),
            ("Boot001a", Some(0x1a)),
            ("BootOrder", None),
            ("BootNext", None),
            ("Boot+123", None),
            ("Boot12345", None),
            ("Driver0000", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(free_number(&[0, 1, 3]), Some(2));
        assert_eq!(from_bytes(&[1, 0, 2]), [1]);
    }
}
