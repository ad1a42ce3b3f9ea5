//! Programs of the image, run in the image: private PID, mount, IPC, UTS and network namespaces, no host
//! `/proc`, no host files, no credentials.
//!
//! [`power`] has the two grades in which a program may act on the machine; [`spec`] says what the sandbox is
//! then, and [`filter`] which system calls it has (both pure). [`run`] starts it and follows its output, and
//! [`helper`] is the single-threaded process that calls libcontainer: libcontainer clones raw from its caller,
//! and the child could deadlock in the allocator if other threads were alive. [`furnish`] adds what
//! libcontainer has no word for, and [`broker`] mounts for who installs.

mod broker;
mod cgroup;
mod device_filter;
mod executable;
mod exit;
mod filter;
mod furnish;
pub mod helper;
mod isolation;
mod network;
mod power;
mod process;
pub mod relay;
pub(crate) mod run;
pub(crate) mod spec;

pub use exit::{Ended, ExitStatus, NotStarted};
pub use isolation::Isolation;
pub use network::{Network, NetworkAccess};
pub use power::{Power, Target};
pub use run::{Output, run};
pub use spec::Sandbox;
