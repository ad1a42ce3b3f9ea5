//! What people see: progress, output, and untrusted text on its way to a terminal.

pub mod output;
pub mod progress;
pub mod text;
