//! What we ask of OpenSSL itself: one table of its functions for each copy that is loaded.

use crate::library;
use core::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};

/// `SSL`.
pub type Ssl = c_void;
/// `BIO`.
pub type Bio = c_void;
/// `EVP_CIPHER_CTX`.
pub type CipherContext = c_void;
/// `EVP_CIPHER`.
pub type Cipher = c_void;

macro_rules! functions {
    ($( $field:ident: $name:literal $(or $older:literal)? => fn($($arg:ty),*) -> $out:ty; )*) => {
        /// Functions of one copy of libssl and its libcrypto; None for what this version lacks.
        #[allow(missing_docs)]
        pub struct OpenSsl {
            $(pub $field: Option<unsafe extern "C" fn($($arg),*) -> $out>,)*
        }
        impl OpenSsl {
            fn load(caller: *const c_void) -> Self {
                let find = |names: &[&CStr]| {
                    names.iter().map(|name| library::companion(caller, name)).find(|at| !at.is_null())
                };
                Self {
                    // SAFETY: the types are OpenSSL's declarations.
                    $($field: find(&[$name $(, $older)?]).map(|at| unsafe { core::mem::transmute(at) }),)*
                }
            }
        }
    };
}

functions! {
    version: c"SSL_version" => fn(*const Ssl) -> c_int;
    is_init_finished: c"SSL_is_init_finished" => fn(*const Ssl) -> c_int;
    export: c"SSL_export_keying_material" => fn(*mut Ssl, *mut c_uchar, usize, *const c_char, usize, *const c_uchar, usize, c_int) -> c_int;
    client_random: c"SSL_get_client_random" => fn(*const Ssl, *mut c_uchar, usize) -> usize;
    error: c"SSL_get_error" => fn(*const Ssl, c_int) -> c_int;
    shutdown_state: c"SSL_get_shutdown" => fn(*const Ssl) -> c_int;
    is_server: c"SSL_is_server" => fn(*const Ssl) -> c_int;
    session_reused: c"SSL_session_reused" => fn(*const Ssl) -> c_int;
    server_name: c"SSL_get_servername" => fn(*const Ssl, c_int) -> *const c_char;
    current_cipher: c"SSL_get_current_cipher" => fn(*const Ssl) -> *const c_void;
    cipher_id: c"SSL_CIPHER_get_id" => fn(*const c_void) -> c_uint;
    early_status: c"SSL_get_early_data_status" => fn(*const Ssl) -> c_int;
    set_mark: c"ERR_set_mark" => fn() -> c_int;
    pop_to_mark: c"ERR_pop_to_mark" => fn() -> c_int;
    peek_last_error: c"ERR_peek_last_error" => fn() -> c_ulong;
    context_cipher: c"EVP_CIPHER_CTX_get0_cipher" or c"EVP_CIPHER_CTX_cipher" => fn(*const CipherContext) -> *const Cipher;
    is_encrypting: c"EVP_CIPHER_CTX_is_encrypting" or c"EVP_CIPHER_CTX_encrypting" => fn(*const CipherContext) -> c_int;
    cipher_flags: c"EVP_CIPHER_get_flags" or c"EVP_CIPHER_flags" => fn(*const Cipher) -> c_ulong;
    bio_type: c"BIO_method_type" => fn(*const Bio) -> c_int;
    bio_control: c"BIO_ctrl" => fn(*mut Bio, c_int, c_long, *mut c_void) -> c_long;
}

/// Copies that may be loaded in one process's life.
const COPIES: usize = 16;

/// One place for a table.
pub struct Slot {
    /// 0 free, 1 being filled, 2 ready, 3 retired (its library may be gone).
    state: AtomicU32,
    table: core::cell::UnsafeCell<MaybeUninit<OpenSsl>>,
}

// SAFETY: written by who moved `state` from 0 to 1, read only after it is 2.
unsafe impl Sync for Slot {}

/// The tables.
pub static LIBRARIES: [Slot; COPIES] =
    [const { Slot { state: AtomicU32::new(0), table: core::cell::UnsafeCell::new(MaybeUninit::uninit()) } };
        COPIES];

/// `library::cached`'s number for the table itself.
const NUMBER: u8 = 255;

impl Slot {
    /// Its library may have been unloaded: never used again. A table in use stays readable.
    pub fn retire(&self) {
        let _ = self.state.compare_exchange(2, 3, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The table for calls from `caller`.
#[inline]
pub fn of(caller: *const c_void) -> Option<&'static OpenSsl> {
    let at = library::remembered(caller, NUMBER, || load(caller));
    // SAFETY: null, or a table in LIBRARIES that is ready.
    unsafe { at.cast::<OpenSsl>().as_ref() }
}

/// [`library::remembered`]'s number for what tells a context's direction.
const DIRECTION: u8 = 254;

/// The context was made to encrypt. Asked where there may be no libssl.
pub fn encrypts(context: *const CipherContext, caller: *const c_void) -> bool {
    let at = library::remembered(caller, DIRECTION, || {
        let names = [c"EVP_CIPHER_CTX_is_encrypting", c"EVP_CIPHER_CTX_encrypting"];
        let found = names.iter().map(|name| library::companion(caller, name)).find(|at| !at.is_null());
        found.unwrap_or(core::ptr::null_mut())
    });
    if at.is_null() {
        return false;
    }
    // SAFETY: OpenSSL's declaration.
    let ask: unsafe extern "C" fn(*const CipherContext) -> c_int = unsafe { core::mem::transmute(at) };
    // SAFETY: the context of the call in progress.
    unsafe { ask(context) == 1 }
}

#[cold]
fn load(caller: *const c_void) -> *mut c_void {
    let table = OpenSsl::load(caller);
    if table.version.is_none() || table.export.is_none() {
        return core::ptr::null_mut();
    }
    let places = |table: &OpenSsl| (table.version.map(|f| f as usize), table.set_mark.map(|f| f as usize));
    for slot in &LIBRARIES {
        if slot.state.load(Ordering::Acquire) < 2 {
            continue;
        }
        // SAFETY: a table is not written any more once it was ready.
        let ready = unsafe { (*slot.table.get()).assume_init_ref() };
        if places(ready) == places(&table) {
            slot.state.store(2, Ordering::Release);
            return slot.table.get().cast();
        }
    }
    for slot in &LIBRARIES {
        if slot.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: ours alone while the state is 1.
            unsafe { (*slot.table.get()).write(table) };
            slot.state.store(2, Ordering::Release);
            return slot.table.get().cast();
        }
    }
    core::ptr::null_mut()
}
