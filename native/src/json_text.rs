//! JSON values kept as text, in the one form that the row path writes: no white space, no needless escapes.

use crate::cursor::{push_point, special, Cursor, Escape, Parsed};

/// Writes values in their canonical form; keeps the places of the keys of the objects that are open.
#[derive(Default)]
pub struct Canonical {
    keys: Vec<(usize, usize)>,
}

impl Canonical {
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// Reads a value and appends its text; `depth` counts what it may still be nested.
    pub fn read(&mut self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>, depth: usize) -> Parsed<()> {
        match cursor.peek() {
            b'"' => text(cursor, out),
            b'{' | b'[' if depth == 0 => cursor.bail("nested deeply"),
            b'{' => self.object(cursor, out, depth),
            b'[' => {
                cursor.at += 1;
                out.push(b'[');
                cursor.space();
                if !cursor.take(b']') {
                    loop {
                        self.read(cursor, out, depth - 1)?;
                        if !cursor.more(b']')? {
                            break;
                        }
                        out.push(b',');
                    }
                }
                out.push(b']');
                Ok(())
            }
            b't' => word(cursor, out, b"true"),
            b'f' => word(cursor, out, b"false"),
            b'n' => word(cursor, out, b"null"),
            _ => number(cursor, out),
        }
    }

    fn object(&mut self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>, depth: usize) -> Parsed<()> {
        cursor.at += 1;
        out.push(b'{');
        let first = self.keys.len();
        cursor.space();
        if !cursor.take(b'}') {
            loop {
                let start = out.len();
                if cursor.peek() != b'"' {
                    return cursor.bail("not JSON: a key is expected");
                }
                text(cursor, out)?;
                self.keys.push((start, out.len()));
                cursor.colon()?;
                out.push(b':');
                self.read(cursor, out, depth - 1)?;
                if !cursor.more(b'}')? {
                    break;
                }
                out.push(b',');
            }
        }
        out.push(b'}');
        if any_twice(out, &mut self.keys[first..]) {
            return cursor.bail("a key that stands twice");
        }
        self.keys.truncate(first);
        Ok(())
    }
}

fn word(cursor: &mut Cursor<'_>, out: &mut Vec<u8>, word: &'static [u8]) -> Parsed<()> {
    cursor.word(word)?;
    out.extend_from_slice(word);
    Ok(())
}

/// A number in the form that it has; those that Python's integers and decimals write otherwise are not certain.
fn number(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Parsed<()> {
    let numeral = cursor.numeral()?;
    let text = numeral.text;
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let certain = if numeral.whole {
        text.len() <= 18 && text != b"-0"
    } else {
        // Decimals are written with an exponent when they are smaller than 0.000001.
        !numeral.has_exponent && !digits.starts_with(b"0.00000")
    };
    if !certain {
        return cursor.bail("a number whose text Python may write otherwise");
    }
    out.extend_from_slice(text);
    Ok(())
}

/// A text, from its opening quote on.
fn text(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Parsed<()> {
    cursor.expect(b'"')?;
    out.push(b'"');
    loop {
        let (start, end) = (cursor.at, special(cursor.data, cursor.at));
        out.extend_from_slice(&cursor.data[start..end]);
        cursor.at = end;
        if cursor.take(b'"') {
            out.push(b'"');
            return Ok(());
        }
        if !cursor.take(b'\\') {
            return cursor.bail("a control character in a text");
        }
        let short = cursor.peek();
        match cursor.escape()? {
            Escape::Byte(b'/') => out.push(b'/'),
            Escape::Byte(_) => out.extend_from_slice(&[b'\\', short]),
            Escape::Point(point) if point > '\u{7F}' => push_point(out, point),
            Escape::Point(_) => return cursor.bail("an escape of four digits for a character that needs none"),
        }
    }
}

/// Whether two of these parts of a text are the same; their order may change.
pub fn any_twice(text: &[u8], parts: &mut [(usize, usize)]) -> bool {
    let part = |&(start, end): &(usize, usize)| &text[start..end];
    if parts.len() <= 12 {
        return (1..parts.len()).any(|at| parts[..at].iter().any(|other| part(other) == part(&parts[at])));
    }
    parts.sort_unstable_by(|one, other| part(one).cmp(part(other)));
    parts.windows(2).any(|pair| part(&pair[0]) == part(&pair[1]))
}
