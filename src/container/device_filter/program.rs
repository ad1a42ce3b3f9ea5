//! Rules as a program for the kernel (`BPF_PROG_TYPE_CGROUP_DEVICE`): one after the other, until one fits.
//! What none allows is refused, and noted in a map.

use super::rules::{Kind, Rule};
use crate::sys::bpf::{Instruction, Map};

// Registers. The kernel calls with the address of what is asked in R1, and wants the answer in R0; functions
// take R1 to R5 and leave R6 to R9 alone.
const ANSWER: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const ACCESS: u8 = 6;
const MAJOR: u8 = 7;
const MINOR: u8 = 8;
const KIND: u8 = 9;
const STACK: u8 = 10;

// Where the map's key and value are on the stack.
const KEY: i16 = -12;
const VALUE: i16 = -16;

// `enum bpf_func_id`.
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;

/// How the jumps compare, without a sign.
#[derive(Clone, Copy)]
enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// The program for `rules`. What it refuses is in `refused`: by kind, major and minor, how it was tried.
pub fn program(rules: &[Rule], refused: &Map) -> Vec<Instruction> {
    let mut program = vec![
        // `struct bpf_cgroup_dev_ctx`: kind and access in one word, major, minor.
        load(ACCESS, R1, 0),
        load(MAJOR, R1, 4),
        load(MINOR, R1, 8),
        copy(KIND, ACCESS),
        and(KIND, 0xffff),
        shift_right(ACCESS, 16),
    ];
    program.extend(rules.iter().flat_map(allow));
    program.extend(note(refused));
    program.extend(end(0));
    program
}

/// The program of `BPF_PROG_TYPE_CGROUP_SYSCTL` that lets everything be read and nothing be written.
pub fn read_only() -> Vec<Instruction> {
    // `struct bpf_sysctl` begins with whether it is to be written.
    let write = [load(ACCESS, R1, 0), jump(If::NotEqual, ACCESS, 0, 2)];
    write.into_iter().chain(end(1)).chain(end(0)).collect()
}

/// Ends the program if the rule fits; else what comes next is next.
fn allow(rule: &Rule) -> [Instruction; 6] {
    let [allow, leave] = end(1);
    [
        jump(If::NotEqual, KIND, rule.kind as i32, 5),
        jump(If::NotEqual, MAJOR, rule.major.cast_signed(), 4),
        jump(If::Less, MINOR, rule.minors.start().cast_signed(), 3),
        jump(If::Greater, MINOR, rule.minors.end().cast_signed(), 2),
        allow,
        leave,
    ]
}

/// Adds the access to what the map has of this device. In a full map nothing is added.
fn note(refused: &Map) -> Vec<Instruction> {
    let key = [(KIND, KEY), (MAJOR, KEY + 4), (MINOR, KEY + 8)];
    let mut note: Vec<_> = key.map(|(from, at)| store(STACK, at, from)).into();
    note.extend(refused.load_into(R1));
    note.extend([
        copy(R2, STACK),
        add(R2, KEY.into()),
        call(MAP_LOOKUP),
        jump(If::Equal, ANSWER, 0, 4),
        load(R1, ANSWER, 0),
        or(R1, ACCESS),
        store(ANSWER, 0, R1),
        skip(9),
        store(STACK, VALUE, ACCESS),
    ]);
    note.extend(refused.load_into(R1));
    note.extend([
        copy(R2, STACK),
        add(R2, KEY.into()),
        copy(R3, STACK),
        add(R3, VALUE.into()),
        set(R4, 0),
        call(MAP_UPDATE),
    ]);
    note
}

fn end(answer: i32) -> [Instruction; 2] {
    [set(ANSWER, answer), instruction(0x95, 0, 0, 0, 0)]
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        immediate,
    }
}

fn load(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

fn store(to: u8, offset: i16, from: u8) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}

fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

fn add(to: u8, value: i32) -> Instruction {
    instruction(0x07, to, 0, 0, value)
}

fn and(to: u8, value: i32) -> Instruction {
    instruction(0x57, to, 0, 0, value)
}

fn or(to: u8, from: u8) -> Instruction {
    instruction(0x4f, to, from, 0, 0)
}

fn shift_right(to: u8, bits: i32) -> Instruction {
    instruction(0x77, to, 0, 0, bits)
}

fn jump(when: If, register: u8, value: i32, by: i16) -> Instruction {
    instruction(0x05 | when as u8, register, 0, by, value)
}

fn skip(by: i16) -> Instruction {
    instruction(0x05, 0, 0, by, 0)
}

fn call(function: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, function)
}

const _: () = assert!(Kind::Block as i32 == 1 && Kind::Character as i32 == 2);
