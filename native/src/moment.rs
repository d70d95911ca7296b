//! Dates, times and moments: the forms that `melisma.arrow.values` takes, and no other.

const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01 and the last microsecond of 9999, in microseconds since 1970 UTC.
const FIRST_US: i64 = -62_135_596_800_000_000;
const LAST_US: i64 = 253_402_300_799_999_999;

struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Text<'_> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.at < self.bytes.len() && self.bytes[self.at] == byte;
        self.at += usize::from(found);
        found
    }

    fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline(always)]
    fn two(&mut self) -> Option<u32> {
        let &[tens, ones] = self.bytes.get(self.at..self.at + 2)? else { return None };
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        if tens > 9 || ones > 9 {
            return None;
        }
        self.at += 2;
        Some(u32::from(tens) * 10 + u32::from(ones))
    }

    /// `YYYY-MM-DD` as days since 1970.
    #[inline(always)]
    fn day(&mut self) -> Option<i32> {
        let year = self.two()? * 100 + self.two()?;
        let month = self.take(b'-').then(|| self.two())??;
        let day = self.take(b'-').then(|| self.two())??;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let longest = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        if year == 0 || day == 0 || day > longest {
            return None;
        }
        // Years that begin in March, so that the leap day is the last of its year.
        let shifted = year - u32::from(month < 3);
        let days_of_months = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + days_of_months;
        Some(days as i32 - 719_468)
    }

    /// The digits after a point as microseconds; more than six only where the rest are zeros.
    #[inline(always)]
    fn fraction(&mut self) -> Option<i64> {
        let start = self.at;
        let mut value = 0;
        while self.peek().is_ascii_digit() {
            let digit = i64::from(self.peek() - b'0');
            if self.at - start < 6 {
                value = value * 10 + digit;
            } else if digit != 0 {
                return None;
            }
            self.at += 1;
        }
        let count = self.at - start;
        if count == 0 {
            return None;
        }
        Some(value * [1, 100_000, 10_000, 1_000, 100, 10, 1][count.min(6)])
    }

    /// Seconds with their fraction, from after the colon on.
    #[inline(always)]
    fn seconds(&mut self) -> Option<i64> {
        let second = self.two()?;
        if second > 59 {
            return None;
        }
        let fraction = if self.take(b'.') { self.fraction()? } else { 0 };
        Some(i64::from(second) * 1_000_000 + fraction)
    }

    fn offset(&mut self) -> Option<i64> {
        let sign = self.peek();
        self.at += 1;
        if matches!(sign, b'Z' | b'z') {
            return Some(0);
        }
        if !matches!(sign, b'+' | b'-') {
            return None;
        }
        let hours = self.two()?;
        let minutes = if self.take(b':') || !self.at_end() { self.two()? } else { 0 };
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset = i64::from(hours * 60 + minutes) * 60_000_000;
        Some(if sign == b'-' { -offset } else { offset })
    }
}

/// Microseconds since 1970 UTC of a date-time; without an offset it is taken as UTC.
#[inline]
pub fn timestamp(bytes: &[u8]) -> Option<i64> {
    let text = &mut Text { bytes, at: 0 };
    let mut moment = i64::from(text.day()?) * DAY_US;
    if !text.at_end() {
        if !matches!(text.peek(), b'T' | b't' | b' ') {
            return None;
        }
        text.at += 1;
        let hour = text.two()?;
        let (mut minute, mut seconds) = (0, 0);
        if text.take(b':') {
            minute = text.two()?;
            if text.take(b':') {
                seconds = text.seconds()?;
            }
        }
        if hour > 23 || minute > 59 {
            return None;
        }
        moment += i64::from(hour * 60 + minute) * 60_000_000 + seconds;
        text.take(b' ');
        if !text.at_end() {
            moment -= text.offset()?;
        }
        if !text.at_end() {
            return None;
        }
    }
    (FIRST_US..=LAST_US).contains(&moment).then_some(moment)
}

/// Days since 1970 of a date, or of a date-time at midnight UTC.
#[inline]
pub fn date(bytes: &[u8]) -> Option<i32> {
    let text = &mut Text { bytes, at: 0 };
    let day = text.day()?;
    if text.at_end() {
        return Some(day);
    }
    let rest = bytes.get(11..).filter(|_| matches!(text.peek(), b'T' | b't' | b' '))?;
    let mut rest = rest.strip_prefix(b"00:00:00")?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let zeros = fraction.iter().take_while(|&&byte| byte == b'0').count();
        if zeros == 0 {
            return None;
        }
        rest = &fraction[zeros..];
    }
    matches!(rest, b"" | b"Z" | b"z" | b"+00:00" | b"-00:00").then_some(day)
}

/// Microseconds since midnight of a time of day, without an offset or with that of UTC.
#[inline]
pub fn time(bytes: &[u8]) -> Option<i64> {
    let text = &mut Text { bytes, at: 0 };
    let hour = text.two()?;
    let minute = text.take(b':').then(|| text.two())??;
    let seconds = if text.take(b':') { text.seconds()? } else { 0 };
    if hour > 23 || minute > 59 || !matches!(&bytes[text.at..], b"" | b"Z" | b"z" | b"+00:00") {
        return None;
    }
    Some(i64::from(hour * 60 + minute) * 60_000_000 + seconds)
}
