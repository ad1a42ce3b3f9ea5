//! The memory of zstd's windows: a share for all layers that are pulled at the same time.
//!
//! A window is what a decoder keeps of its output to copy from: 2 MiB as podman compresses, up to 128 MiB
//! with `zstd --long`.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What all windows together may take, in bytes. One that is larger is open alone.
pub const SHARED_BYTES: u64 = 64 << 20;

/// The windows that are open. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Windows(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<Open>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    bytes: u64,
    #[cfg(test)]
    waiting: usize,
}

/// Room for one window, until it is dropped.
#[derive(Debug)]
pub struct Window {
    pub bytes: u64,
    home: Windows,
}

impl Windows {
    /// Waits until there is room. Nobody who waits may have a window: then all who have one come to their
    /// end.
    pub fn open(&self, bytes: u64) -> Window {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        while open.bytes > 0 && open.bytes.saturating_add(bytes) > SHARED_BYTES {
            #[cfg(test)]
            {
                open.waiting += 1;
            }
            open = self.0.closed.wait(open).unwrap_or_else(PoisonError::into_inner);
            #[cfg(test)]
            {
                open.waiting -= 1;
            }
        }
        open.bytes = open.bytes.saturating_add(bytes);
        let home = self.clone();
        Window { bytes, home }
    }

    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.0.open.lock().unwrap().waiting
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let shared = &self.home.0;
        shared.open.lock().unwrap_or_else(PoisonError::into_inner).bytes -= self.bytes;
        shared.closed.notify_all();
    }
}
