//! The system calls that no crate wraps safely: the only `unsafe` code of Landfall.
#![allow(unsafe_code)]

pub mod block;
pub mod blocking;
pub mod bpf;
pub mod device_mapper;
pub mod errno;
pub mod fork;
pub mod heap;
pub mod keyring;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod notify;
pub mod packet;
#[cfg(test)]
pub mod random;
pub mod regular;
pub mod seccomp;
pub mod signal;
pub mod start;
pub mod workshop;
