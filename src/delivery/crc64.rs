//! CRC-64 of ECMA-182 in its reflected form (CRC-64/XZ), as COS tells it of every object. Eight
//! bytes at a time: it runs beside two checksums on a small processor.

/// ECMA-182's polynomial, lowest power first.
const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

/// `TABLES[n][byte]`: what a byte contributes that has `n` more bytes behind it.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[behind - 1][byte];
            tables[behind][byte] = (crc >> 8) ^ tables[0][(crc & 0xff) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

/// A CRC-64 over everything so far. The number itself is the state, so it can be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunningCrc64(pub u64);

impl RunningCrc64 {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut crc = !self.0;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let mixed = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
            crc = mixed
                .iter()
                .zip(TABLES.iter().rev())
                .fold(0, |sum, (byte, table)| sum ^ table[usize::from(*byte)]);
        }
        for byte in rest {
            crc = (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)];
        }
        self.0 = !crc;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crc(bytes: &[u8]) -> u64 {
        let mut sum = RunningCrc64::default();
        sum.update(bytes);
        sum.0
    }

    #[test]
    fn check_value_of_the_catalogue_and_one_of_liblzma() {
        assert_eq!(crc(b""), 0);
        assert_eq!(crc(b"123456789"), 0x995d_c9bb_df19_39fa);
        // lzma_crc64 over the bytes 0 to 255.
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(crc(&all), LZMA_OF_ALL_BYTES);
    }

    const LZMA_OF_ALL_BYTES: u64 = 0x7241_4b2f_65db_3ab0;

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0usize..100) {
            let at = at.min(bytes.len());
            let mut sum = RunningCrc64::default();
            sum.update(&bytes[..at]);
            let mut sum = RunningCrc64(sum.0);
            sum.update(&bytes[at..]);
            prop_assert_eq!(sum.0, crc(&bytes));
        }
    }
}
