//! Content codings of a session: which ones it accepts, and how the body of a response is decoded
//! (RFC 9110 §8.4, §12.5.3).
//!
//! Each coding has a file of its own, with a [`Decoder`]. Decoders allocate their buffers with the
//! first bytes of a body, so those of a response without a body cost nothing.

use std::fmt;

use crate::error::Error;
use crate::policy::Screening;

#[cfg(not(all(feature = "brotli", feature = "gzip", feature = "zstd")))]
mod absent;
#[cfg(feature = "brotli")]
mod brotli;
#[cfg(any(feature = "brotli", feature = "gzip", feature = "zstd"))]
mod contained;
#[cfg(feature = "gzip")]
mod deflate;
#[cfg(any(feature = "brotli", feature = "gzip", feature = "zstd"))]
mod fault;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(test)]
mod testing;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(not(feature = "brotli"))]
use absent as brotli;
#[cfg(not(feature = "gzip"))]
use absent as deflate;
#[cfg(not(feature = "gzip"))]
use absent as gzip;
#[cfg(not(feature = "zstd"))]
use absent as zstd;

/// The most codings that a response may have. Servers apply one, proxies rarely another; more only
/// serve to amplify.
const MAX_LAYERS: usize = 3;

/// The default of [`Decode::max_bytes`].
const MAX_BYTES: u64 = 1 << 30;

/// Which content codings a session decodes; see
/// [`SessionBuilder::decode`](super::SessionBuilder::decode).
///
/// Each coding needs a feature of the crate, of which none is on by default. Without it, choosing
/// the coding is an error of [`build`](super::SessionBuilder::build).
///
/// | feature | codings | from | memory for a body |
/// |---|---|---|---|
/// | `gzip` | `gzip` (also `x-gzip`), `deflate` | RFC 1952, RFC 1950 and 1951 | 48 KiB |
/// | `brotli` | `br` | RFC 7932 | up to 28 MiB |
/// | `zstd` | `zstd` | RFC 8878, RFC 9659 | up to 11 MiB |
///
/// The memory for Brotli and zstd is mostly that for the window, which the server chooses: of at
/// most 16 MiB, and of at most 8 MiB. It grows with the body, so short ones need little.
///
/// ```
/// use httpstream::session::{Decode, Session};
///
/// # #[cfg(feature = "gzip")] {
/// // Neither Brotli nor zstd, and at most 10 MB of a streamed body.
/// let decode = Decode::all().brotli(false).zstd(false).max_bytes(10_000_000);
/// let session = Session::builder().decode(decode).build()?;
/// # }
/// # Ok::<(), httpstream::Error>(())
/// ```
///
/// # Requests
/// The codings are added to each request as `Accept-Encoding`, such as `gzip, deflate, br, zstd`. A
/// request that has this field itself is left alone, and so is its response; likewise one with
/// `Range`, because a part of a coded body cannot be decoded. The same applies if a policy around
/// the session has added one of these fields. A policy [inside](super::SessionBuilder::policy) it
/// comes later, and cannot add Accept-Encoding any more.
///
/// # Responses
/// The body is decoded if all codings in `Content-Encoding` are chosen, `identity` aside. The
/// readback sees neither this field nor `Content-Length` then. With an unknown coding, the response
/// stays as it is. So do responses without a body, those to HEAD and those with status 206.
///
/// Bodies are decoded piece by piece as they arrive, whether they are collected or streamed, and
/// within the bounds of a turn. What a server flushes is delivered at once. Bodies may be coded up
/// to three times.
///
/// # Errors
/// - [`Truncated`](crate::ErrorKind::Truncated): the body ended before its coding did.
/// - [`Malformed`](crate::ErrorKind::Malformed): the body or one of its checksums is wrong, or
///   there are more than three codings. The source names the coding.
/// - [`TooLarge`](crate::ErrorKind::TooLarge): the decoded body exceeds
///   [`Limits::max_body_bytes`](crate::Limits::max_body_bytes) if it is collected, or
///   [`max_bytes`](Self::max_bytes) if it is streamed. The limit also applies to the result of each
///   of several codings. Before it is decoded, a body may have twice the limit and 64 KiB.
///
/// Bytes after the end of a coding are ignored, as in browsers, except with `zstd`. After a gzip
/// member, they are another one if they begin like one.
#[derive(Clone, Debug)]
pub struct Decode {
    gzip: bool,
    brotli: bool,
    zstd: bool,
    max_bytes: u64,
}

