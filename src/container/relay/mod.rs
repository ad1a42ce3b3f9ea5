//! The relay: a read-only registry (OCI distribution spec, "pull") that has exactly one image and nothing
//! else.
//!
//! The image that installs itself asks it for itself, by its own name; nobody else knows the [`Place`].
//! Everything it gives out was verified: manifest and config by [`Image`], cached blobs when they were
//! pulled, and what is streamed from the source again has its last bytes held back until the digest is right.

mod blob;
mod drop_in;
mod place;
mod range;
mod serve;
mod state;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

pub use drop_in::{policy_json, registries_conf};
pub use place::Place;
use state::State;
pub use state::{Blobs, Served};

use crate::console::text::size;
use crate::image::oci::Image;

/// This many clients are served at once; more wait.
const MAX_CONNECTIONS: usize = 16;
/// A client that is silent for this long is disconnected.
const IDLE: Duration = Duration::from_secs(120);

/// A running relay. It ends when dropped.
pub struct Relay {
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Answers at `place` for `image`. Must be called within a tokio runtime.
    pub fn serve(place: &Place, image: Arc<Image>, blobs: Blobs) -> io::Result<Self> {
        let listener = place.listen()?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let state = Arc::new(State {
            door: place.door(),
            image,
            blobs,
            served: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { state, task })
    }

    /// What was given out so far.
    pub fn served(&self) -> Served {
        self.state.served().clone()
    }

    /// Something that says how far the image has fetched itself.
    pub fn tell_progress(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let state = Arc::clone(&self.state);
        move || {
            let served = state.served();
            let done = size(served.bytes_from_cache + served.bytes_from_source);
            let total = size(state.image.compressed_bytes() + state.image.config.len() as u64);
            format!("the image's installer has fetched {done} of {total}")
        }
    }

    /// Closes all connections and tells what was given out.
    pub async fn shutdown(mut self) -> Served {
        self.task.abort();
        // An aborted task ends with an error that says just that.
        let _ = (&mut self.task).await;
        self.served()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections until it is aborted, which aborts them all.
async fn accept(listener: tokio::net::TcpListener, state: Arc<State>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = slots.clone().acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or a client that is gone already.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let state = state.clone();
        connections.spawn(async move {
            let answer = service_fn(move |request| serve::answer(state.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), answer);
            // Whatever ends a connection is the client's affair; a blob that fails was noted.
            let _ = connection.await;
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests;
