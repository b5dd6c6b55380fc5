//! What we ask of GnuTLS itself, after a call on a session: its flow id, and what it refused.

use crate::lanes;
use crate::library::Function;
use crate::objects::Object;
use crate::session::{LABEL, Session, rejected};
use crate::shield::{keeping_errno, shielded};
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{CLIENT, Flow, Kind, NO_CIPHER_WITNESS, Reason, SESSION_RESUMED, Tap};

/// `gnutls_session_t`.
pub type GnuSession = c_void;

/// `gnutls_datum_t`.
#[repr(C)]
pub struct Datum {
    /// The bytes; not ours.
    pub data: *const u8,
    /// How many.
    pub size: c_uint,
}

impl Datum {
    /// No bytes.
    pub const EMPTY: Self = Self { data: null(), size: 0 };

    /// The bytes.
    ///
    /// # Safety
    /// As GnuTLS filled it, and what it points into lives on.
    pub unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: contract.
        unsafe { crate::hooks::pieces::bytes(self.data.cast(), self.size as usize) }
    }
}

macro_rules! functions {
    ($( $number:literal $name:ident($($arg:ident: $type:ty),*) -> $out:ty; )*) => { $(
        /// The GnuTLS function of that name, for a call from `caller`. None: this GnuTLS lacks it.
        ///
        /// # Safety
        /// That function's contract, with a live session.
        #[allow(clippy::too_many_arguments, reason = "gnutls.h's")]
        pub unsafe fn $name(caller: *const c_void, $($arg: $type),*) -> Option<$out> {
            static FUNCTION: Function = Function::new(
                // SAFETY: ends with the NUL just added, and a name holds none.
                unsafe { CStr::from_bytes_with_nul_unchecked(concat!("gnutls_", stringify!($name), "\0").as_bytes()) },
                $number,
            );
            let at = FUNCTION.real(caller);
            (!at.is_null()).then(|| {
                // SAFETY: the type is gnutls.h's.
                let real: unsafe extern "C" fn($($type),*) -> $out = unsafe { core::mem::transmute(at) };
                // SAFETY: contract.
                unsafe { real($($arg),*) }
            })
        }
    )* };
}

functions! {
    80 prf_rfc5705(session: *mut GnuSession, label_size: usize, label: *const c_char, context_size: usize, context: *const c_char, size: usize, out: *mut c_char) -> c_int;
    81 session_get_random(session: *mut GnuSession, client: *mut Datum, server: *mut Datum) -> ();
    82 protocol_get_version(session: *mut GnuSession) -> c_int;
    83 session_is_resumed(session: *mut GnuSession) -> c_int;
    84 server_name_get(session: *mut GnuSession, name: *mut c_void, length: *mut usize, kind: *mut c_uint, index: c_uint) -> c_int;
    85 alert_get(session: *mut GnuSession) -> c_int;
    86 record_get_max_size(session: *mut GnuSession) -> usize;
    87 packet_get(packet: *mut c_void, data: *mut Datum, sequence: *mut u8) -> ();
}

/// gnutls.h: try again, nothing is wrong.
const AGAIN: [isize; 2] = [-28, -52];
const FATAL_ALERT_RECEIVED: isize = -12;
/// The most plaintext that one record holds (RFC 8446, 5.1).
const RECORD: usize = 16384;

/// Codes by which GnuTLS refuses a record (gnutls.h).
const REFUSALS: &[(isize, &str)] = &[
    (-24, "bad-record-mac"),
    (-15, "unexpected-message"),
    (-9, "decode-error"),
    (-7, "record-overflow"),
    (-417, "record-overflow"),
    (-8, "wrong-version-number"),
];

/// Alerts by which the peer does (RFC 8446, 6).
const ALERTS: &[(c_int, &str)] = &[
    (20, "bad-record-mac"),
    (21, "decryption-failed"),
    (22, "record-overflow"),
    (50, "decode-error"),
    (51, "decrypt-error"),
    (10, "unexpected-message"),
];

/// What a write of `length` bytes that returned `result` keeps: GnuTLS has sealed one record then,
/// and sends that, whatever a retry offers (gnutls_record_send(3), "GNUTLS_E_AGAIN").
///
/// # Safety
/// A live session.
pub unsafe fn kept(caller: *const c_void, session: *mut GnuSession, length: usize, result: isize) -> usize {
    if !AGAIN.contains(&result) {
        return 0;
    }
    // SAFETY: contract.
    let most = keeping_errno(|| unsafe { record_get_max_size(caller, session) });
    length.min(RECORD).min(most.filter(|&most| most > 0).unwrap_or(RECORD))
}

