//! Connects to a machine again and again while that runs, to see when its network is there.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context, Result};

/// Somebody who knocks until told to stop.
pub struct Knocking {
    port: u16,
    thread: JoinHandle<[usize; 2]>,
    is_over: Arc<AtomicBool>,
}

impl Knocking {
    /// At the machine that says in the file `log` when its network goes `down` and comes `up` again.
    pub fn start(log: &Path, [down, up]: [&'static str; 2]) -> Result<Self> {
        if log.exists() {
            fs::remove_file(log).context("removing an old log")?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (log, is_over) = (PathBuf::from(log), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let when = move || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            usize::from(said.contains(down)) + usize::from(said.contains(up))
        };
        let knock = move || {
            let mut answers = [0, 0];
            while !over.load(Ordering::Relaxed) {
                let (before, is_answered) = (when(), is_answered(port));
                // What was said before the answer is in the log by then.
                sleep(Duration::from_secs(1));
                if is_answered
                    && before == when()
                    && let Some(count) = answers.get_mut(before)
                {
                    *count += 1;
                }
            }
            answers
        };
        let thread = thread::spawn(knock);
        Ok(Self {
            port,
            thread,
            is_over,
        })
    }

    /// The port that is to lead to the machine: [`super::Machine::forward`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often it was answered before the network went down, and while it was down.
    pub fn end(self) -> [usize; 2] {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// Whether the machine refuses a connection. One without an interface does nothing.
fn is_answered(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        // There is no machine yet, or no more.
        return false;
    };
    let patience = stream.set_read_timeout(Some(Duration::from_secs(2)));
    patience.is_ok()
        && match stream.read(&mut [0]) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
}
