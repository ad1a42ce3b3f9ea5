//! A boundary between two threads: the stages before it run ahead, by a bounded number of chunks.

use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::chunks::Chunks;
use super::error::Result;

/// How many chunks a stage may run ahead of its reader.
const DEPTH: usize = 4;

/// The output of stages that run in a thread of their own. Dropping it makes them stop at their next chunk.
pub struct Ahead<C> {
    received: Receiver<Result<Bytes>>,
    thread: JoinHandle<C>,
}

impl<C: Chunks + Send + 'static> Ahead<C> {
    pub fn spawn(name: &str, mut stage: C) -> io::Result<Self> {
        let (sender, received) = sync_channel(DEPTH);
        let run = move || {
            loop {
                let chunk = stage.next_chunk();
                let last = chunk.as_ref().map_or(true, Bytes::is_empty);
                if sender.send(chunk).is_err() || last {
                    return stage;
                }
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        Ok(Self { received, thread })
    }

    /// The stages themselves, when their thread has ended; it ends at their end, their error, or their next
    /// chunk.
    pub fn into_inner(self) -> C {
        drop(self.received);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<C> Chunks for Ahead<C> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        // Its thread has said all it had to say: that was the end.
        self.received.recv().unwrap_or_else(|_| Ok(Bytes::new()))
    }
}

/// Stages in this thread or in another: the work is the same.
pub enum Stage<C> {
    Here(C),
    Ahead(Ahead<C>),
}

impl<C: Chunks + Send + 'static> Stage<C> {
    pub fn start(threaded: bool, name: &str, stage: C) -> io::Result<Self> {
        if threaded {
            Ahead::spawn(name, stage).map(Self::Ahead)
        } else {
            Ok(Self::Here(stage))
        }
    }

    pub fn into_inner(self) -> C {
        match self {
            Self::Here(stage) => stage,
            Self::Ahead(ahead) => ahead.into_inner(),
        }
    }
}

impl<C: Chunks> Chunks for Stage<C> {
    fn next_chunk(&mut self) -> Result<Bytes> {
        match self {
            Self::Here(stage) => stage.next_chunk(),
            Self::Ahead(ahead) => ahead.next_chunk(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::chunks::ReadChunks;
    use crate::image::layer::error::malformed;

    #[test]
    fn all_chunks_come_in_their_order_and_the_stage_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        for threaded in [false, true] {
            let stage = ReadChunks::new(io::Cursor::new(bytes.clone()), 10);
            let mut stage = Stage::start(threaded, "test", stage).unwrap();
            let mut seen = Vec::new();
            loop {
                let chunk = stage.next_chunk().unwrap();
                if chunk.is_empty() {
                    break;
                }
                seen.extend_from_slice(&chunk);
            }
            assert_eq!(seen, bytes);
            assert!(stage.next_chunk().unwrap().is_empty());
            assert_eq!(stage.into_inner().into_inner().position(), 256);
        }
    }

    #[test]
    fn an_error_is_passed_on_and_ends_the_thread() {
        struct Broken;
        impl Chunks for Broken {
            fn next_chunk(&mut self) -> Result<Bytes> {
                Err(malformed("cut"))
            }
        }
        let mut ahead = Ahead::spawn("test", Broken).unwrap();
        assert_eq!(ahead.next_chunk().unwrap_err().to_string(), "cut");
        ahead.into_inner();
    }
}
