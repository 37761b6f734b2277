//! Where something is mounted, by `/proc/self/mountinfo`. Pure.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

/// Every mount point in the table. A line that can't be read is passed over.
pub(super) fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape)
}

/// The kernel writes a space, a tab, a line feed and a backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| octal(after)).flatten();
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(bytes: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(bytes.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table = br"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:45 /a /mnt/with\040space\134and\011more rw - tmpfs tmpfs rw
short line
91 22 0:45 /b /odd\0end\9 rw - tmpfs tmpfs rw
";
        let found: Vec<_> = points(table).collect();
        let expected = ["/", "/mnt/with space\\and\tmore", "/odd\\0end\\9"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(points(b"").count(), 0);
    }
}
