//! What is to be put back after an installation, and what is its own. Pure.
//!
//! Everything is as it was before, but for what bootc, bootupd and bootctl are there to change:
//!
//! - boot entries that start a program from a partition of the target disk are kept, with their place in the
//!   boot order;
//! - an old entry may stay away that leads to a partition which no disk has any more: one that the target had
//!   before, or one whose name a kept entry has (bootupd removes those of its own name);
//! - systemd-boot's token for seeding random numbers is kept where there was none.

use uuid::Uuid;

use super::load_option::LoadOption;
use super::order;
use super::snapshot::{Name, Snapshot, Variable};

/// One entry is what is needed, and firmware has little room.
const MAX_OWN_ENTRIES: usize = 4;
const MAX_OWN_ENTRY_BYTES: usize = 2048;

/// What `bootctl install` writes beside boot entries (read in systemd 261: `set_system_token`).
const TOKEN: &str = "LoaderSystemToken-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
const TOKEN_BYTES: usize = 32;

/// The disk that was installed onto, or was to be.
pub struct Target<'a> {
    /// The partitions that it has now.
    pub partitions: &'a [Uuid],
    /// Those that it had before.
    pub replaced: &'a [Uuid],
    /// Whether another disk of this machine has a partition.
    pub is_elsewhere: &'a dyn Fn(&Uuid) -> bool,
}

/// What has to be done, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restoration {
    pub remove: Vec<Name>,
    pub write: Vec<(Name, Variable)>,
    /// What only the firmware's owner could put back, with a signature.
    pub lost: Vec<Name>,
}

/// A boot entry of the installation.
struct Own {
    number: u16,
    /// Its number from here on: an old entry gets its own back.
    wanted: u16,
    option: LoadOption,
}

/// How to get from `now` to how it was `before`, but for what is the installation's own.
pub fn restoration(before: &Snapshot, now: &Snapshot, target: &Target<'_>) -> Restoration {
    let mut own = own_entries(before, now, target);
    let gone = gone_entries(before, now, target, &own);
    find_numbers(&mut own, before, now, &gone);

    let mut wanted = before.clone();
    for number in &gone {
        wanted.set(Name::of_boot_entry(*number), None);
    }
    for each in &own {
        let entry = now.get(&Name::of_boot_entry(each.number));
        wanted.set(Name::of_boot_entry(each.wanted), entry.cloned());
    }
    if !(own.is_empty() && gone.is_empty()) {
        let order = boot_order(before, now, &own, &gone);
        wanted.set(Name::global("BootOrder"), order);
    }
    let token = Name::of_file(TOKEN.into());
    if !before.has(&token) {
        let is_token = |variable: &&Variable| variable.is_lasting() && variable.content.len() <= TOKEN_BYTES;
        wanted.set(token.clone(), now.get(&token).filter(is_token).cloned());
    }
    difference(&wanted, now)
}

/// The entries that are not as before, and which an installation onto the target may make.
fn own_entries(before: &Snapshot, now: &Snapshot, target: &Target<'_>) -> Vec<Own> {
    let own = now.boot_entries().filter_map(|(number, variable)| {
        let name = Name::of_boot_entry(number);
        let is_known =
            before.get(&name) == Some(variable) || before.has(&name) && before.get(&name).is_none();
        let is_allowed = variable.is_lasting() && variable.content.len() <= MAX_OWN_ENTRY_BYTES;
        let option = LoadOption::that_starts_from(target.partitions, &variable.content)?;
        (is_allowed && !is_known).then_some(Own {
            number,
            wanted: number,
            option,
        })
    });
    own.take(MAX_OWN_ENTRIES).collect()
}