/// After a call on a session. `established`: it succeeded, and only a finished handshake lets it.
///
/// # Safety
/// The program's own session, in the thread that uses it.
#[inline]
pub unsafe fn after(
    call: &Session,
    caller: *const c_void,
    session: *mut GnuSession,
    established: bool,
    result: isize,
) {
    let Some(object) = call.object else { return };
    if object.tls.flow_told.load(Ordering::Relaxed) == 0 {
        if established {
            // SAFETY: contract.
            keeping_errno(|| shielded((), || unsafe { tell_flow(object, caller, session) }));
        }
    } else if result < 0 && !AGAIN.contains(&result) {
        // SAFETY: contract.
        keeping_errno(|| shielded((), || unsafe { tell_rejected(object, caller, session, result) }));
    }
}

/// gnutls_protocol_t as the two bytes on the wire; datagram versions are 0.
fn version(protocol: c_int) -> u16 {
    match protocol {
        1..=5 => 0x0300 + (protocol as u16 - 1),
        _ => 0,
    }
}

#[cold]
unsafe fn tell_flow(object: &Object, caller: *const c_void, session: *mut GnuSession) {
    let mut flow: Flow = Zeroable::zeroed();
    let label = LABEL.to_bytes().len();
    let out = flow.flow.as_mut_ptr().cast();
    // SAFETY: room for as many bytes as are said. A NULL context is none at all, as in TLS 1.2's
    // exporter without one (RFC 5705, 4).
    let done =
        unsafe { prf_rfc5705(caller, session, label, LABEL.as_ptr(), 0, null(), flow.flow.len(), out) };
    if done != Some(0) {
        return;
    }
    object.tls.flow_told.store(1, Ordering::Relaxed);
    // SAFETY: contract.
    let protocol = unsafe { protocol_get_version(caller, session) }.unwrap_or(0);
    let mut client = Datum::EMPTY;
    let mut server = Datum::EMPTY;
    // SAFETY: both are filled with what lives as long as the session.
    let hello = unsafe {
        session_get_random(caller, session, &raw mut client, &raw mut server);
        client.bytes()
    };
    let Some(guard) = Guard::enter() else { return };
    flow.header = lanes::header(Kind::Flow, 2, 0, object.number());
    flow.header.flags = NO_CIPHER_WITNESS;
    flow.version = version(protocol);
    object.tls.version.store(u32::from(flow.version), Ordering::Relaxed);
    flow.carrier = object.tls.carrier.load(Ordering::Relaxed);
    if object.tls.client.load(Ordering::Relaxed) != 0 {
        flow.header.flags |= CLIENT;
    }
    // SAFETY: contract.
    if unsafe { session_is_resumed(caller, session) }.is_some_and(|resumed| resumed != 0) {
        flow.header.flags |= SESSION_RESUMED;
    }
    if hello.len() == 32 {
        flow.hello = crate::mac::hello_tag(hello);
    }
    let mut length = flow.name.len();
    let mut kind: c_uint = 0;
    let name = flow.name.as_mut_ptr().cast();
    // SAFETY: room for `length` bytes; GnuTLS says so if that is too little.
    let named = unsafe { server_name_get(caller, session, name, &raw mut length, &raw mut kind, 0) };
    if named == Some(0) {
        flow.name_len = length.min(flow.name.len()) as u32;
    }
    lanes::push_record(&guard, &flow);
    if flow.version == 0 {
        // Datagrams may be lost or change places: offsets say nothing.
        object.out.doubt(&guard, object.number(), Tap::TlsWrite, Reason::Datagram);
        object.into.doubt(&guard, object.number(), Tap::TlsRead, Reason::Datagram);
    }
}

#[cold]
unsafe fn tell_rejected(object: &Object, caller: *const c_void, session: *mut GnuSession, result: isize) {
    let refusal = if result == FATAL_ALERT_RECEIVED {
        // SAFETY: contract.
        let alert = unsafe { alert_get(caller, session) };
        ALERTS.iter().find(|known| Some(known.0) == alert).map(|&(code, text)| (code as u32, true, text))
    } else {
        let known = REFUSALS.iter().find(|known| known.0 == result);
        known.map(|&(code, text)| (code.unsigned_abs() as u32, false, text))
    };
    if let Some((code, by_peer, text)) = refusal
        && object.tls.rejected_told.swap(1, Ordering::Relaxed) == 0
    {
        rejected(object, code, by_peer, text);
    }
}

/// Nothing to give for a pointer that a call may want.
pub const NOTHING: *mut u8 = null_mut();
