//! The execs that take their arguments one by one. Their bodies are C (csrc/exec.c), and a C symbol
//! is not exported from a Rust library: these are the exported names, each one jump.

use core::arch::naked_asm;
use core::ffi::c_int;

unsafe extern "C" {
    fn counterfoil_execl() -> c_int;
    fn counterfoil_execlp() -> c_int;
    fn counterfoil_execle() -> c_int;
}

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    () => {
        "jmp {}"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "b {}"
    };
}
#[cfg(target_arch = "riscv64")]
macro_rules! jump {
    () => {
        "tail {}"
    };
}

macro_rules! jumps {
    ($($name:ident => $to:ident)*) => {
        $(
            /// See the C function of that name. All registers and the stack stay as they are.
            ///
            /// # Safety
            /// That function's contract.
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() -> c_int {
                naked_asm!(jump!(), sym $to)
            }
        )*
        /// The C names of these hooks.
        #[cfg(test)]
        pub const HOOKS: &[&str] = &[$(stringify!($name)),*];
    };
}

jumps! {
    execl => counterfoil_execl
    execlp => counterfoil_execlp
    execle => counterfoil_execle
}
