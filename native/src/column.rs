//! Columns as they grow, value by value, and what they become in Arrow.

use std::mem::take;

use arrow_buffer::Buffer;
use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_schema::DataType;
use base64::prelude::{Engine, BASE64_STANDARD};

use crate::cursor::{Cursor, Parsed, MAX_DEPTH};
use crate::json_text::Canonical;
use crate::moment;
use crate::nested::{Map, Nested};
use crate::object::Object;

/// Which values are null. Nothing is done for a value that is not.
#[derive(Default)]
pub struct Validity {
    bits: Vec<u8>,
    nulls: usize,
}

impl Validity {
    pub fn null(&mut self, at: usize) {
        if self.bits.len() <= at / 8 {
            self.bits.resize(at / 8 + 1, 0xFF);
        }
        self.bits[at / 8] &= !(1 << (at % 8));
        self.nulls += 1;
    }

    pub fn finish(&mut self, len: usize) -> Option<Buffer> {
        if self.nulls == 0 {
            return None;
        }
        self.bits.resize(len.div_ceil(8), 0xFF);
        self.nulls = 0;
        Some(take(&mut self.bits).into())
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Every integer up to this one is a double, too.
const EXACT: u64 = 1 << 53;

/// Room of at least so many bytes is given back when a value's column turns out shorter than was thought.
const SPARE: usize = 1024;

/// A vector as a buffer, without much room beyond its end: batches wait for their row group for long.
pub fn trimmed<T: arrow_buffer::ArrowNativeType>(mut values: Vec<T>) -> Buffer {
    let spare = (values.capacity() - values.len()) * size_of::<T>();
    if spare > SPARE && spare > values.len() * size_of::<T>() / 8 {
        values.shrink_to_fit();
    }
    Buffer::from_vec(values)
}

/// How large a run is.
#[derive(Clone, Copy)]
pub struct Size {
    pub rows: usize,
    pub bytes: usize,
}

/// How much of a run's bytes something took in the run before: room is made for as much in the next, so that all the
/// room together is no more than a run.
#[derive(Default)]
pub struct Share {
    run: usize,
    share: f64,
}

impl Share {
    pub fn expected(&mut self, run: Size) -> usize {
        self.run = run.bytes;
        (run.bytes as f64 * self.share) as usize
    }

    pub fn took(&mut self, count: usize) {
        self.share = count as f64 / self.run.max(1) as f64;
    }
}

/// Values of one width.
pub struct Fixed<T> {
    pub values: Vec<T>,
    validity: Validity,
}

impl<T: Copy + Default + arrow_buffer::ArrowNativeType> Fixed<T> {
    pub fn new() -> Self {
        Self { values: Vec::new(), validity: Validity::default() }
    }

    pub fn null(&mut self) {
        self.validity.null(self.values.len());
        self.values.push(T::default());
    }

    /// Makes room for a run.
    pub fn begin(&mut self, run: Size) {
        self.values.reserve(run.rows);
    }

    pub fn clear(&mut self) {
        *self = Self::new();
    }

    pub fn finish(&mut self, of: &DataType) -> ArrayData {
        let len = self.values.len();
        let nulls = self.validity.finish(len);
        built(
            ArrayData::builder(of.clone()).len(len).null_bit_buffer(nulls).add_buffer(trimmed(take(&mut self.values))),
        )
    }
}

/// Values of any width, one after the other in `bytes`.
pub struct Varying {
    pub ends: Vec<i32>,
    pub bytes: Vec<u8>,
    validity: Validity,
    share: Share,
}

impl Varying {
    pub fn new() -> Self {
        Self { ends: vec![0], bytes: Vec::new(), validity: Validity::default(), share: Share::default() }
    }

    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Closes a value whose bytes have been appended. They are no longer than their JSON, so an i32 counts them.
    #[inline(always)]
    pub fn end(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    pub fn null(&mut self) {
        self.validity.null(self.len());
        self.end();
    }

    pub fn begin(&mut self, run: Size) {
        self.ends.reserve(run.rows);
        self.bytes.reserve(self.share.expected(run));
    }

    pub fn clear(&mut self) {
        *self = Self::new();
    }

    pub fn finish(&mut self, of: &DataType) -> ArrayData {
        let len = self.len();
        let nulls = self.validity.finish(len);
        self.share.took(self.bytes.len());
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let bytes = take(&mut self.bytes);
        let builder = ArrayData::builder(of.clone()).len(len).null_bit_buffer(nulls);
        built(builder.add_buffer(trimmed(ends)).add_buffer(trimmed(bytes)))
    }
}

#[derive(Default)]
pub struct Booleans {
    bits: Vec<u8>,
    len: usize,
    validity: Validity,
}

impl Booleans {
    #[inline(always)]
    fn push(&mut self, value: bool) {
        if self.len % 8 == 0 {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(value) << (self.len % 8);
        }
        self.len += 1;
    }

    fn finish(&mut self, of: &DataType) -> ArrayData {
        let len = take(&mut self.len);
        let nulls = self.validity.finish(len);
        built(ArrayData::builder(of.clone()).len(len).null_bit_buffer(nulls).add_buffer(take(&mut self.bits).into()))
    }
}

/// A column, or what is nested in one: reads JSON values and keeps them as Arrow does.
pub enum Column {
    Boolean(Booleans),
    Int64(Fixed<i64>),
    UInt64(Fixed<u64>),
    Float64(Fixed<f64>),
    Decimal(Fixed<i128>, u8, u8),
    Text(Varying),
    Timestamp(Fixed<i64>),
    Date(Fixed<i32>),
    Time(Fixed<i64>),
    Binary(Varying),
    Json(Varying, Canonical),
    Object(Box<Object>),
    List(Box<Nested>),
    Map(Box<Map>),
}

impl Column {
    pub fn text() -> Self {
        Self::Text(Varying::new())
    }

    pub fn binary() -> Self {
        Self::Binary(Varying::new())
    }

    pub fn json() -> Self {
        Self::Json(Varying::new(), Canonical::default())
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        match self {
            Self::Boolean(column) => column.len,
            Self::Int64(column) | Self::Timestamp(column) | Self::Time(column) => column.values.len(),
            Self::UInt64(column) => column.values.len(),
            Self::Float64(column) => column.values.len(),
            Self::Decimal(column, ..) => column.values.len(),
            Self::Date(column) => column.values.len(),
            Self::Text(column) | Self::Binary(column) | Self::Json(column, _) => column.len(),
            Self::Object(column) => column.len(),
            Self::List(column) => column.len(),
            Self::Map(column) => column.len(),
        }
    }

    pub fn null(&mut self) {
        match self {
            Self::Boolean(column) => {
                column.validity.null(column.len);
                column.push(false);
            }
            Self::Int64(column) | Self::Timestamp(column) | Self::Time(column) => column.null(),
            Self::UInt64(column) => column.null(),
            Self::Float64(column) => column.null(),
            Self::Decimal(column, ..) => column.null(),
            Self::Date(column) => column.null(),
            Self::Text(column) | Self::Binary(column) | Self::Json(column, _) => column.null(),
            Self::Object(column) => column.null(),
            Self::List(column) => column.null(),
            Self::Map(column) => column.null(),
        }
    }

    /// Reads an item of a list or a map; whether it may be null is held elsewhere.
    #[inline]
    pub fn read_or_null(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        if cursor.peek() == b'n' {
            cursor.word(b"null")?;
            self.null();
            return Ok(());
        }
        self.read(cursor)
    }

    /// Reads a value that is not null.
    #[inline]
    pub fn read(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        match self {
            Self::Boolean(column) => {
                let value = cursor.peek() == b't';
                cursor.word(if value { b"true" } else { b"false" })?;
                column.push(value);
            }
            Self::Int64(column) => column.values.push(cursor.int64()?),
            Self::UInt64(column) => column.values.push(cursor.uint64()?),
            Self::Float64(column) => column.values.push(cursor.float64()?),
            Self::Decimal(column, precision, scale) => column.values.push(cursor.decimal(*precision, *scale)?),
            Self::Text(column) => {
                cursor.text(&mut column.bytes)?;
                column.end();
            }
            Self::Timestamp(column) => match moment::timestamp(cursor.plain_text()?) {
                Some(moment) => column.values.push(moment),
                None => return cursor.bail("not a date-time that is kept exactly"),
            },
            Self::Date(column) => match moment::date(cursor.plain_text()?) {
                Some(day) => column.values.push(day),
                None => return cursor.bail("not a date"),
            },
            Self::Time(column) => match moment::time(cursor.plain_text()?) {
                Some(time) => column.values.push(time),
                None => return cursor.bail("not a time of day that is kept exactly"),
            },
            Self::Binary(column) => {
                if BASE64_STANDARD.decode_vec(cursor.plain_text()?, &mut column.bytes).is_err() {
                    return cursor.bail("not base64 in its canonical form");
                }
                column.end();
            }
            Self::Json(column, canonical) => {
                canonical.read(cursor, &mut column.bytes, MAX_DEPTH)?;
                column.end();
            }
            Self::Object(column) => return column.read(cursor),
            Self::List(column) => return column.read(cursor),
            Self::Map(column) => return column.read(cursor),
        }
        Ok(())
    }

    /// What was read, as an array of this type; the column begins anew.
    pub fn finish(&mut self, of: &DataType) -> ArrayData {
        match self {
            Self::Boolean(column) => column.finish(of),
            Self::Int64(column) | Self::Timestamp(column) | Self::Time(column) => column.finish(of),
            Self::UInt64(column) => column.finish(of),
            Self::Float64(column) => column.finish(of),
            Self::Decimal(column, ..) => column.finish(of),
            Self::Date(column) => column.finish(of),
            Self::Text(column) | Self::Binary(column) | Self::Json(column, _) => column.finish(of),
            Self::Object(column) => column.finish(of),
            Self::List(column) => column.finish(of),
            Self::Map(column) => column.finish(of),
        }
    }

    /// Makes room for a run, and as much for what is nested as the run before took.
    pub fn begin(&mut self, run: Size) {
        match self {
            Self::Boolean(column) => column.bits.reserve(run.rows / 8 + 1),
            Self::Int64(column) | Self::Timestamp(column) | Self::Time(column) => column.begin(run),
            Self::UInt64(column) => column.begin(run),
            Self::Float64(column) => column.begin(run),
            Self::Decimal(column, ..) => column.begin(run),
            Self::Date(column) => column.begin(run),
            Self::Text(column) | Self::Binary(column) | Self::Json(column, _) => column.begin(run),
            Self::Object(column) => column.begin(run),
            Self::List(column) => drop(column.begin(run)),
            Self::Map(column) => column.begin(run),
        }
    }

    /// Forgets what was read, and gives back the room.
    pub fn clear(&mut self) {
        match self {
            Self::Boolean(column) => *column = Booleans::default(),
            Self::Int64(column) | Self::Timestamp(column) | Self::Time(column) => column.clear(),
            Self::UInt64(column) => column.clear(),
            Self::Float64(column) => column.clear(),
            Self::Decimal(column, ..) => column.clear(),
            Self::Date(column) => column.clear(),
            Self::Text(column) | Self::Binary(column) => column.clear(),
            Self::Json(column, canonical) => {
                column.clear();
                canonical.clear();
            }
            Self::Object(column) => column.clear(),
            Self::List(column) => column.clear(),
            Self::Map(column) => column.clear(),
        }
    }

    /// Whether it holds an integer beyond 2^53, which a double may not hold.
    pub fn holds_large(&self) -> bool {
        match self {
            Self::Int64(column) => column.values.iter().fold(false, |any, value| any | (value.unsigned_abs() > EXACT)),
            Self::UInt64(column) => column.values.iter().fold(false, |any, &value| any | (value > EXACT)),
            Self::Object(column) => column.members.iter().any(|each| each.column.holds_large()),
            Self::List(column) => column.item.holds_large(),
            Self::Map(column) => column.holds_large(),
            _ => false,
        }
    }

    /// The objects in it, for their unknown members.
    pub fn object(&mut self) -> Option<&mut Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::List(column) => column.item.object(),
            Self::Map(column) => column.object(),
            _ => None,
        }
    }
}

/// The array that a builder holds.
pub fn built(builder: ArrayDataBuilder) -> ArrayData {
    // SAFETY: the columns hold as many values, bits and ends as they say; ends never fall and never pass what they
    // count, since they are taken from its length; text is UTF-8, since all lines were checked to be and what
    // escapes stand for is encoded from `char`. Values are buffers of their own type, hence aligned.
    unsafe { builder.build_unchecked() }
}
