//! Misuse that the types refuse: each file in `compile-fail/` must not compile, for the reason beside it.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile-fail/*.rs");
}
