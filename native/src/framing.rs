//! The lines of a block at a glance: how many there are, and which do not begin as expected.

use memchr::memchr_iter;

/// The lines of a block.
#[derive(Default)]
pub struct Lines {
    /// How many lines there are, each ended by a newline.
    pub count: usize,
    /// Where the lines start that do not begin as expected.
    pub others: Vec<usize>,
    /// Whether every line that begins as expected ends with a brace.
    pub closed: bool,
}

/// Looks at the lines of a block; at most `most` others are listed.
pub fn lines(block: &[u8], begin: &[u8], most: usize) -> Lines {
    let mut found = Lines { closed: true, ..Lines::default() };
    let mut start = 0;
    for end in memchr_iter(b'\n', block) {
        let line = &block[start..end];
        if !line.starts_with(begin) {
            if found.others.len() < most {
                found.others.push(start);
            }
        } else if line.last() != Some(&b'}') {
            found.closed = false;
        }
        found.count += 1;
        start = end + 1;
    }
    found
}
