//! Standard output and standard error of the program itself.
//!
//! Nothing here panics, as `println!` does: a reader that has gone away ends a command silently, and a
//! missing console ends nothing at all.

use std::io::{self, ErrorKind, Write};

/// The exit status of a command whose reader went away: the one that a shell has for programs that SIGPIPE
/// ended. The signal itself stays ignored, as it would also come of a closed standard error, in the midst of
/// an installation.
pub const CLOSED: u8 = 128 + 13;

#[derive(Debug, thiserror::Error)]
#[error("writing to standard output: {0}")]
struct Failure(io::Error);

/// Standard output. Its errors are told from all others.
struct Output<W>(W);

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(marked)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(marked)
    }
}

fn marked(error: io::Error) -> io::Error {
    match error.kind() {
        // The writer tries again.
        ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, Failure(error)),
    }
}

/// Lets `write` write to standard output, all of it.
pub fn print(write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut output = Output(io::stdout().lock());
    write(&mut output)?;
    Ok(output.flush()?)
}

/// Whether `error` is that the reader of standard output went away.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let errors = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    let mut ours = errors.filter(|error| error.get_ref().is_some_and(|inner| inner.is::<Failure>()));
    ours.any(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Writes one line to standard error, as far as that takes it.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
