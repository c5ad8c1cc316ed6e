//! Parses bytes that are written in hexadecimal digits.

/// Parses bytes of two hexadecimal digits each. Any other characters separate the bytes.
pub fn hex(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap();
    text.split(|c: char| !c.is_ascii_hexdigit())
        .filter(|digits| !digits.is_empty())
        .map(byte)
        .collect()
}
