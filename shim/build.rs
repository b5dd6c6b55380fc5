//! Compiles the C files: thread state, which needs the initial-exec TLS model, the variadic execs, what
//! puts off libaegis's look at the processor, and what lets a thread be unwound through us.
fn main() {
    link_unwinder();
    println!("cargo:rustc-link-arg-cdylib=-Wl,--wrap=aegis_runtime_get_cpu_features");
    println!("cargo:rerun-if-changed=csrc");
    cc::Build::new()
        .file("csrc/thread.c")
        .file("csrc/exec.c")
        .file("csrc/late.c")
        .file("csrc/unwind.c")
        .flag("-fvisibility=hidden")
        .warnings(true)
        .compile("counterfoil_c");
    // In tests, too: those panic. Not all of them link the library, so the archive is named once more.
    println!("cargo:rustc-link-arg=-Wl,--wrap=rust_eh_personality");
    println!("cargo:rustc-link-arg={}/libcounterfoil_c.a", std::env::var("OUT_DIR").unwrap_or_default());
}

/// gcc's unwinder into the library itself, where gcc has it as an archive: else every program that is
/// started loads libgcc_s.so for us, which takes longer than all else that the loader does for us.
fn link_unwinder() {
    let cc = cc::Build::new().get_compiler();
    let Ok(out) = cc.to_command().arg("-print-file-name=libgcc_eh.a").output() else { return };
    let path = std::path::PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    // gcc answers with the bare name for what it hasn't got.
    if let (true, Some(folder)) = (path.is_file(), path.parent()) {
        println!("cargo:rustc-link-search=native={}", folder.display());
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}
