//! The functions that we stand before.
//!
//! One macro declares a family of hooks. Each gets a definition under the C name, whose body sees
//! the real function under the name given first, and a place that remembers where that is. The body
//! is two lines: what happens around the call is in `record`.

use core::ffi::{CStr, c_void};
use core::marker::PhantomData;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Where a libc function really is; looked up with RTLD_NEXT, so that other preloads keep their
/// place. Resolved by the constructor, or by the first call if that comes earlier.
pub struct Real<F> {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
    kind: PhantomData<F>,
}

impl<F: Copy> Real<F> {
    /// Not looked up yet.
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, at: AtomicPtr::new(null_mut()), kind: PhantomData }
    }

    /// The function, or None if there is none. A miss is not remembered.
    ///
    /// # Safety
    /// `F` is the function's type.
    #[inline]
    pub unsafe fn get(&self) -> Option<F> {
        let mut at = self.at.load(Ordering::Relaxed);
        if at.is_null() {
            at = self.find();
        }
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        // SAFETY: a non-null function pointer of type `F` (contract).
        (!at.is_null()).then(|| unsafe { core::mem::transmute_copy::<*mut c_void, F>(&at) })
    }

    #[cold]
    fn find(&self) -> *mut c_void {
        // SAFETY: a C string.
        let at = unsafe { crate::hooks::dlsym::look_up(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(at, Ordering::Relaxed);
        at
    }
}

/// What a hook returns when there is no real function: that function's own error.
pub trait Missing {
    /// Sets errno where that is how the function fails.
    fn missing() -> Self;
}

fn no_such_function() {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
}

impl Missing for i32 {
    fn missing() -> Self {
        no_such_function();
        -1
    }
}
impl Missing for isize {
    fn missing() -> Self {
        no_such_function();
        -1
    }
}
impl Missing for i64 {
    fn missing() -> Self {
        no_such_function();
        -1
    }
}
impl Missing for () {
    fn missing() -> Self {}
}
impl<T> Missing for *mut T {
    fn missing() -> Self {
        no_such_function();
        null_mut()
    }
}

/// Declares hooks on libc functions. `real name(args) -> type { body }`: the body may call
/// `real(args)`, once, and runs under the function's own contract.
macro_rules! hooks {
    ($( $real:ident $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block )*) => {
        $(
            #[allow(non_snake_case)]
            mod $name {
                #[allow(unused_imports)]
                use super::*;
                pub(super) static REAL: $crate::real::Real<unsafe extern "C-unwind" fn($($type),*) $(-> $out)?> =
                    $crate::real::Real::new(unsafe {
                        // SAFETY: ends with the NUL just added, and a name holds none.
                        core::ffi::CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes())
                    });
            }
            /// See the C function of that name.
            ///
            /// # Safety
            /// That function's contract.
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name($($arg: $type),*) $(-> $out)? {
                // SAFETY: the type is the C declaration's; the body keeps to the contract that its
                // caller keeps to.
                unsafe {
                    let Some($real) = $name::REAL.get() else { return $crate::real::Missing::missing() };
                    $body
                }
            }
        )*
        /// The C names of these hooks.
        #[cfg(test)]
        pub const HOOKS: &[&str] = &[$(stringify!($name)),*];
        /// Looks all of them up.
        pub fn resolve() {
            // SAFETY: the types are the C declarations'.
            $(let _ = unsafe { $name::REAL.get() };)*
        }
    };
}
pub(crate) use hooks;
