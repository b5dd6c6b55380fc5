//! What belongs to whoever has claimed a stream.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

/// In shared memory. `T` is valid at any bytes' value: any process of the family may go on with it.
#[repr(transparent)]
pub struct Claimed<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: reached only by `get`, see there.
unsafe impl<T: Send> Sync for Claimed<T> {}

impl<T> Claimed<T> {
    /// # Safety
    /// The caller has claimed the stream, or makes the object, of which nobody else knows yet; and holds no other
    /// reference to this.
    #[allow(clippy::mut_from_ref, reason = "the claim is the lock")]
    pub unsafe fn get(&self) -> &mut T {
        // SAFETY: contract; valid at any bytes' value.
        unsafe { (*self.0.get()).assume_init_mut() }
    }
}
