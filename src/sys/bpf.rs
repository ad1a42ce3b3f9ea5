//! Programs that the kernel runs when somebody in a control group opens a device or writes to /proc/sys:
//! bpf(2), without a library.

use std::ffi::{CStr, c_int, c_long};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

/// Beside those of others on the same group or above it: each of them may refuse.
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_MAP_TYPE_HASH: u32 = 1;
const LICENSE: &CStr = c"Apache-2.0";

/// `enum bpf_cmd`.
#[derive(Clone, Copy)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapNextKey = 4,
    Load = 5,
    Attach = 8,
}

/// One instruction of a program (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// The destination in the lower half, the source in the upper.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// What a program decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Whether a device is opened or its node made.
    Device,
    /// Whether a file below /proc/sys is read or written.
    Sysctl,
}

impl Hook {
    /// `BPF_PROG_TYPE_CGROUP_…`.
    fn program_type(self) -> u32 {
        match self {
            Self::Device => 15,
            Self::Sysctl => 23,
        }
    }

    /// `BPF_CGROUP_…` of `enum bpf_attach_type`.
    fn attach_type(self) -> u32 {
        match self {
            Self::Device => 6,
            Self::Sysctl => 18,
        }
    }
}

/// A table in the kernel, from three numbers to one. The programs that use it keep it, too.
#[derive(Clone, Debug)]
pub struct Map(Arc<OwnedFd>);

/// What a map counts by.
pub type Key = [u32; 3];

/// A program that the kernel has checked.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    hook: Hook,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

impl Map {
    pub fn new(max_entries: u32) -> nix::Result<Self> {
        let mut attributes = MapCreate {
            map_type: BPF_MAP_TYPE_HASH,
            key_bytes: size_of::<Key>() as u32,
            value_bytes: size_of::<u32>() as u32,
            max_entries,
            flags: 0,
        };
        // SAFETY: BPF_MAP_CREATE reads these attributes, which hold no addresses, and gives a descriptor.
        let fd = unsafe { descriptor(bpf(Command::MapCreate, &mut attributes)?) };
        Ok(Self(Arc::new(fd)))
    }

    /// What is in it.
    pub fn entries(&self) -> nix::Result<Vec<(Key, u32)>> {
        let mut entries = Vec::new();
        let mut last = None;
        while let Some(key) = self.next_key(last)? {
            entries.extend(self.get(key)?.map(|value| (key, value)));
            last = Some(key);
        }
        Ok(entries)
    }

    fn next_key(&self, after: Option<Key>) -> nix::Result<Option<Key>> {
        let mut next = Key::default();
        let after = after.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut attributes = self.element(after, &raw mut next as u64);
        // SAFETY: the key is null or one, and there is room for one where the kernel writes the next; both
        // live until it returns.
        let found = unsafe { bpf(Command::MapNextKey, &mut attributes) };
        there(found.map(|_| next))
    }

    fn get(&self, key: Key) -> nix::Result<Option<u32>> {
        let mut value = 0u32;
        let mut attributes = self.element(&raw const key, &raw mut value as u64);
        // SAFETY: the kernel reads a key and writes a value of the sizes that the map was made with; both
        // live until it returns.
        let found = unsafe { bpf(Command::MapLookup, &mut attributes) };
        there(found.map(|_| value))
    }

    fn element(&self, key: *const Key, value_or_next_key: u64) -> MapElement {
        MapElement {
            map: number(&*self.0),
            padding: 0,
            key: key as u64,
            value_or_next_key,
            flags: 0,
        }
    }

    /// The two instructions that load its address into a register.
    pub fn load_into(&self, register: u8) -> [Instruction; 2] {
        const LOAD_64: u8 = 0x18;
        const PSEUDO_MAP_FD: u8 = 1;
        let instruction = |code, registers, immediate| Instruction {
            code,
            registers,
            offset: 0,
            immediate,
        };
        [
            instruction(LOAD_64, register | PSEUDO_MAP_FD << 4, self.0.as_raw_fd()),
            instruction(0, 0, 0),
        ]
    }
}

impl Program {
    /// Has the kernel check `instructions`. The maps that are in them must be there still.
    pub fn load(hook: Hook, instructions: &[Instruction]) -> nix::Result<Self> {
        let mut attributes = Load {
            program_type: hook.program_type(),
            instruction_count: instructions.len().try_into().map_err(|_| Errno::E2BIG)?,
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: 0,
            log_bytes: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads as many instructions as there are, and a string; both live until it
        // returns. It gives a descriptor.
        let fd = unsafe { descriptor(bpf(Command::Load, &mut attributes)?) };
        Ok(Self { fd, hook })
    }

    /// Runs it for the control group (of cgroup v2) behind this directory and for all below it, as long as
    /// the group exists.
    pub fn attach(&self, group: impl AsFd) -> nix::Result<()> {
        let mut attributes = Attach {
            target: number(&group),
            program: number(&self.fd),
            attach_type: self.hook.attach_type(),
            flags: BPF_F_ALLOW_MULTI,
        };
        // SAFETY: BPF_PROG_ATTACH reads these attributes, which hold no addresses.
        unsafe { bpf(Command::Attach, &mut attributes) }.map(drop)
    }
}

fn number(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// What is not there is none.
fn there<T>(found: nix::Result<T>) -> nix::Result<Option<T>> {
    match found {
        Err(Errno::ENOENT) => Ok(None),
        found => found.map(Some),
    }
}

/// # Safety
///
/// `result` is what a command gave that makes a descriptor, and nobody else has it.
unsafe fn descriptor(result: c_long) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(result as c_int) }
}

/// # Safety
///
/// `attributes` are those of `command`, and addresses in them are valid for what it reads and writes.
unsafe fn bpf<T>(command: Command, attributes: &mut T) -> nix::Result<c_long> {
    // SAFETY: the kernel takes the size from us, and treats attributes beyond it as zeros; for the rest, the
    // caller's promise.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as c_int,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    })
}
