//! Commands with a deadline, whose output is kept and shown when they fail.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::clock::Deadline;

/// What is read of a command's output at most; the rest is dropped.
const MAX_OUTPUT_BYTES: u64 = 64 << 20;
/// Lines of output that an error shows.
const TAIL_LINES: usize = 30;
const DEFAULT_LIMIT: Duration = Duration::from_mins(1);

/// A command to be run: program, arguments, deadline.
#[derive(Debug, Clone)]
pub struct Cmd {
    words: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    folder: Option<OsString>,
    input: Option<Vec<u8>>,
    limit: Duration,
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// The last lines of both streams.
    pub fn tail(&self) -> String {
        let both = format!("{}\n{}", self.out.trim_end(), self.err.trim_end());
        tail(&both, TAIL_LINES)
    }
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

impl Cmd {
    /// A program found by path or in `$PATH`, with a limit of 60 s.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().to_owned()],
            variables: Vec::new(),
            folder: None,
            input: None,
            limit: DEFAULT_LIMIT,
        }
    }

    /// A command from words, the first being the program.
    pub fn words<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Self {
        let mut cmd = Self::new("");
        cmd.words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        cmd
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.words.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in this folder.
    #[must_use]
    pub fn dir(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.as_os_str().to_owned());
        self
    }

    /// Gives it this standard input; without, it has none.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Ends it after this time.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Puts other words in front, such as `nsenter …`.
    #[must_use]
    pub fn behind<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        let own = std::mem::take(&mut self.words);
        self.words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.words.extend(own);
        self
    }

    /// Runs it; an exit status other than 0 is an error that shows the end of the output.
    pub fn run(&self) -> Result<Output> {
        let output = self.attempt()?;
        if output.status.success() {
            return Ok(output);
        }
        bail!("`{self}` ended with {}:\n{}", output.status, output.tail())
    }

    /// Runs it and gives its standard output without white space around it.
    pub fn read(&self) -> Result<String> {
        Ok(self.run()?.out.trim().to_owned())
    }

    /// Runs it whatever its exit status is; an error means that it did not start or did not end in time.
    pub fn attempt(&self) -> Result<Output> {
        let mut child = self.command()?.spawn().with_context(|| format!("starting `{self}`"))?;
        feed(&mut child, self.input.clone());
        let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let status = wait(&mut child, Deadline::after(self.limit))?;
        let (out, err) = (collected(&out), collected(&err));
        match status {
            Some(status) => Ok(Output { status, out, err }),
            None => bail!(
                "`{self}` did not end within {} s:\n{}",
                self.limit.as_secs(),
                tail(&format!("{out}\n{err}"), TAIL_LINES)
            ),
        }
    }

    /// The same as a plain command, for processes that stay: streams are left to the caller.
    pub fn command(&self) -> Result<Command> {
        let (program, arguments) = self.words.split_first().context("a command without words")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let input = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        let line = words.join(" ");
        match line.char_indices().nth(300) {
            Some((cut, _)) => write!(f, "{}…", line.get(..cut).unwrap_or_default()),
            None => f.write_str(&line),
        }
    }
}

/// Written by a thread of its own, so that a child that reads late blocks nobody.
fn feed(child: &mut Child, input: Option<Vec<u8>>) {
    if let (Some(bytes), Some(mut stream)) = (input, child.stdin.take()) {
        thread::spawn(move || stream.write_all(&bytes));
    }
}

/// Read by a thread of its own: a grandchild that keeps the stream open must not keep us.
fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let Some(mut stream) = stream else { return };
        let mut chunk = vec![0; 64 << 10];
        let mut left = MAX_OUTPUT_BYTES;
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            left = left.saturating_sub(count as u64);
            let read = chunk.get(..count).unwrap_or_default().to_vec();
            if left > 0 && send.send(read).is_err() {
                return;
            }
        }
    });
    receive
}

fn collected(chunks: &Receiver<Vec<u8>>) -> String {
    let mut bytes = Vec::new();
    while let Ok(chunk) = chunks.recv_timeout(Duration::from_millis(500)) {
        bytes.extend(chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `None` when the deadline passed: the child is then ended and reaped.
fn wait(child: &mut Child, deadline: Deadline) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if deadline.passed() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_the_command_said() {
        let error = Cmd::words(["sh", "-c", "echo first; echo why >&2; exit 3"]).run().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.ends_with("first\nwhy"), "{text}");
    }

    #[test]
    fn a_command_that_hangs_is_ended_at_its_limit() {
        let error = Cmd::words(["sleep", "60"]).limit(Duration::from_millis(50)).run().unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(Cmd::new("cat").input("hello").read().unwrap(), "hello");
    }

    #[test]
    fn words_can_be_put_in_front() {
        let cmd = Cmd::words(["kubectl", "get"]).behind(["nsenter", "--net=x"]);
        assert_eq!(cmd.to_string(), "nsenter --net=x kubectl get");
    }
}
