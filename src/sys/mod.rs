//! The system calls that no crate wraps safely: the only `unsafe` code of Landfall.
#![allow(unsafe_code)]

pub mod attributes;
pub mod block;
pub mod blocking;
pub mod device_mapper;
pub mod heap;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod packet;
pub mod process;
#[cfg(test)]
pub mod random;
pub mod signal;
pub mod terminal;
pub mod xattr;
