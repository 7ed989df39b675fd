//! The way of one body to its target.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

use httpstream::ChainId;

use crate::files::{Destination, Target};
use crate::stdout::Stdout;

pub(crate) struct Outlet {
    target: Target,
    /// The length of what is in the file already, and stays (-C).
    kept: u64,
    sink: Sink,
    /// Bytes of the body that were passed on.
    bytes: u64,
    /// Whether anything was written, be it a head.
    has_written: bool,
}

/// Where the body goes. A write may block, and then blocks the loop, which is acceptable for files
/// on a local disk.
enum Sink {
    Closed,
    Stdout,
    File(File),
}

impl Outlet {
    /// If the body `continues` that of its file, it is appended.
    pub(crate) fn new(target: Target, continues: bool) -> Self {
        let kept = match &target {
            Target::File(file) if continues => file.length(),
            Target::File(_) | Target::Stdout { .. } => 0,
        };
        Self {
            target,
            kept,
            sink: Sink::Closed,
            bytes: 0,
            has_written: false,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the file that the body goes to, if it goes to one.
    pub(crate) fn file(&self) -> Option<&Destination> {
        match &self.target {
            Target::File(file) => Some(file),
            Target::Stdout { .. } => None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.sink, Sink::Closed)
    }

    pub(crate) fn open(&mut self) -> Result<(), String> {
        self.sink = match &self.target {
            Target::Stdout { .. } => Sink::Stdout,
            Target::File(file) => match file.append(self.kept) {
                Ok(file) => Sink::File(file),
                Err(error) => return Err(format!("{}: {error}", file.shown)),
            },
        };
        Ok(())
    }

    /// Returns whether the body may be written now. Otherwise its chain must pause.
    pub(crate) fn may_write(&self, stdout: &mut Stdout, chain: ChainId) -> bool {
        !matches!(self.sink, Sink::Stdout) || stdout.enter(chain)
    }

    /// Writes heads, and a piece of the body.
    pub(crate) fn write(
        &mut self,
        stdout: &mut Stdout,
        heads: &[u8],
        data: &[u8],
    ) -> Result<(), String> {
        if self.bytes == 0 && self.would_garble(data) {
            let why = "the body is binary, which would garble the terminal: use -o";
            return Err(why.to_owned());
        }
        self.bytes += data.len() as u64;
        self.has_written |= !heads.is_empty() || !data.is_empty();
        let mut write = |bytes: &[u8]| match &mut self.sink {
            Sink::Closed => Ok(()),
            Sink::Stdout => stdout.write(bytes),
            Sink::File(file) => file.write_all(bytes),
        };
        let written = write(heads).and_then(|()| write(data));
        written.map_err(|error| self.unwritten(&error))
    }

    fn would_garble(&self, data: &[u8]) -> bool {
        let is_forced = matches!(self.target, Target::Stdout { is_forced: true });
        let is_on_terminal = matches!(self.sink, Sink::Stdout) && Stdout::is_terminal();
        is_on_terminal && !is_forced && data.contains(&0)
    }

    /// Ends the body. `heads` are those of a response without a body that waited for its turn.
    pub(crate) fn finish(
        &self,
        stdout: &mut Stdout,
        heads: &[u8],
        chain: ChainId,
    ) -> Result<(), String> {
        let finished = match &self.sink {
            Sink::Stdout => stdout.say(chain, heads),
            Sink::Closed | Sink::File(_) => Ok(()),
        };
        finished.map_err(|error| self.unwritten(&error))
    }

    /// Whether another response can take the place of this one.
    pub(crate) fn can_begin_anew(&self) -> bool {
        match &self.sink {
            Sink::Closed => true,
            Sink::Stdout => !self.has_written,
            // What was written to it is removed when it is opened again.
            Sink::File(file) => is_regular(file),
        }
    }

    /// Prepares for another response.
    pub(crate) fn begin_anew(&mut self) {
        self.sink = Sink::Closed;
        self.bytes = 0;
        self.has_written = false;
    }

    /// Removes an incomplete file unless it is to be kept, and returns a note about it.
    pub(crate) fn clean_up(&self) -> String {
        let (Target::File(target), Sink::File(file)) = (&self.target, &self.sink) else {
            return String::new();
        };
        let path = &target.shown;
        if target.keeps_part || !is_regular(file) {
            let bytes = self.kept + self.bytes;
            return format!(" ({path} is incomplete, with {bytes} bytes)");
        }
        match fs::remove_file(&target.path) {
            Ok(()) => format!(" ({path} was removed)"),
            Err(error) => format!(" ({path} is incomplete and cannot be removed: {error})"),
        }
    }

    fn unwritten(&self, error: &io::Error) -> String {
        match self.file() {
            Some(Destination { shown, .. }) => format!("{shown}: cannot write the body: {error}"),
            None if error.kind() == ErrorKind::BrokenPipe => {
                "cannot write the body: nobody reads stdout any more".to_owned()
            }
            None => format!("cannot write the body: {error}"),
        }
    }
}

fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.is_file())
}
