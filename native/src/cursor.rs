//! A position in the lines, and the parts of JSON that every kind of value shares.
//!
//! A newline ends a line and is never white space here, so nothing that is read spans two lines.

/// The decoder is not certain that it would give what the row path gives. `Cursor::why` says what it met.
#[derive(Debug)]
pub struct Bail;

pub type Parsed<T> = Result<T, Bail>;

/// Values nested deeper than this are left to the row path.
pub const MAX_DEPTH: usize = 64;

pub struct Cursor<'a> {
    pub data: &'a [u8],
    pub at: usize,
    pub why: &'static str,
}

impl<'a> Cursor<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, why: "" }
    }

    #[cold]
    #[inline(never)]
    pub fn bail<T>(&mut self, why: &'static str) -> Parsed<T> {
        self.why = why;
        Err(Bail)
    }

    /// The next byte; a newline where there is none.
    #[inline(always)]
    pub fn peek(&self) -> u8 {
        match self.data.get(self.at) {
            Some(&byte) => byte,
            None => b'\n',
        }
    }

    #[inline(always)]
    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    #[inline(always)]
    pub fn space(&mut self) {
        if self.peek() <= b' ' {
            while matches!(self.peek(), b' ' | b'\t' | b'\r') {
                self.at += 1;
            }
        }
    }

    /// Takes the next byte if it is this one.
    #[inline(always)]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    #[inline(always)]
    pub fn expect(&mut self, byte: u8) -> Parsed<()> {
        if self.take(byte) {
            Ok(())
        } else {
            self.bail("not JSON as it is expected here")
        }
    }

    #[inline(always)]
    pub fn word(&mut self, word: &'static [u8]) -> Parsed<()> {
        if self.rest().starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            self.bail("another type of value, or not JSON")
        }
    }

    /// The colon after a key, and the white space around it.
    #[inline(always)]
    pub fn colon(&mut self) -> Parsed<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(())
    }

    /// After a member or an item: whether another follows.
    #[inline(always)]
    pub fn more(&mut self, end: u8) -> Parsed<bool> {
        self.space();
        if self.take(b',') {
            self.space();
            return Ok(true);
        }
        self.expect(end)?;
        Ok(false)
    }

    /// A text without escapes, from its opening quote on.
    #[inline(always)]
    pub fn plain_text(&mut self) -> Parsed<&'a [u8]> {
        if !self.take(b'"') {
            return self.bail("another type of value than text");
        }
        let (start, end) = (self.at, special(self.data, self.at));
        if self.data.get(end) != Some(&b'"') {
            return self.bail("an escape or a control character in a text that needs none");
        }
        self.at = end + 1;
        Ok(&self.data[start..end])
    }

    /// A text from its opening quote on, unescaped, appended to `out`.
    #[inline(always)]
    pub fn text(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        if !self.take(b'"') {
            return self.bail("another type of value than text");
        }
        let (start, end) = (self.at, special(self.data, self.at));
        out.extend_from_slice(&self.data[start..end]);
        self.at = end;
        if self.take(b'"') {
            return Ok(());
        }
        self.escaped_text(out)
    }

    /// A key: as it stands, or unescaped into `scratch`.
    #[inline]
    pub fn key<'b>(&mut self, scratch: &'b mut Vec<u8>) -> Parsed<&'b [u8]>
    where
        'a: 'b,
    {
        if !self.take(b'"') {
            return self.bail("not JSON: a key is expected");
        }
        let (start, end) = (self.at, special(self.data, self.at));
        self.at = end;
        if self.take(b'"') {
            return Ok(&self.data[start..end]);
        }
        scratch.clear();
        scratch.extend_from_slice(&self.data[start..end]);
        self.escaped_text(scratch)?;
        Ok(scratch)
    }

    /// The rest of a text, from its first escape on.
    #[inline(never)]
    fn escaped_text(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        loop {
            if self.take(b'"') {
                return Ok(());
            }
            if !self.take(b'\\') {
                return self.bail("a control character in a text");
            }
            match self.escape()? {
                Escape::Byte(byte) => out.push(byte),
                Escape::Point(point) => push_point(out, point),
            }
            let (start, end) = (self.at, special(self.data, self.at));
            out.extend_from_slice(&self.data[start..end]);
            self.at = end;
        }
    }

    /// What follows a backslash.
    pub fn escape(&mut self) -> Parsed<Escape> {
        let byte = self.peek();
        self.at += 1;
        Ok(Escape::Byte(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return Ok(Escape::Point(self.unicode()?)),
            _ => return self.bail("an escape that JSON does not know"),
        }))
    }

    fn unicode(&mut self) -> Parsed<char> {
        let mut point = u32::from(self.hex()?);
        if (0xD800..0xDC00).contains(&point) {
            if !self.take(b'\\') || !self.take(b'u') {
                return self.bail("a lone surrogate");
            }
            let low = u32::from(self.hex()?);
            if !(0xDC00..0xE000).contains(&low) {
                return self.bail("a lone surrogate");
            }
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        }
        match char::from_u32(point) {
            Some(point) => Ok(point),
            None => self.bail("a lone surrogate"),
        }
    }

    fn hex(&mut self) -> Parsed<u16> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = char::from(self.peek()).to_digit(16) else {
                return self.bail("an escape that JSON does not know");
            };
            value = value << 4 | digit as u16;
            self.at += 1;
        }
        Ok(value)
    }

    /// Passes over any JSON value; `depth` counts what it may still be nested.
    pub fn skip(&mut self, depth: usize) -> Parsed<()> {
        match self.peek() {
            b'"' => self.skip_text(),
            b'{' | b'[' if depth == 0 => self.bail("nested deeply"),
            b'{' => {
                self.at += 1;
                self.space();
                if self.take(b'}') {
                    return Ok(());
                }
                loop {
                    self.skip_text()?;
                    self.colon()?;
                    self.skip(depth - 1)?;
                    if !self.more(b'}')? {
                        return Ok(());
                    }
                }
            }
            b'[' => {
                self.at += 1;
                self.space();
                if self.take(b']') {
                    return Ok(());
                }
                loop {
                    self.skip(depth - 1)?;
                    if !self.more(b']')? {
                        return Ok(());
                    }
                }
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.numeral().map(drop),
        }
    }

    fn skip_text(&mut self) -> Parsed<()> {
        self.expect(b'"')?;
        loop {
            self.at = special(self.data, self.at);
            if self.take(b'"') {
                return Ok(());
            }
            if !self.take(b'\\') {
                return self.bail("a control character in a text");
            }
            self.escape()?;
        }
    }
}