impl Decode {
    /// All codings whose features are on.
    pub fn all() -> Self {
        Self {
            gzip: GZIP.install.is_some(),
            brotli: BROTLI.install.is_some(),
            zstd: ZSTD.install.is_some(),
            max_bytes: MAX_BYTES,
        }
    }

    /// Sets whether `gzip` and `deflate` are decoded, which needs the feature `gzip`.
    #[must_use]
    pub fn gzip(mut self, yes: bool) -> Self {
        self.gzip = yes;
        self
    }

    /// Sets whether `br` is decoded, which needs the feature `brotli`.
    #[must_use]
    pub fn brotli(mut self, yes: bool) -> Self {
        self.brotli = yes;
        self
    }

    /// Sets whether `zstd` is decoded, which needs the feature of that name.
    #[must_use]
    pub fn zstd(mut self, yes: bool) -> Self {
        self.zstd = yes;
        self
    }

    /// Sets the most bytes that a body may have after each coding is removed, if it is streamed.
    /// Default 1 GiB. A body that exceeds this fails with
    /// [`Violation::DecodedTooLarge`](crate::Violation::DecodedTooLarge). A collected body is
    /// limited by [`Limits::max_body_bytes`](crate::Limits::max_body_bytes) instead.
    #[must_use]
    pub fn max_bytes(mut self, most: u64) -> Self {
        self.max_bytes = most;
        self
    }

    /// Returns what a session needs to decode, or `None` if no coding is chosen.
    ///
    /// # Errors
    /// A coding is chosen whose feature is off.
    pub(super) fn check(&self) -> Result<Option<Codings>, String> {
        let all = [
            (self.gzip, &GZIP),
            (self.gzip, &DEFLATE),
            (self.brotli, &BROTLI),
            (self.zstd, &ZSTD),
        ];
        let mut chosen = Vec::new();
        for (is_chosen, coding) in all {
            match (is_chosen, coding.install) {
                (false, _) => {}
                (true, Some(install)) => chosen.push(Chosen { coding, install }),
                (true, None) => {
                    let (name, feature) = (coding.names[0], coding.feature);
                    return Err(format!("{name} needs the feature `{feature}`"));
                }
            }
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let names: Vec<_> = chosen.iter().map(|it| it.coding.names[0]).collect();
        Ok(Some(Codings {
            accepted: names.join(", ").into(),
            chosen: chosen.into(),
            max_bytes: self.max_bytes,
        }))
    }
}

/// Adds a decoder to those of a response.
type Install = fn(Screening) -> Screening;

/// A content coding.
struct Coding {
    /// Its name, then its aliases.
    names: &'static [&'static str],
    feature: &'static str,
    /// `None` without the feature.
    install: Option<Install>,
}

const GZIP: Coding = Coding {
    names: &["gzip", "x-gzip"],
    feature: "gzip",
    install: gzip::DECODER,
};

const DEFLATE: Coding = Coding {
    names: &["deflate"],
    feature: "gzip",
    install: deflate::DECODER,
};

const BROTLI: Coding = Coding {
    names: &["br"],
    feature: "brotli",
    install: brotli::DECODER,
};

const ZSTD: Coding = Coding {
    names: &["zstd"],
    feature: "zstd",
    install: zstd::DECODER,
};

/// The codings that a session decodes: at least one.
pub(super) struct Codings {
    accepted: Box<str>,
    chosen: Box<[Chosen]>,
    max_bytes: u64,
}

/// A coding whose feature is on.
#[derive(Clone, Copy)]
struct Chosen {
    coding: &'static Coding,
    install: Install,
}

impl Codings {
    /// Returns the value of Accept-Encoding.
    pub(super) fn accepted(&self) -> &str {
        &self.accepted
    }

