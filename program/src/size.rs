//! Parses numbers of bytes in command-line arguments.

/// Parses a number of bytes, which has to be above 0. The suffixes K, M and G stand for powers of
/// 1024.
///
/// # Errors
///
/// The text of the error for the user.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|size| *size > 0)
        .ok_or_else(|| format!("'{text}' is not a size; write it like 512M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_bytes_or_powers_of_1024() {
        assert_eq!(parse_size("513"), Ok(513));
        assert_eq!(parse_size("2k"), Ok(2048));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for bad in ["", "M", "0", "-1", "1T", "1 K", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