/// What an escape stands for: a byte that JSON has a short form for, or a code point.
pub enum Escape {
    Byte(u8),
    Point(char),
}

pub fn push_point(out: &mut Vec<u8>, point: char) {
    out.extend_from_slice(point.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Where the first quote, backslash or control character stands, from `at` on; the end where there is none.
#[inline(always)]
pub fn special(data: &[u8], mut at: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    while let Some(chunk) = data.get(at..at + 16) {
        use std::arch::x86_64::*;
        // SAFETY: every x86-64 processor has SSE2, and the load takes the 16 bytes of `chunk`, at any alignment.
        let found = unsafe {
            let bytes = _mm_loadu_si128(chunk.as_ptr().cast());
            let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quotes, backslashes), controls))
        };
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    const EACH: u64 = 0x0101_0101_0101_0101;
    while let Some(chunk) = data.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        // The classic test for a zero byte; it can be wrong only above the first one found, which is what counts.
        let zero = |word: u64| word.wrapping_sub(EACH) & !word;
        let quotes = zero(word ^ (EACH * u64::from(b'"')));
        let backslashes = zero(word ^ (EACH * u64::from(b'\\')));
        let controls = word.wrapping_sub(EACH * 0x20) & !word;
        let found = (quotes | backslashes | controls) & (EACH * 0x80);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(&byte) = data.get(at) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            return at;
        }
        at += 1;
    }
    at
}
