//! `swarmkeeper`: arguments → command → exit code.

fn main() -> std::process::ExitCode {
    swarmkeeper::cli::main()
}
