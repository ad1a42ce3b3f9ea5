//! Blocking work in a program that must still handle signals: a `select!` misses them while one of its
//! futures blocks.

use std::panic::resume_unwind;

use tokio::task::{spawn_blocking, yield_now};

/// Does `work` on a thread of its own. A future that is dropped leaves the thread to itself: this is for work
/// that may block forever (standard input, a disk that does not answer) and has nothing to clean up.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // Tasks that have begun are not cancelled, and those that wait only when the runtime ends, this
        // future with it.
        Err(_) => std::future::pending().await,
    }
}

/// Lets signals be heard between two steps of work that must not go on when it is stopped, such as writing to
/// a disk. The future may be dropped here, and nowhere else.
pub async fn pause() {
    yield_now().await;
}
