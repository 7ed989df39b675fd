//! What stands for TLS sessions in a build without the feature `tls`: none can be made, so nothing here is ever run.

use std::fmt;
use std::io::IoSlice;

/// What an engine is told about TLS: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls;

/// How a connection is protected: there is none that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsInfo {}

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("built without the feature `tls`")
    }
}

impl std::error::Error for Problem {}

/// See the real one.
pub(crate) const MIN_READ_BUFFER: usize = 4096;

/// See the real one.
#[derive(Debug)]
pub(crate) enum Session {}

/// See the real one.
#[derive(Debug, Default)]
pub(crate) struct Scratch {}

impl Session {
    pub(crate) fn new(_: &Tls, _: &str) -> Result<Self, Problem> {
        Err(Problem)
    }

    pub(crate) fn restore(&self, _: &mut [u8]) -> usize {
        match *self {}
    }

    pub(crate) fn receive(
        &mut self,
        _: &mut [u8],
        _: usize,
        _: &mut Vec<u8>,
        _: &mut usize,
    ) -> Result<(), Problem> {
        match *self {}
    }

    pub(crate) fn has_pending(&self) -> bool {
        match *self {}
    }

    pub(crate) fn unasked(&self) -> usize {
        match *self {}
    }

    pub(crate) fn is_established(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_finished(&self) -> bool {
        match *self {}
    }

    pub(crate) fn failure(&self) -> Option<&Problem> {
        match *self {}
    }

    pub(crate) fn has_outbound(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_inside_record(&self) -> bool {
        match *self {}
    }

    pub(crate) fn seal<'a>(
        &'a mut self,
        _: &[&[u8]],
        _: usize,
        _: &'a mut Scratch,
    ) -> Result<Flight<'a>, Problem> {
        match *self {}
    }

    pub(crate) fn close(self) -> Vec<u8> {
        match self {}
    }

    pub(crate) fn info(&self) -> Option<TlsInfo> {
        match *self {}
    }
}

/// See the real one.
#[derive(Debug)]
pub(crate) struct Flight<'a>(&'a Session);

impl Flight<'_> {
    pub(crate) fn sealed(&self) -> usize {
        match *self.0 {}
    }

    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        match *self.0 {}
    }

    pub(crate) fn len(&self) -> usize {
        match *self.0 {}
    }

    pub(crate) fn on_sent(self, _: usize) {
        match *self.0 {}
    }
}