    /// Adds the decoders that the values of Content-Encoding call for.
    ///
    /// # Errors
    /// There are more than [`MAX_LAYERS`].
    pub(super) fn screen<'v>(
        &self,
        screening: Screening,
        values: impl Iterator<Item = &'v [u8]>,
    ) -> Result<Screening, Error> {
        let layers = self.layers(values).map_err(|TooMany(count)| {
            Error::malformed(format!(
                "the body has {count} content codings, more than {MAX_LAYERS}"
            ))
        })?;
        let mut screening = screening.max_decoded_bytes(self.max_bytes);
        // The last one named was applied last (RFC 9110 §8.4).
        for layer in layers.into_iter().flatten().rev() {
            screening = (layer.install)(screening);
        }
        Ok(screening)
    }

    /// Returns the codings in the order in which they were applied: none if there is an unknown
    /// one, since what it covers cannot be decoded.
    fn layers<'v>(&self, values: impl Iterator<Item = &'v [u8]>) -> Result<Layers, TooMany> {
        let mut layers = Layers::default();
        let mut count = 0;
        let names = values.flat_map(|value| value.split(|&b| b == b','));
        for name in names.map(<[u8]>::trim_ascii) {
            if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let Some(found) = self.find(name) else {
                return Ok(Layers::default());
            };
            if let Some(layer) = layers.get_mut(count) {
                *layer = Some(*found);
            }
            count += 1;
        }
        match count > MAX_LAYERS {
            true => Err(TooMany(count)),
            false => Ok(layers),
        }
    }

    fn find(&self, name: &[u8]) -> Option<&Chosen> {
        self.chosen.iter().find(|chosen| {
            let mut names = chosen.coding.names.iter();
            names.any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
        })
    }
}

type Layers = [Option<Chosen>; MAX_LAYERS];

/// A body has this many codings.
#[derive(Debug, PartialEq, Eq)]
struct TooMany(usize);

