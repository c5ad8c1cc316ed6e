//! Reads of registers that may end past the last register.

/// Copies `bytes` from `offset` on to `data`. Sets the part of `data` past the end of `bytes` to 0.
pub fn read_padded(bytes: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let found = bytes.get(start..).unwrap_or_default();
    let (known, unknown) = data.split_at_mut(found.len().min(data.len()));
    known.copy_from_slice(&found[..known.len()]);
    unknown.fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_end_return_0() {
        let cases = [
            (0, [1, 2, 3, 0]),
            (2, [3, 0, 0, 0]),
            (3, [0; 4]),
            (4, [0; 4]),
            (u64::MAX, [0; 4]),
        ];
        for (offset, expected) in cases {
            let mut data = [7; 4];
            read_padded(&[1, 2, 3], offset, &mut data);
            assert_eq!(data, expected, "{offset}");
        }
        let mut short = [7; 2];
        read_padded(&[1, 2, 3], 0, &mut short);
        assert_eq!(short, [1, 2]);
    }
}
