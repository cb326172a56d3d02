//! Being written.

/// Arguments → command → exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
