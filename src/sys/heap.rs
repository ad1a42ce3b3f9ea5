//! The allocator of the C library.

/// Makes all threads share one heap. Each would have its own: what the threads of one layer free, those of the next
/// could not use, and the process would grow with the layers that it has seen. Large buffers are reused, not allocated
/// again and again, so the heap's lock is no place to wait.
pub fn share() {
    // Elsewhere there are no heaps to share.
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator, under its own lock; no pointer is involved.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
