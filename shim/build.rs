//! Compiles the one C file: thread state that needs the initial-exec TLS model.
fn main() {
    println!("cargo:rerun-if-changed=csrc/thread.c");
    cc::Build::new()
        .file("csrc/thread.c")
        .flag("-fvisibility=hidden")
        .warnings(true)
        .compile("counterfoil_thread");
}
