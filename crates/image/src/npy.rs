//! The header of a `.npy` file, numpy's way to keep one array.
//!
//! ```text
//! 6 bytes  \x93NUMPY
//! 2 bytes  version: 1.0, 2.0 or 3.0
//! 2 bytes  length of the header in bytes, little-endian (4 bytes from version 2.0 on)
//! header   a Python dict: {'descr': '<f2', 'fortran_order': False, 'shape': (3256, 1280), }
//! data     the values, row by row
//! ```
//! Knows this header. Does not know what the rows are.

/// The first bytes of every `.npy` file.
pub(crate) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Element type as numpy writes it, such as `<f2`.
    pub descr: String,
    pub shape: Vec<usize>,
    /// Where the values begin, bytes.
    pub data: usize,
}

/// Reads the header at the start of `bytes`; an error says in words what is wrong.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("not a .npy file: it does not begin with \\x93NUMPY".into());
    }
    let cut = || format!("the .npy header is cut short ({} bytes)", bytes.len());
    let version = *bytes.get(6).ok_or_else(cut)?;
    let (length, start) = match version {
        1 => (bytes.get(8..10).map(|it| usize::from(it[0]) | usize::from(it[1]) << 8), 10),
        2 | 3 => {
            let length = bytes.get(8..12).and_then(|it| it.try_into().ok()).map(u32::from_le_bytes);
            (length.map(|length| length as usize), 12)
        }
        _ => return Err(format!("version {version} of .npy is not known, only 1, 2 and 3")),
    };
    let data = start + length.ok_or_else(cut)?;
    let text = bytes.get(start..data).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| "the .npy header is not text".to_string())?;
    let value = |key: &str| {
        let from = text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        from.ok_or_else(|| format!("the .npy header has no '{key}': {}", text.trim()))
    };
    let descr = value("descr")?.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    let descr = descr.ok_or("the .npy file holds records, expected plain numbers")?.to_string();
    if !value("fortran_order")?.starts_with("False") {
        return Err("the array is in Fortran order: save np.ascontiguousarray(array)".into());
    }
    let shape = value("shape")?;
    let inside = shape.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (inside, _) = inside.ok_or_else(|| format!("the .npy shape is not a tuple: {shape}"))?;
    let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape = sizes
        .map(|size| size.parse().map_err(|_| format!("the .npy shape has a size {size:?}")))
        .collect::<Result<Vec<usize>, String>>()?;
    Ok(Header { descr, shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dict: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        if version == 1 {
            bytes.extend((dict.len() as u16).to_le_bytes());
        } else {
            bytes.extend((dict.len() as u32).to_le_bytes());
        }
        bytes.extend(dict.as_bytes());
        bytes
    }

    const GOOD: &str = "{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }  \n";

    #[test]
    fn the_versions_read_alike() {
        for (version, start) in [(1, 10), (2, 12), (3, 12)] {
            let expected =
                Header { descr: "<f2".into(), shape: vec![3, 4], data: start + GOOD.len() };
            assert_eq!(header(&file(version, GOOD)), Ok(expected));
        }
        let vector = header(&file(1, "{'shape': (7,), 'descr': '<f8', 'fortran_order': False}"));
        assert_eq!(vector.unwrap().shape, [7]);
    }

    #[test]
    fn errors_say_what_came() {
        let check = |bytes: &[u8]| header(bytes).unwrap_err();
        assert!(check(b"PK\x03\x04").contains("does not begin"));
        assert!(check(&file(1, GOOD)[..30]).contains("cut short (30 bytes)"));
        assert!(check(&file(9, GOOD)).contains("version 9"));
        assert!(check(&file(1, &GOOD.replace("False", "True"))).contains("Fortran"));
        assert!(check(&file(1, &GOOD.replace("(3, 4)", "(3, -4)"))).contains("\"-4\""));
        assert!(check(&file(1, "{'descr': [('a', '<f4')], 'shape': ()}")).contains("records"));
        assert!(check(&file(1, "{}")).contains("'descr'"));
    }
}
