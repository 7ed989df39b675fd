//! The compiler's messages for mistakes that users make in their first hour.
//!
//! Each file in `mistakes` contains one mistake, and the `.stderr` file next to it the message that
//! a user sees. A new compiler may word a message differently. In that case run
//! `TRYBUILD=overwrite cargo test -p checks --test mistakes` to rewrite the files, and check in the
//! diff that the messages still help.

#[test]
fn each_mistake_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
