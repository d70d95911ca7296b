//! A column, or what is nested in one: writes its values as JSON.

use arrow_data::ffi::FFI_ArrowArray;
use arrow_schema::{DataType, TimeUnit};
use base64::prelude::{Engine, BASE64_STANDARD};

use crate::encode::arrays::{values, Bits, Ends, Fixed, Positions};
use crate::encode::output::{Constant, Output};
use crate::encode::{calendar, digits};

/// A member of an object: what stands before its value, from the brace or the comma on.
pub struct Member<'a> {
    pub key: Constant,
    pub column: Column<'a>,
}

pub struct Column<'a> {
    valid: Option<Bits<'a>>,
    len: usize,
    pub values: Values<'a>,
}

/// The values of an array from its offset on. With lists of one size and structs stands where they begin in the array
/// within.
pub enum Values<'a> {
    Null,
    Boolean(Bits<'a>),
    Int8(Fixed<'a, 1>),
    Int16(Fixed<'a, 2>),
    Int32(Fixed<'a, 4>),
    Int64(Fixed<'a, 8>),
    UInt8(Fixed<'a, 1>),
    UInt16(Fixed<'a, 2>),
    UInt32(Fixed<'a, 4>),
    UInt64(Fixed<'a, 8>),
    Float32(Fixed<'a, 4>),
    Float64(Fixed<'a, 8>),
    Decimal(Fixed<'a, 16>, u128, usize),
    Text(Ends<'a>, &'a [u8]),
    Binary(Ends<'a>, &'a [u8]),
    FixedBinary(&'a [u8], usize),
    Date(Fixed<'a, 4>),
    Time32(Fixed<'a, 4>, TimeUnit),
    Time64(Fixed<'a, 8>, TimeUnit),
    Timestamp(Fixed<'a, 8>, TimeUnit),
    Dictionary(Positions<'a>, Box<Column<'a>>),
    List(Ends<'a>, Box<Column<'a>>),
    FixedList(usize, usize, Box<Column<'a>>),
    Map(Ends<'a>, Box<Column<'a>>, Box<Column<'a>>),
    Struct(Vec<Member<'a>>, usize),
}

impl<'a> Column<'a> {
    /// The column of an array; None if a type in it is left to the other path.
    ///
    /// # Safety
    ///
    /// The array is one of this type, and sound.
    pub unsafe fn new(array: &'a FFI_ArrowArray, of: &DataType) -> Option<Self> {
        // SAFETY: as the caller promises, for the array and for those in it. The last end says how many bytes there are.
        let (valid, values) = unsafe {
            let valid = if *of == DataType::Null { None } else { Bits::validity(array) };
            (valid, Self::values(array, of)?)
        };
        Some(Self { valid, len: array.len(), values })
    }

    /// # Safety
    ///
    /// As of `new`.
    unsafe fn values(array: &'a FFI_ArrowArray, of: &DataType) -> Option<Values<'a>> {
        let (start, len) = (array.offset(), array.len());
        // SAFETY: the layouts are those of the Arrow format; of a sound array the last end says how many bytes it has.
        unsafe {
            let ends = |large| Ends::new(array, large);
            let bytes = |start, count| values::<1>(array, buffer_of(of), start, count).map(<[[u8; 1]]>::as_flattened);
            let within = |at: usize, of: &DataType| Self::new(array.child(at), of).map(Box::new);
            Some(match of {
                DataType::Null => Values::Null,
                DataType::Boolean => Values::Boolean(Bits::new(array, 1)?),
                DataType::Int8 => Values::Int8(values(array, 1, start, len)?),
                DataType::Int16 => Values::Int16(values(array, 1, start, len)?),
                DataType::Int32 => Values::Int32(values(array, 1, start, len)?),
                DataType::Int64 => Values::Int64(values(array, 1, start, len)?),
                DataType::UInt8 => Values::UInt8(values(array, 1, start, len)?),
                DataType::UInt16 => Values::UInt16(values(array, 1, start, len)?),
                DataType::UInt32 => Values::UInt32(values(array, 1, start, len)?),
                DataType::UInt64 => Values::UInt64(values(array, 1, start, len)?),
                DataType::Float32 => Values::Float32(values(array, 1, start, len)?),
                DataType::Float64 => Values::Float64(values(array, 1, start, len)?),
                DataType::Decimal128(precision, scale) => {
                    let limit = 10_u128.checked_pow((*precision).into())?;
                    Values::Decimal(values(array, 1, start, len)?, limit, usize::try_from(*scale).ok()?)
                }
                DataType::Utf8 | DataType::LargeUtf8 => {
                    let ends = ends(*of == DataType::LargeUtf8)?;
                    Values::Text(ends, bytes(0, ends.last())?)
                }
                DataType::Binary | DataType::LargeBinary => {
                    let ends = ends(*of == DataType::LargeBinary)?;
                    Values::Binary(ends, bytes(0, ends.last())?)
                }
                DataType::FixedSizeBinary(size) => {
                    let size = usize::try_from(*size).ok()?;
                    Values::FixedBinary(bytes(start * size, len * size)?, size)
                }
                DataType::Date32 => Values::Date(values(array, 1, start, len)?),
                DataType::Time32(unit) => Values::Time32(values(array, 1, start, len)?, *unit),
                DataType::Time64(unit) => Values::Time64(values(array, 1, start, len)?, *unit),
                DataType::Timestamp(unit, _) => Values::Timestamp(values(array, 1, start, len)?, *unit),
                DataType::Dictionary(position, value) => {
                    let positions = Positions::new(array, position.primitive_width()?)?;
                    Values::Dictionary(positions, Box::new(Self::new(array.dictionary()?, value)?))
                }
                DataType::List(item) => Values::List(ends(false)?, within(0, item.data_type())?),
                DataType::LargeList(item) => Values::List(ends(true)?, within(0, item.data_type())?),
                DataType::FixedSizeList(item, size) => {
                    Values::FixedList(start, usize::try_from(*size).ok()?, within(0, item.data_type())?)
                }
                DataType::Map(entries, _) => {
                    let entries = Self::new(array.child(0), entries.data_type())?;
                    return Self::map(Ends::new(array, false)?, entries);
                }
                DataType::Struct(fields) => {
                    let mut members = Vec::with_capacity(fields.len());
                    for (at, field) in fields.iter().enumerate() {
                        let column = Self::new(array.child(at), field.data_type())?;
                        let mut key = Output::default();
                        key.short(if at == 0 { b"{" } else { b"," });
                        key.text(field.name().as_bytes());
                        key.short(b":");
                        let (bytes, len) = key.finish();
                        members.push(Member { key: Constant::new(&bytes[..len]), column });
                    }
                    Values::Struct(members, start)
                }
                _ => return None,
            })
        }
    }

    /// A map by its entries; its keys are texts, and those that are not are left to the other path.
    fn map(ends: Ends<'a>, entries: Self) -> Option<Values<'a>> {
        let Values::Struct(members, start) = entries.values else { return None };
        let [Member { column: keys, .. }, Member { column: items, .. }] = <[_; 2]>::try_from(members).ok()?;
        let plain = entries.valid.is_none() && start == 0 && matches!(keys.values, Values::Text(..));
        plain.then(|| Values::Map(ends, Box::new(keys), Box::new(items)))
    }

    #[inline(always)]
    fn is_null(&self, at: usize) -> bool {
        self.valid.is_some_and(|valid| !valid.get(at))
    }

    #[inline(always)]
    pub fn write(&self, at: usize, out: &mut Output) {
        if self.is_null(at) {
            return out.short(b"null");
        }
        match &self.values {
            Values::Null => out.short(b"null"),
            Values::Boolean(bits) if bits.get(at) => out.short(b"true"),
            Values::Boolean(_) => out.short(b"false"),
            Values::Int8(all) => digits::signed(out, i8::from_ne_bytes(all[at]).into()),
            Values::Int16(all) => digits::signed(out, i16::from_ne_bytes(all[at]).into()),
            Values::Int32(all) => digits::signed(out, i32::from_ne_bytes(all[at]).into()),
            Values::Int64(all) => digits::signed(out, i64::from_ne_bytes(all[at])),
            Values::UInt8(all) => digits::unsigned(out, u8::from_ne_bytes(all[at]).into()),
            Values::UInt16(all) => digits::unsigned(out, u16::from_ne_bytes(all[at]).into()),
            Values::UInt32(all) => digits::unsigned(out, u32::from_ne_bytes(all[at]).into()),
            Values::UInt64(all) => digits::unsigned(out, u64::from_ne_bytes(all[at])),
            Values::Float32(all) => {
                let number = f32::from_ne_bytes(all[at]);
                digits::float(out, number, number.is_finite());
            }
            Values::Float64(all) => {
                let number = f64::from_ne_bytes(all[at]);
                digits::float(out, number, number.is_finite());
            }
            Values::Text(ends, bytes) => {
                let (start, end) = ends.of(at);
                match bytes.get(start..end) {
                    Some(text) => out.text(text),
                    None => out.fault = true,
                }
            }
            Values::Timestamp(all, unit) => {
                let value = i64::from_ne_bytes(all[at]);
                match unit {
                    TimeUnit::Second => calendar::moment::<1>(out, value),
                    TimeUnit::Millisecond => calendar::moment::<1_000>(out, value),
                    TimeUnit::Microsecond => calendar::moment::<1_000_000>(out, value),
                    TimeUnit::Nanosecond => calendar::moment::<1_000_000_000>(out, value),
                }
            }
            Values::Date(all) => calendar::date(out, i32::from_ne_bytes(all[at]).into()),
            Values::Decimal(all, limit, scale) => {
                digits::decimal(out, i128::from_ne_bytes(all[at]), *limit, *scale);
            }
            _ => self.write_rare(at, out),
        }
    }

    #[inline(never)]
    fn write_rare(&self, at: usize, out: &mut Output) {
        match &self.values {
            Values::Binary(ends, bytes) => {
                let (start, end) = ends.of(at);
                match bytes.get(start..end) {
                    Some(bytes) => base64(out, bytes),
                    None => out.fault = true,
                }
            }
            Values::FixedBinary(bytes, size) => base64(out, &bytes[at * size..][..*size]),
            Values::Time32(all, unit) => time(out, i32::from_ne_bytes(all[at]).into(), *unit),
            Values::Time64(all, unit) => time(out, i64::from_ne_bytes(all[at]), *unit),
            Values::Dictionary(positions, values) => match positions.at(at) {
                position if position < values.len => values.write(position, out),
                _ => out.fault = true,
            },
            Values::List(ends, items) => {
                let (start, end) = ends.of(at);
                items.write_list(start, end, out);
            }
            Values::FixedList(offset, size, items) => {
                let start = (offset + at) * size;
                items.write_list(start, start + size, out);
            }
            Values::Map(ends, keys, items) => {
                let (start, end) = ends.of(at);
                if start > end || end > keys.len.min(items.len) {
                    out.fault = true;
                    return;
                }
                out.short(b"{");
                for entry in start..end {
                    if entry > start {
                        out.short(b",");
                    }
                    out.fault |= keys.is_null(entry);
                    keys.write(entry, out);
                    out.short(b":");
                    items.write(entry, out);
                }
                out.short(b"}");
            }
            Values::Struct(members, offset) => {
                if members.is_empty() {
                    out.short(b"{");
                }
                for Member { key, column } in members {
                    out.constant(key);
                    column.write(offset + at, out);
                }
                out.short(b"}");
            }
            _ => unreachable!("written above"),
        }
    }

    fn write_list(&self, start: usize, end: usize, out: &mut Output) {
        if start > end || end > self.len {
            out.fault = true;
            return;
        }
        out.short(b"[");
        for item in start..end {
            if item > start {
                out.short(b",");
            }
            self.write(item, out);
        }
        out.short(b"]");
    }
}

/// Which of an array's buffers holds the bytes of its values.
fn buffer_of(of: &DataType) -> usize {
    if matches!(of, DataType::FixedSizeBinary(_)) {
        1
    } else {
        2
    }
}

fn time(out: &mut Output, value: i64, unit: TimeUnit) {
    match unit {
        TimeUnit::Second => calendar::time::<1>(out, value),
        TimeUnit::Millisecond => calendar::time::<1_000>(out, value),
        TimeUnit::Microsecond => calendar::time::<1_000_000>(out, value),
        TimeUnit::Nanosecond => calendar::time::<1_000_000_000>(out, value),
    }
}

fn base64(out: &mut Output, bytes: &[u8]) {
    out.short(b"\"");
    let room = bytes.len().div_ceil(3) * 4;
    match BASE64_STANDARD.encode_slice(bytes, out.next(room)) {
        Ok(count) => out.advance(count),
        Err(_) => out.fault = true,
    }
    out.short(b"\"");
}
