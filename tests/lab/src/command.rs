//! Running programs, with errors that say what was run and what it answered.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program to its end and returns its standard output.
pub(crate) async fn run<I, S>(program: &str, args: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    output(command, None).await
}

/// Runs a prepared command to its end, feeding it `input`, and returns its standard output without the last line break.
pub(crate) async fn output(command: Command, input: Option<&[u8]>) -> Result<String> {
    let stdout = output_bytes(command, input).await?;
    Ok(String::from_utf8_lossy(&stdout).trim_end_matches('\n').to_owned())
}

/// As [`output`], with every byte.
pub(crate) async fn output_bytes(mut command: Command, input: Option<&[u8]>) -> Result<Vec<u8>> {
    let shown = shown(&command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(input), Some(mut stdin)) = (input, stdin) {
            // A program that ends without reading its input says why by itself.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.with_context(|| format!("cannot wait for {shown}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("{shown}: {}: {}", output.status, if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() });
    }
    Ok(output.stdout)
}

/// The command line, shortened: scripts given as arguments are not worth reading in an error.
fn shown(command: &Command) -> String {
    let command = command.as_std();
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            let line = word.lines().next().unwrap_or_default();
            if line.len() < word.len() { format!("'{line}…'") } else { line.to_owned() }
        })
        .collect::<Vec<_>>()
        .join(" ")
}
