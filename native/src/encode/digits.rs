//! Numbers as JSON has them.

use crate::encode::output::Output;

static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The two digits of a number below 100.
#[inline(always)]
pub fn pair(number: u32) -> [u8; 2] {
    PAIRS[number as usize]
}

/// Writes a number's digits over the whole slice, zeros before them.
#[inline(always)]
pub fn fill(into: &mut [u8], mut number: u64) {
    let mut end = into.len();
    while end >= 2 {
        into[end - 2..end].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
        end -= 2;
    }
    if end == 1 {
        into[0] = b'0' + (number % 10) as u8;
    }
}

#[inline(always)]
pub fn unsigned(out: &mut Output, number: u64) {
    let count = number.checked_ilog10().unwrap_or(0) as usize + 1;
    fill(&mut out.next(20)[..count], number);
    out.advance(count);
}

#[inline(always)]
pub fn signed(out: &mut Output, number: i64) {
    if number < 0 {
        out.short(b"-");
    }
    unsigned(out, number.unsigned_abs());
}

/// The shortest number that reads back the same; null for what JSON has no number for.
#[inline(always)]
pub fn float<T: lexical_core::ToLexical>(out: &mut Output, number: T, finite: bool) {
    if !finite {
        out.lost += 1;
        return out.short(b"null");
    }
    let count = lexical_core::write(number, out.next(T::FORMATTED_SIZE_DECIMAL)).len();
    out.advance(count);
}

/// The greatest power of ten in 64 bits, and its zeros.
const HALF: u128 = 10_000_000_000_000_000_000;
const HALF_DIGITS: usize = 19;

/// A number below this limit, with all of its fraction digits.
#[inline]
pub fn decimal(out: &mut Output, number: i128, limit: u128, scale: usize) {
    let value = number.unsigned_abs();
    if value >= limit {
        out.fault = true;
        return;
    }
    if number < 0 {
        out.short(b"-");
    }
    let mut digits = [b'0'; 2 * HALF_DIGITS];
    let count = match u64::try_from(value) {
        Ok(small) => {
            let count = small.checked_ilog10().unwrap_or(0) as usize + 1;
            let end = digits.len();
            fill(&mut digits[end - count..], small);
            count
        }
        Err(_) => {
            let (first, second) = digits.split_at_mut(HALF_DIGITS);
            fill(first, (value / HALF) as u64);
            fill(second, (value % HALF) as u64);
            value.ilog10() as usize + 1
        }
    };
    // At least one digit stands before the point.
    let count = count.max(scale + 1);
    let into = out.next(count + 1);
    let zeros = count.saturating_sub(digits.len());
    into[..zeros].fill(b'0');
    into[zeros..count].copy_from_slice(&digits[digits.len() - (count - zeros)..]);
    if scale > 0 {
        into.copy_within(count - scale..count, count - scale + 1);
        into[count - scale] = b'.';
    }
    out.advance(count + usize::from(scale > 0));
}
