//! Compiles the two C files: thread state, which needs the initial-exec TLS model, and the variadic
//! execs.
fn main() {
    println!("cargo:rerun-if-changed=csrc");
    cc::Build::new()
        .file("csrc/thread.c")
        .file("csrc/exec.c")
        .flag("-fvisibility=hidden")
        .warnings(true)
        .compile("counterfoil_c");
}
