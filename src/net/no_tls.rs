//! Replaces `tls` in a build without that feature. No TLS state can be created, so nothing here
//! ever runs.

use std::io::IoSlice;

pub(crate) use crate::tls::{Problem, Tls, TlsInfo};

/// See the real one.
pub(crate) const MIN_READ_BUFFER: usize = 4096;

/// See the real one.
#[derive(Debug)]
pub(crate) enum TlsState {}

/// See the real one.
#[derive(Debug, Default)]
pub(crate) struct Scratch {}

impl TlsState {
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

    pub(crate) fn close(&mut self) -> Vec<u8> {
        match *self {}
    }

    pub(crate) fn info(&self) -> Option<TlsInfo> {
        match *self {}
    }
}

/// See the real one.
#[derive(Debug)]
pub(crate) struct Flight<'a>(&'a TlsState);

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
