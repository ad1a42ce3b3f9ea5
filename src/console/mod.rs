//! What people see: progress, output, and text of strangers on its way to a terminal.

pub mod output;
pub mod progress;
pub mod text;