impl fmt::Debug for Codings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codings")
            .field("accepted", &self.accepted)
            .field("max_bytes", &self.max_bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codings(decode: &Decode) -> Codings {
        let codings = decode.check().expect("the features are on");
        codings.expect("some are chosen")
    }

    #[test]
    fn the_codings_that_are_chosen_are_accepted() {
        let all = Decode::all();
        #[rustfmt::skip]
        let rows = [
            ("all", all.clone(), Some("gzip, deflate, br, zstd")),
            ("not gzip", all.clone().gzip(false), Some("br, zstd")),
            ("only gzip", all.clone().brotli(false).zstd(false), Some("gzip, deflate")),
            ("only Brotli", all.clone().gzip(false).zstd(false), Some("br")),
            ("chosen again", all.clone().zstd(false).zstd(true), Some("gzip, deflate, br, zstd")),
            ("none", all.gzip(false).brotli(false).zstd(false), None),
        ];
        for (why, decode, expected) in rows {
            let codings = decode.check().expect(why);
            assert_eq!(codings.as_ref().map(Codings::accepted), expected, "{why}");
        }
    }

    #[test]
    fn codings_are_those_of_all_field_lines_in_order() {
        const NONE: Result<&str, TooMany> = Ok("");
        type Row<'a> = (&'a str, &'a [&'a str], Result<&'a str, TooMany>);
        #[rustfmt::skip]
        let rows: &[Row<'_>] = &[
            ("one", &["gzip"], Ok("gzip")),
            ("each", &["deflate", "br", "zstd"], Ok("deflate br zstd")),
            ("any case", &["GZip, BR"], Ok("gzip br")),
            ("an alias", &["X-Gzip"], Ok("gzip")),
            ("a list", &["gzip,br ,\tzstd"], Ok("gzip br zstd")),
            ("a list over several lines", &["gzip, br", "gzip"], Ok("gzip br gzip")),
            ("empty elements", &[", ,gzip,,", "", ","], Ok("gzip")),
            ("identity", &["identity, gzip, Identity"], Ok("gzip")),
            ("nothing else", &["identity", ""], NONE),
            ("an unknown one", &["compress"], NONE),
            ("an alias that is unknown", &["x-compress"], NONE),
            ("an unknown one among others", &["gzip, secret, br"], NONE),
            ("an unknown one on another line", &["gzip", "secret"], NONE),
            ("a parameter", &["gzip;q=1"], NONE),
            ("quotes", &["\"gzip\""], NONE),
            ("a space within", &["gz ip"], NONE),
            ("bytes that are not text", &["gzip\u{ff}"], NONE),
            ("too many", &["gzip, gzip, gzip, gzip"], Err(TooMany(4))),
            ("too many, over several lines", &["gzip, br", "gzip, identity, br, zstd"], Err(TooMany(5))),
            ("too many of which one is unknown", &["gzip, gzip, gzip, gzip, x"], NONE),
        ];
        let codings = codings(&Decode::all());
        for (why, lines, expected) in rows {
            let layers = codings.layers(lines.iter().map(|line| line.as_bytes()));
            let names =
                layers.map(|it| it.into_iter().flatten().map(|layer| layer.coding.names[0]));
            let names = names.map(|names| names.collect::<Vec<_>>().join(" "));
            let expected = expected.as_ref().copied();
            assert_eq!(names.as_deref(), expected, "{why}");
        }
    }

    #[test]
    fn what_is_not_chosen_is_unknown() {
        let codings = codings(&Decode::all().brotli(false));
        for (value, count) in [("gzip", 1), ("br", 0), ("gzip, br", 0)] {
            let values = [value.as_bytes()].into_iter();
            let screening = codings.screen(Screening::show(), values).unwrap();
            assert_eq!(screening.into_parts().1.len(), count, "{value}");
        }
    }

    #[test]
    fn the_limit_goes_along() {
        let codings = codings(&Decode::all().max_bytes(7));
        let values = [&b"gzip"[..]].into_iter();
        let screening = codings.screen(Screening::show(), values).unwrap();
        assert_eq!(screening.into_parts().2, 7);
        let many = b"br,".repeat(MAX_LAYERS + 1);
        let error = codings.screen(Screening::show(), [&*many].into_iter());
        let why = format!("{:#}", error.unwrap_err());
        assert!(
            why.ends_with("the body has 4 content codings, more than 3"),
            "{why}"
        );
    }

    #[test]
    fn layers_of_different_codings_are_removed_in_turn() {
        use flate2::Compression;
        use flate2::write::{GzEncoder, ZlibEncoder};
        use std::io::Write;

        let gzip = |data: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        };
        let zlib = |data: &[u8]| {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        };
        let words = testing::words();
        let br = &include_bytes!("fixtures/words.br")[..];
        let zst = &include_bytes!("fixtures/words.zst")[..];
        #[rustfmt::skip]
        let rows = [
            ("gzip, gzip", gzip(&gzip(&words))),
            ("br, gzip", gzip(br)),
            ("zstd, deflate, gzip", gzip(&zlib(zst))),
            ("br, gzip, deflate", zlib(&gzip(br))),
            ("gzip, gzip, gzip", gzip(&gzip(&gzip(&words)))),
        ];
        for (codings, wire) in rows {
            testing::check_pieces(codings, &wire, &words);
            // In the wrong order it is malformed.
            let (_, error) = testing::decode("zstd, zstd", &[&wire], testing::ALL, (64, 0));
            assert!(
                error.is_some_and(|why| why.starts_with("malformed")),
                "{codings}"
            );
        }
    }

    #[test]
    fn an_unused_decoder_has_no_buffers() {
        // Everything is allocated later, on the heap.
        for codings in ["gzip", "deflate", "br", "zstd"] {
            let screening = codings_of(codings);
            let (_, decoders, _) = screening.into_parts();
            let size: usize = decoders.iter().map(|decoder| size_of_val(&**decoder)).sum();
            assert!(size <= 512, "{codings}: {size}");
        }
    }

    fn codings_of(value: &str) -> Screening {
        let values = [value.as_bytes()].into_iter();
        codings(&Decode::all())
            .screen(Screening::show(), values)
            .unwrap()
    }

    #[test]
    fn a_panic_of_a_decoder_is_an_error_of_its_body() {
        struct Panics;
        impl crate::policy::Decoder for Panics {
            fn decode(
                &mut self,
                _: &[u8],
                _: &mut [u8],
            ) -> std::io::Result<crate::policy::Progress> {
                panic!("a bug in another crate");
            }
            fn finish(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("a bug in another crate");
            }
        }
        use crate::policy::Decoder as _;
        let mut decoder = contained::Contained::new("x", Panics);
        let errors = [
            decoder.decode(b"x", &mut [0]).unwrap_err(),
            decoder.finish(&mut [0]).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.to_string(), "x: the decoder panicked");
        }
    }
}
