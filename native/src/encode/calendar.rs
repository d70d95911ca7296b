//! Dates, times of day and moments, with no more fraction digits than thousands need: none, three, six or nine.

use crate::encode::digits::{fill, pair};
use crate::encode::output::Output;

const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01 and 9999-12-31, in days since 1970-01-01.
const FIRST_DAY: i64 = -719_162;
const LAST_DAY: i64 = 2_932_896;
/// From 0000-03-01, with which years of 365 or 366 days and their leap days last begin, to 1970-01-01.
const MARCH_DAYS: i64 = 719_468;

/// Writes the ten bytes of a date; false if JSON's date formats cannot say it.
#[inline(always)]
fn put_date(into: &mut [u8; 10], day: i64) -> bool {
    if !(FIRST_DAY..=LAST_DAY).contains(&day) {
        return false;
    }
    // Years begin in March here, so that leap days come last: in a year, a century, and four centuries.
    let days = (day + MARCH_DAYS) as u32;
    let (cycle, of_cycle) = (days / 146_097, days % 146_097);
    let of_cycle_year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * of_cycle_year + of_cycle_year / 4 - of_cycle_year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let (month, next) = if march_month < 10 { (march_month + 3, 0) } else { (march_month - 9, 1) };
    let year = cycle * 400 + of_cycle_year + next;
    let ([a, b], [c, d], [e, f], [g, h]) = (pair(year / 100), pair(year % 100), pair(month), pair(day));
    *into = [a, b, c, d, b'-', e, f, b'-', g, h];
    true
}

#[inline(always)]
fn put_clock(into: &mut [u8; 8], second: u32) {
    let ([a, b], [c, d], [e, f]) = (pair(second / 3_600), pair(second / 60 % 60), pair(second % 60));
    *into = [a, b, b':', c, d, b':', e, f];
}

/// Writes the fraction of a second, of which there are `UNIT` in it; how many bytes.
#[inline(always)]
fn put_fraction<const UNIT: i64>(into: &mut [u8], fraction: i64) -> usize {
    if fraction == 0 {
        return 0;
    }
    let (mut fraction, mut digits) = (fraction as u64, UNIT.ilog10() as usize);
    while digits > 3 && fraction % 1_000 == 0 {
        fraction /= 1_000;
        digits -= 3;
    }
    into[0] = b'.';
    fill(&mut into[1..=digits], fraction);
    digits + 1
}

#[inline(always)]
pub fn date(out: &mut Output, day: i64) {
    let into = out.next_chunk::<12>();
    into[0] = b'"';
    into[11] = b'"';
    let known = into[1..].first_chunk_mut().is_some_and(|into| put_date(into, day));
    out.advance(12);
    out.fault |= !known;
}

/// A moment, in so many parts of a second since 1970 UTC.
#[inline(always)]
pub fn moment<const UNIT: i64>(out: &mut Output, value: i64) {
    let (second, fraction) = (value.div_euclid(UNIT), value.rem_euclid(UNIT));
    let (day, second) = (second.div_euclid(DAY_SECONDS), second.rem_euclid(DAY_SECONDS));
    let into = out.next_chunk::<32>();
    into[0] = b'"';
    let known = into[1..].first_chunk_mut().is_some_and(|into| put_date(into, day));
    into[11] = b'T';
    if let Some(into) = into[12..].first_chunk_mut() {
        put_clock(into, second as u32);
    }
    let end = 20 + put_fraction::<UNIT>(&mut into[20..], fraction);
    into[end] = b'Z';
    into[end + 1] = b'"';
    out.advance(end + 2);
    out.fault |= !known;
}

/// A time of day, in so many parts of a second since midnight.
#[inline(always)]
pub fn time<const UNIT: i64>(out: &mut Output, value: i64) {
    if !(0..DAY_SECONDS * UNIT).contains(&value) {
        out.fault = true;
        return;
    }
    let into = out.next_chunk::<32>();
    into[0] = b'"';
    if let Some(into) = into[1..].first_chunk_mut() {
        put_clock(into, (value / UNIT) as u32);
    }
    let end = 9 + put_fraction::<UNIT>(&mut into[9..], value % UNIT);
    into[end] = b'"';
    out.advance(end + 1);
}
