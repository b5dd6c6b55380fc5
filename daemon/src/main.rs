//! counterfoil: see `counterfoil_daemon::commands`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    counterfoil_daemon::commands::main()
}