/// The numbers of those that were removed, or had to make room, and need not come back.
fn gone_entries(before: &Snapshot, now: &Snapshot, target: &Target<'_>, own: &[Own]) -> Vec<u16> {
    let is_removed = |number: &u16| {
        !now.has(&Name::of_boot_entry(*number)) || own.iter().any(|each| each.number == *number)
    };
    let leads_nowhere = |variable: &Variable| {
        let Some(option) = LoadOption::parse(&variable.content) else {
            return false;
        };
        let has_heir = || own.iter().any(|each| each.option.is_called_as(&option));
        option.partition().is_some_and(|partition| {
            !target.partitions.contains(&partition)
                && (target.replaced.contains(&partition) || has_heir())
                && !(target.is_elsewhere)(&partition)
        })
    };
    before
        .boot_entries()
        .filter(|(number, variable)| is_removed(number) && leads_nowhere(variable))
        .map(|(number, _)| number)
        .collect()
}

/// Finds another number for each entry that has the number of an old one.
fn find_numbers(own: &mut [Own], before: &Snapshot, now: &Snapshot, gone: &[u16]) {
    let numbers = |snapshot: &Snapshot| snapshot.names().filter_map(Name::boot_entry).collect::<Vec<_>>();
    let mut taken = [numbers(before), numbers(now)].concat();
    for each in own {
        if before.has(&Name::of_boot_entry(each.number)) && !gone.contains(&each.number) {
            each.wanted = order::free_number(&taken).expect("no firmware has room for 65536 entries");
            taken.push(each.wanted);
        }
    }
}

fn boot_order(before: &Snapshot, now: &Snapshot, own: &[Own], gone: &[u16]) -> Option<Variable> {
    let own_number = |number: u16| {
        let own = own.iter().find(|each| each.number == number);
        own.map_or(number, |each| each.wanted)
    };
    let now: Vec<u16> = now.boot_order().into_iter().map(own_number).collect();
    let own: Vec<u16> = own.iter().map(|each| each.wanted).collect();
    let order = order::merge(&before.boot_order(), &now, &own, gone);
    (!order.is_empty()).then(|| Variable::lasting(&order::to_bytes(&order)))
}

