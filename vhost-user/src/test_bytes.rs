//! Bytes as the tables of the protocol's documents print them.

/// The bytes that hexadecimal digits in pairs stand for, with anything else between the pairs.
pub fn hex(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    text.split(|c: char| !c.is_ascii_hexdigit())
        .filter(|digits| !digits.is_empty())
        .map(byte)
        .collect()
}
