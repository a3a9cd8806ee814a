//! Returns free memory to the operating system.
//!
//! The allocator of glibc keeps freed memory for later allocations of the same thread. Each edition of Tor's directory
//! is read and merged on other threads than the last one, so the free memory of all threads together grew to 27 MB
//! within 24 editions. Nothing in this process needs this memory between two editions.

/// Returns free memory of all threads to the operating system. This may take some milliseconds, so callers call it on
/// a thread that may block, and rarely. Does nothing if the allocator is not glibc's.
pub fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "no crate wraps malloc_trim, which is the only way to return this memory")]
    // SAFETY: malloc_trim takes no pointer, may be called on any thread at any time, and changes no memory that is
    // allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// The memory of this process in kB that is in use by the process itself.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }

    #[test]
    fn freed_memory_goes_back_to_the_system() {
        // Small blocks, of which every thousandth stays in use: without `release`, no free block is at the end of the
        // memory, so the allocator keeps all of them.
        let mut blocks: Vec<Option<Box<[u8; 1000]>>> = (0..100_000).map(|_| Some(Box::new([1; 1000]))).collect();
        for (index, block) in blocks.iter_mut().enumerate() {
            if index % 1000 != 999 {
                *block = None;
            }
        }
        let before = resident();
        release();
        let after = resident();
        assert!(after + 50_000 < before, "{before} kB before it, {after} kB after it");
        assert_eq!(blocks.iter().flatten().count(), 100);
    }
}
