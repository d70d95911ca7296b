//! Numerals: integers that fit, the nearest double, exact decimals.

use crate::cursor::{Cursor, Parsed};

/// More digits, or a longer exponent, are left to the row path.
const MAX_DIGITS: usize = 1000;
const MAX_EXPONENT_DIGITS: usize = 4;

const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A JSON number, looked through once.
pub struct Numeral<'a> {
    pub text: &'a [u8],
    pub negative: bool,
    /// The digits as one integer, without the point; only where there are at most 19.
    digits: u64,
    count: usize,
    /// What the digits are to be multiplied with, as a power of ten.
    power: i32,
    pub whole: bool,
    pub has_exponent: bool,
}

impl<'a> Cursor<'a> {
    /// A number as JSON writes it.
    #[inline]
    pub fn numeral(&mut self) -> Parsed<Numeral<'a>> {
        let start = self.at;
        let negative = self.take(b'-');
        let first = self.at;
        let mut digits = 0;
        self.digits(&mut digits);
        let mut count = self.at - first;
        if count == 0 || (count > 1 && self.data[first] == b'0') {
            return self.bail("another type of value than a number, or not JSON");
        }
        let (mut power, mut whole, mut has_exponent) = (0, true, false);
        if self.take(b'.') {
            let point = self.at;
            self.digits(&mut digits);
            let fraction = self.at - point;
            if fraction == 0 {
                return self.bail("not JSON: a point without digits");
            }
            count += fraction;
            power = -(fraction.min(MAX_DIGITS + 1) as i32);
            whole = false;
        }
        if matches!(self.peek(), b'e' | b'E') {
            power += self.exponent()?;
            (whole, has_exponent) = (false, true);
        }
        if count > MAX_DIGITS {
            return self.bail("a number of very many digits");
        }
        Ok(Numeral { text: &self.data[start..self.at], negative, digits, count, power, whole, has_exponent })
    }

    #[inline(always)]
    fn digits(&mut self, digits: &mut u64) {
        loop {
            let digit = self.peek().wrapping_sub(b'0');
            if digit > 9 {
                return;
            }
            *digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
    }

    fn exponent(&mut self) -> Parsed<i32> {
        self.at += 1;
        let negative = self.peek() == b'-';
        if negative || self.peek() == b'+' {
            self.at += 1;
        }
        let (start, mut value) = (self.at, 0);
        self.digits(&mut value);
        if self.at == start || self.at - start > MAX_EXPONENT_DIGITS {
            return self.bail("not JSON, or a very large exponent");
        }
        Ok(if negative { -(value as i32) } else { value as i32 })
    }

    /// The digits of an integer without fraction and exponent, and whether it is below zero.
    #[inline(always)]
    fn whole(&mut self) -> Parsed<(u64, bool)> {
        let negative = self.take(b'-');
        let start = self.at;
        let mut value = 0;
        self.digits(&mut value);
        let text = &self.data[start..self.at];
        if text.is_empty() || (text[0] == b'0' && (text.len() > 1 || negative)) {
            return self.bail("another type of value than an integer, or an unusual form of one");
        }
        if matches!(self.peek(), b'.' | b'e' | b'E') {
            return self.bail("an integer with a fraction or an exponent");
        }
        if text.len() > 19 {
            let exact =
                text.iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
            let Some(exact) = exact else {
                return self.bail("an integer beyond 64 bits");
            };
            value = exact;
        }
        Ok((value, negative))
    }

    #[inline(always)]
    pub fn int64(&mut self) -> Parsed<i64> {
        let (value, negative) = self.whole()?;
        let limit = i64::MAX as u64 + u64::from(negative);
        if value > limit {
            return self.bail("an integer beyond int64");
        }
        Ok(if negative { (value as i64).wrapping_neg() } else { value as i64 })
    }

    #[inline(always)]
    pub fn uint64(&mut self) -> Parsed<u64> {
        match self.whole()? {
            (value, false) => Ok(value),
            _ => self.bail("a negative integer in an unsigned column"),
        }
    }

    #[inline(always)]
    pub fn float64(&mut self) -> Parsed<f64> {
        let numeral = self.numeral()?;
        if numeral.whole && numeral.negative && numeral.digits == 0 {
            return self.bail("a whole minus zero, whose sign depends on the reader");
        }
        let power = numeral.power.unsigned_abs() as usize;
        // Both operands are exact, so the one operation rounds to the nearest double.
        if numeral.count <= 19 && numeral.digits <= 1 << 53 && power < EXACT_POWERS.len() {
            let digits = numeral.digits as f64;
            let value = if numeral.power < 0 { digits / EXACT_POWERS[power] } else { digits * EXACT_POWERS[power] };
            return Ok(if numeral.negative { -value } else { value });
        }
        match fast_float2::parse::<f64, _>(numeral.text) {
            Ok(value) if value.is_finite() => Ok(value),
            _ => self.bail("a number beyond float64"),
        }
    }

    /// A decimal of a scale, from a number or a text that holds one; exact.
    #[inline(always)]
    pub fn decimal(&mut self, precision: u8, scale: u8) -> Parsed<i128> {
        let found = if self.peek() == b'"' {
            let text = self.plain_text()?;
            unscaled(Parts::of_text(text), precision, scale)
        } else {
            let numeral = self.numeral()?;
            let lift = i32::from(scale) + numeral.power;
            if numeral.count <= 18 && (0..=18).contains(&lift) && i32::from(precision) >= numeral.count as i32 + lift {
                let value = i128::from(numeral.digits) * i128::from(10u64.pow(lift as u32));
                return Ok(if numeral.negative { -value } else { value });
            }
            unscaled(Parts::of_text(numeral.text), precision, scale)
        };
        match found {
            Some(value) => Ok(value),
            None => self.bail("not a decimal that the column can hold"),
        }
    }
}

/// A numeral taken apart: sign, whole digits, fraction digits, exponent.
struct Parts<'a>(bool, &'a [u8], &'a [u8], i32);

impl<'a> Parts<'a> {
    /// Any form that a decimal's text may take: a sign, missing digits on one side of the point, an exponent.
    fn of_text(text: &'a [u8]) -> Option<Self> {
        let (negative, text) = signed(text);
        let (text, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, &[][..]),
        };
        let digits = whole.len() + fraction.len();
        let all = whole.iter().chain(fraction).all(u8::is_ascii_digit);
        (all && (1..=MAX_DIGITS).contains(&digits)).then_some(Self(negative, whole, fraction, exponent))
    }
}

fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn exponent(text: &[u8]) -> Option<i32> {
    let (negative, digits) = signed(text);
    if digits.is_empty() || digits.len() > MAX_EXPONENT_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    Some(if negative { -value } else { value })
}

/// The value times ten to the scale, or None where it does not fit.
fn unscaled(parts: Option<Parts<'_>>, precision: u8, scale: u8) -> Option<i128> {
    let Parts(negative, whole, fraction, exponent) = parts?;
    let mut power = exponent - fraction.len() as i32;
    let digits: Vec<u8> = whole.iter().chain(fraction).copied().skip_while(|&digit| digit == b'0').collect();
    let significant = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    if significant == 0 {
        return Some(0);
    }
    // pyarrow refuses a Python decimal that is written with more digits than it has room for, zeros or not.
    if digits.len() > 38 {
        return None;
    }
    power += (digits.len() - significant) as i32;
    let lift = power + i32::from(scale);
    if lift < 0 || significant as i32 + lift > i32::from(precision) {
        return None;
    }
    let value = digits[..significant].iter().fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let value = value * 10i128.pow(lift as u32);
    Some(if negative { -value } else { value })
}
