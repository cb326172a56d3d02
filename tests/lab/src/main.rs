//! The `lab` program: the lab by hand.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(cli::run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that {:?} adds: the messages say what was done and to what.
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
