//! Threads of their own for work with secrets. When that is done they end, and with them go the connections
//! that were kept for later, whatever waits for an answer, and their stacks. Nothing unsafe: it is here because
//! siblings need it.

use std::future::poll_fn;
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use super::blocking::apart;

/// A thread that hangs, in a question to a name server or in a read from a pipe, isn't waited for any longer.
const LIMIT: Duration = Duration::from_secs(5);
/// More of its stack than any of our functions uses.
const STACK_BYTES: usize = 256 << 10;

/// A runtime that is there for one purpose.
pub struct Workshop(Option<Runtime>);

impl Workshop {
    pub fn open() -> Result<Self> {
        Ok(Self(Some(Runtime::new().context("starting threads")?)))
    }

    /// Does `work`. Whatever tasks and threads it starts, it starts here.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = self.0.as_ref().expect("it is there until it is closed");
        let mut work = Box::pin(work);
        poll_fn(|context| {
            let _here = runtime.enter();
            work.as_mut().poll(context)
        })
        .await
    }

    /// Ends all tasks and threads, and waits for them.
    pub async fn close(mut self) {
        if let Some(runtime) = self.0.take() {
            apart(move || runtime.shutdown_timeout(LIMIT)).await;
        }
        overwrite_free_stack();
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Functions that have returned leave what they had on the stack; the next one to be called lies over it.
#[inline(never)]
fn overwrite_free_stack() {
    black_box(&mut [0_u8; STACK_BYTES]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_was_started_there_ends_with_it() {
        let workshop = Workshop::open().unwrap();
        let held = Arc::new(());
        let (in_task, in_thread) = (held.clone(), held.clone());
        let work = async {
            tokio::spawn(async move {
                let _held = in_task;
                std::future::pending::<()>().await;
            });
            apart(move || Arc::strong_count(&in_thread)).await
        };
        assert_eq!(workshop.run(work).await, 3);
        assert_eq!(Arc::strong_count(&held), 2);
        workshop.close().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
