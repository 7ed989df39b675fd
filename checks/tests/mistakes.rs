//! The compiler's messages for mistakes that users make in their first hour.
//!
//! Each file in `mistakes` contains one mistake, and the `.stderr` file next to it the message that
//! a user sees. A new compiler may word a message differently. `TRYBUILD=overwrite cargo test -p
//! checks --test mistakes` then rewrites the files, and the diff shows whether the messages still
//! help.

#[test]
fn each_mistake_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
