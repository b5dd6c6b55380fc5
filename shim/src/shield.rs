//! What keeps a recording from showing in the host: its panics end here, and errno is what the host's own call left.
//!
//! Called around everything that a hook does beside the real call.

/// Runs a recording. A panic in it must not reach the host; the real call is never inside.
#[inline(always)]
pub fn shielded<T>(otherwise: T, recording: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(recording)).unwrap_or(otherwise)
}

/// `f` with errno as it was afterwards.
#[inline]
pub fn keeping_errno<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    let out = f();
    // SAFETY: as above.
    unsafe { *errno = saved };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hint::black_box;

    /// Past what is to be dropped on the way, and through the personality routine that stands before Rust's.
    #[test]
    fn a_panic_ends_with_its_recording() {
        let mut order = Vec::new();
        struct Last<'a>(&'a mut Vec<&'static str>);
        impl Drop for Last<'_> {
            fn drop(&mut self) {
                self.0.push("dropped");
            }
        }
        let out = shielded(1, || {
            let last = Last(&mut order);
            last.0.push("begun");
            let nothing: &[u8] = black_box(&[]);
            usize::from(nothing[black_box(0)])
        });
        assert_eq!((out, order), (1, vec!["begun", "dropped"]));
    }
}
