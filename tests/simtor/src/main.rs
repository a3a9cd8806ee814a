//! The program `simtor`.

fn main() {}
