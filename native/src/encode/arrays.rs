//! Arrays of the Arrow C data interface, seen as slices of bytes: nothing is copied, and nothing has to be aligned.

use arrow_data::ffi::FFI_ArrowArray;

/// `N` bytes for each value.
pub type Fixed<'a, const N: usize> = &'a [[u8; N]];

/// Values of `N` bytes from a buffer of an array; None if it has no such buffer.
///
/// # Safety
///
/// The buffer, if there is one, holds that many values from there on.
pub unsafe fn values<const N: usize>(
    array: &FFI_ArrowArray,
    buffer: usize,
    start: usize,
    count: usize,
) -> Option<Fixed<'_, N>> {
    if count == 0 {
        return Some(&[]);
    }
    if buffer >= array.num_buffers() || array.buffer(buffer).is_null() {
        return None;
    }
    // SAFETY: as the caller promises; bytes need no alignment, and live as long as the array.
    Some(unsafe { std::slice::from_raw_parts(array.buffer(buffer).cast::<[u8; N]>().add(start), count) })
}

/// A bit for each value.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    start: usize,
}

impl<'a> Bits<'a> {
    /// # Safety
    ///
    /// The buffer, if there is one, holds the array's bits.
    pub unsafe fn new(array: &'a FFI_ArrowArray, buffer: usize) -> Option<Self> {
        let start = array.offset();
        // SAFETY: as the caller promises.
        let bytes = unsafe { values::<1>(array, buffer, 0, (start + array.len()).div_ceil(8)) }?;
        Some(Self { bytes: bytes.as_flattened(), start })
    }

    /// Which values are there; None where all are.
    ///
    /// # Safety
    ///
    /// As of `new`.
    pub unsafe fn validity(array: &'a FFI_ArrowArray) -> Option<Self> {
        if array.null_count_opt() == Some(0) {
            return None;
        }
        // SAFETY: as the caller promises. Without a buffer there are no nulls.
        unsafe { Self::new(array, 0) }
    }

    #[inline(always)]
    pub fn get(self, at: usize) -> bool {
        let at = self.start + at;
        self.bytes[at / 8] >> (at % 8) & 1 == 1
    }
}

/// Where the values of a text, a list or a map begin and end.
#[derive(Clone, Copy)]
pub enum Ends<'a> {
    Small(Fixed<'a, 4>),
    Large(Fixed<'a, 8>),
}

impl<'a> Ends<'a> {
    /// # Safety
    ///
    /// The array's second buffer holds them, in 8 bytes each or in 4.
    pub unsafe fn new(array: &'a FFI_ArrowArray, large: bool) -> Option<Self> {
        let (start, count) = (array.offset(), if array.is_empty() { 0 } else { array.len() + 1 });
        // SAFETY: as the caller promises.
        Some(unsafe {
            if large {
                Self::Large(values(array, 1, start, count)?)
            } else {
                Self::Small(values(array, 1, start, count)?)
            }
        })
    }

    #[inline(always)]
    fn at(self, at: usize) -> usize {
        match self {
            Self::Small(ends) => i32::from_ne_bytes(ends[at]) as usize,
            Self::Large(ends) => i64::from_ne_bytes(ends[at]) as usize,
        }
    }

    #[inline(always)]
    pub fn of(self, at: usize) -> (usize, usize) {
        (self.at(at), self.at(at + 1))
    }

    /// The end of the last value.
    pub fn last(self) -> usize {
        match self {
            Self::Small([]) | Self::Large([]) => 0,
            Self::Small(ends) => self.at(ends.len() - 1),
            Self::Large(ends) => self.at(ends.len() - 1),
        }
    }
}

/// The positions in a dictionary.
#[derive(Clone, Copy)]
pub enum Positions<'a> {
    One(Fixed<'a, 1>),
    Two(Fixed<'a, 2>),
    Four(Fixed<'a, 4>),
    Eight(Fixed<'a, 8>),
}

impl<'a> Positions<'a> {
    /// # Safety
    ///
    /// The array's second buffer holds them, in so many bytes each.
    pub unsafe fn new(array: &'a FFI_ArrowArray, bytes: usize) -> Option<Self> {
        let (start, count) = (array.offset(), array.len());
        // SAFETY: as the caller promises.
        Some(unsafe {
            match bytes {
                1 => Self::One(values(array, 1, start, count)?),
                2 => Self::Two(values(array, 1, start, count)?),
                4 => Self::Four(values(array, 1, start, count)?),
                _ => Self::Eight(values(array, 1, start, count)?),
            }
        })
    }

    /// A position; none is negative where the dictionary is sound.
    #[inline(always)]
    pub fn at(self, at: usize) -> usize {
        match self {
            Self::One(all) => u8::from_ne_bytes(all[at]) as usize,
            Self::Two(all) => u16::from_ne_bytes(all[at]) as usize,
            Self::Four(all) => u32::from_ne_bytes(all[at]) as usize,
            Self::Eight(all) => u64::from_ne_bytes(all[at]) as usize,
        }
    }
}
