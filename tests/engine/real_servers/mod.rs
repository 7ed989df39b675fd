//! Sessions with servers that others wrote: nginx, lighttpd, and Python's standard library.
//!
//! Each test checks what the server recorded and what the readback received. A test whose server is
//! not installed prints `skipped:` and passes.

mod lighttpd;
mod nginx;
mod python;

use httpstream::session::{Jar, Redirects, Session, SessionBuilder};

use crate::common::Got;

fn skip(tool: &str) {
    println!("skipped: {tool} is not installed");
}

/// A session that follows up to ten redirects.
fn following() -> SessionBuilder {
    Session::builder().redirects(Redirects::limited(10))
}

/// A session with a jar.
fn storing(jar: &Jar) -> Session {
    following().cookies(jar.clone()).build().unwrap()
}

/// Returns the value of a response's field, or an empty text.
fn field<'g>(got: &'g Got, name: &str) -> &'g str {
    let mut fields = got.fields.iter();
    let value = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
    value.map_or("", |(_, value)| std::str::from_utf8(value).unwrap())
}
