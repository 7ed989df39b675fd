//! What the compiler says to the mistakes that people make in their first hour.
//!
//! Each file of `mistakes` is one mistake, and the `.stderr` beside it is what a user reads. A new
//! compiler may word it differently: `TRYBUILD=overwrite cargo test -p checks --test mistakes`
//! writes the files anew, and the difference shows whether the words still help.

#[test]
fn each_mistake_is_explained() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
