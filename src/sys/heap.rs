//! The allocator of the C library, and what is left of what it gave.

use std::alloc::{GlobalAlloc, Layout, System};

/// Makes all threads share one heap. Each would have its own: what the threads of one layer free, those of
/// the next could not use, and the process would grow with the layers that it has seen. Large buffers are
/// reused, not allocated again and again, so the heap's lock is no place to wait.
pub fn share() {
    // Elsewhere there are no heaps to share.
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator, under its own lock; no pointer is involved.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// The system's allocator, which overwrites all memory that it is given back: so what parsers, decompressors
/// and the HTTP client keep of a secret goes as well, which nobody else can reach.
///
/// What wipes is not inlined: it would be wherever something is dropped, 300 KB of it.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: every block comes from `System` and goes back to it with the layout that it came with. In between
// it is only written to by `dealloc`, when its owner has given it up, and by `realloc` as documented there.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` has `layout.size()` bytes, which nobody uses any longer. No compiler takes this call
        // out, although the block is not read again. The rest of the caller's promises `System` asks for.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            System.dealloc(block, layout);
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` is not 0 and that it fits with this alignment.
        let other = unsafe { System.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !other.is_null() {
            // SAFETY: both blocks have so many bytes, and one of them is new; the other one's owner has given
            // it up.
            unsafe {
                block.copy_to_nonoverlapping(other, layout.size().min(size));
                self.dealloc(block, layout);
            }
        }
        other
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn blocks_grow_and_shrink_with_their_content() {
        let mut bytes: Vec<u8> = Vec::new();
        for number in 0..100_000_u32 {
            bytes.push(number as u8);
        }
        bytes.truncate(300);
        bytes.shrink_to_fit();
        assert!(
            bytes
                .iter()
                .zip(0_u32..)
                .all(|(byte, number)| *byte == number as u8)
        );
    }
}