fn difference(wanted: &Snapshot, now: &Snapshot) -> Restoration {
    let mut restoration = Restoration::default();
    for (name, variable) in now.variables() {
        match wanted.has(name) {
            true => {}
            false if variable.is_authenticated() => restoration.lost.push(name.clone()),
            false => restoration.remove.push(name.clone()),
        }
    }
    for (name, variable) in wanted.variables() {
        match now.get(name) {
            Some(found) if found == variable => {}
            _ if variable.is_authenticated() => restoration.lost.push(name.clone()),
            _ => restoration.write.push((name.clone(), variable.clone())),
        }
    }
    restoration
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::firmware::EspPath;

    /// Partitions: of the target now and before, of another disk, of none.
    const NEW: u128 = 1;
    const OLD: u128 = 2;
    const OTHER: u128 = 3;
    const NOWHERE: u128 = 4;

    type Change<'a> = (&'a str, Option<Variable>);

    fn entry(name: &str, partition: u128) -> Variable {
        let loader = EspPath {
            partition_number: 2,
            partition_uuid: Uuid::from_u128(partition),
            start_lba: 4096,
            sectors: 1_048_576,
            path: "EFI/fedora/shimx64.efi".into(),
        };
        let bytes = loader.load_option().to_bytes();
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let (head, own_name) = (6, utf16("Installed by Landfall"));
        assert_eq!(bytes[head..][..own_name.len()], own_name);
        let renamed = [&bytes[..head], &utf16(name), &bytes[head + own_name.len()..]];
        Variable::lasting(&renamed.concat())
    }

    fn order(numbers: &[u16]) -> Variable {
        Variable::lasting(&order::to_bytes(numbers))
    }

    fn name(name: &str) -> Name {
        match name.contains('-') {
            true => Name::of_file(name.into()),
            false => Name::global(name),
        }
    }

    fn with(snapshot: &Snapshot, changes: &[Change<'_>]) -> Snapshot {
        let mut changed = snapshot.clone();
        for (each, variable) in changes {
            changed.set(name(each), variable.clone());
        }
        changed
    }

    fn signed(content: &[u8]) -> Variable {
        Variable {
            attributes: 0x27,
            content: content.into(),
        }
    }

    const SETUP: &str = "Setup-ec87d643-eba4-4bb5-a1e5-3f3e36b20da9";

    /// A firmware that has seen some installations.
    fn before() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.add_unreadable(Name::global("Boot0007"));
        with(
            &snapshot,
            &[
                ("Boot0001", Some(Variable::lasting(b"the network"))),
                ("Boot0002", Some(entry("Fedora", OTHER))),
                ("Boot0003", Some(entry("Fedora", OLD))),
                ("Boot0004", Some(entry("Fedora", NOWHERE))),
                ("BootOrder", Some(order(&[1, 2, 3, 4]))),
                ("Timeout", Some(Variable::lasting(&[5, 0]))),
                (SETUP, Some(Variable::lasting(b"settings"))),
                ("PK", Some(signed(b"the owner's key"))),
            ],
        )
    }

    /// What becomes of the variables when they are put back.
    fn put_back(before: &Snapshot, now: &Snapshot, partitions: &[u128]) -> (Snapshot, Vec<String>) {
        let partitions: Vec<Uuid> = partitions.iter().copied().map(Uuid::from_u128).collect();
        let target = Target {
            partitions: &partitions,
            replaced: &[Uuid::from_u128(OLD)],
            is_elsewhere: &|partition| *partition == Uuid::from_u128(OTHER),
        };
        let restoration = restoration(before, now, &target);
        let mut result = now.clone();
        for name in restoration.remove {
            result.set(name, None);
        }
        for (name, variable) in restoration.write {
            result.set(name, Some(variable));
        }
        (result, restoration.lost.iter().map(Name::to_string).collect())
    }

    /// Checks that of what is changed, only `left` is left, by which the result differs from before.
    fn check(what: &str, changed: &[Change<'_>], partitions: &[u128], left: &[Change<'_>], lost: &[&str]) {
        let before = before();
        let (result, named) = put_back(&before, &with(&before, changed), partitions);
        let expected = with(&before, left);
        let pairs = |snapshot: &Snapshot| {
            let variables = snapshot.variables();
            variables
                .map(|(name, variable)| (name.to_string(), variable.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(pairs(&result), pairs(&expected), "{what}");
        assert_eq!(named, lost, "{what}");
    }

    #[test]
    fn nothing_else_is_left_of_what_an_image_did() {
        let junk = || Some(Variable::lasting(b"junk"));
        let new = || Some(entry("Fedora", NEW));
        let gone = [
            ("Boot0001", None),
            ("Boot0002", None),
            ("Boot0004", None),
            ("BootOrder", None),
        ];
        check("nothing", &[], &[NEW], &[], &[]);
        check("entries removed", &gone, &[NEW], &[], &[]);
        let settings = [("Timeout", Some(Variable::lasting(&[0, 0]))), (SETUP, None)];
        check("settings", &settings, &[NEW], &[], &[]);
        let attributes = Variable {
            attributes: 3,
            content: vec![5, 0],
        };
        check("attributes", &[("Timeout", Some(attributes))], &[NEW], &[], &[]);
        let added = [
            ("BootNext", junk()),
            ("Driver0000", junk()),
            ("DriverOrder", junk()),
            ("X-y", junk()),
        ];
        check("new ones", &added, &[NEW], &[], &[]);
        check(
            "the order",
            &[("BootOrder", Some(order(&[4, 9, 1])))],
            &[NEW],
            &[],
            &[],
        );
        let elsewhere = [("Boot0005", Some(entry("Fedora", OTHER))), ("Boot0006", junk())];
        check("entries of others", &elsewhere, &[NEW], &[], &[]);
        let keys = [
            ("PK", Some(signed(b"the image's key"))),
            ("KEK", Some(signed(b"new"))),
        ];
        check("keys", &keys, &[NEW], &keys, &["KEK", "PK"]);
        check(
            "unreadable before",
            &[("Boot0007", new())],
            &[NEW],
            &[("Boot0007", new())],
            &[],
        );
        // No disk was installed: its entries lead nowhere.
        check(
            "failed",
            &[("Boot0000", new()), ("BootOrder", Some(order(&[0, 1])))],
            &[],
            &[],
            &[],
        );
        check(
            "untouched",
            &[("Boot0003", None), ("BootOrder", None)],
            &[OLD],
            &[],
            &[],
        );
    }

    #[test]
    fn what_an_installation_is_for_is_left() {
        let new = || Some(entry("Fedora", NEW));
        let made = [("Boot0000", new()), ("BootOrder", Some(order(&[0, 1, 2, 3, 4])))];
        check("an entry", &made, &[NEW], &made, &[]);
        let dropped = [("Boot0000", new()), ("BootOrder", Some(order(&[0])))];
        check("an entry, all others dropped", &dropped, &[NEW], &made, &[]);
        // bootupd removes what has its name, and efibootmgr takes the first number that is free.
        let by_bootupd = [
            ("Boot0002", new()),
            ("Boot0003", None),
            ("Boot0004", None),
            ("BootOrder", Some(order(&[2, 1]))),
        ];
        let left = [
            ("Boot0000", new()),
            ("Boot0003", None),
            ("Boot0004", None),
            ("BootOrder", Some(order(&[0, 1, 2]))),
        ];
        check(
            "an heir takes the number of an entry that leads somewhere",
            &by_bootupd,
            &[NEW],
            &left,
            &[],
        );
        let reused = [("Boot0003", new()), ("BootOrder", Some(order(&[3, 1, 2, 4])))];
        check(
            "an heir takes the number of one that leads nowhere",
            &reused,
            &[NEW],
            &reused,
            &[],
        );
        let removed = [("Boot0003", None), ("BootOrder", Some(order(&[1, 2, 4])))];
        check("the target's old entry", &removed, &[NEW], &removed, &[]);
        let other_name = [("Boot0000", Some(entry("Other", NEW))), ("Boot0004", None)];
        let left = [("Boot0000", Some(entry("Other", NEW)))];
        check("no heir", &other_name, &[NEW], &left, &[]);
    }

    #[test]
    fn an_entry_is_left_only_if_it_is_as_installers_make_it() {
        let with_content = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut variable = entry("Fedora", NEW);
            change(&mut variable.content);
            Some(variable)
        };
        let unchanged = with_content(&|_| {});
        check(
            "as it is",
            &[("Boot0000", unchanged.clone())],
            &[NEW],
            &[("Boot0000", unchanged.clone())],
            &[],
        );
        let volatile = unchanged.clone().map(|variable| Variable {
            attributes: 3,
            ..variable
        });
        // The end of this path, then another path, to somewhere else.
        let hidden = with_content(&|content| {
            let end = content.len() - 4;
            content[end + 1] = 1;
            content.extend(b"\x04\x04\x06\0x\0\x7f\xff\x04\0");
            content[4] += 10;
        });
        for (what, variable) in [
            ("attributes", volatile),
            ("a second path", hidden),
            (
                "too long",
                with_content(&|content| content.resize(MAX_OWN_ENTRY_BYTES + 1, 0)),
            ),
        ] {
            check(what, &[("Boot0000", variable)], &[NEW], &[], &[]);
        }
        check(
            "a name that is none",
            &[("Boot000a", unchanged.clone())],
            &[NEW],
            &[],
            &[],
        );
        let numbers = ["Boot0010", "Boot0011", "Boot0012", "Boot0013", "Boot0014"];
        let many = numbers.map(|number| (number, unchanged.clone()));
        check("too many", &many, &[NEW], &many[..MAX_OWN_ENTRIES], &[]);
    }

    #[test]
    fn a_token_is_left_where_there_was_none() {
        let token = |length| Some(Variable::lasting(&vec![7; length]));
        check("new", &[(TOKEN, token(32))], &[NEW], &[(TOKEN, token(32))], &[]);
        check("too long", &[(TOKEN, token(33))], &[NEW], &[], &[]);
        let before = with(&before(), &[(TOKEN, token(32))]);
        let (result, _) = put_back(&before, &with(&before, &[(TOKEN, token(16))]), &[NEW]);
        assert_eq!(result.get(&name(TOKEN)), token(32).as_ref());
    }
}
