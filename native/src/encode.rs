//! Record batches as lines: between a head and a tail that all rows share, the row as a JSON object.
//!
//! What is written is byte for byte what melisma's other path writes, or the whole batch is left to that path: for a
//! type that is not known here, and for a value that it would refuse.

mod arrays;
mod calendar;
mod column;
mod digits;
mod output;

use arrow_data::ffi::FFI_ArrowArray;
use arrow_schema::DataType;

use crate::encode::column::{Column, Member, Values};
use crate::encode::output::Constant;
pub use crate::encode::output::Output;

/// How many NaNs and infinities of which columns became null.
pub type Lost = Vec<(usize, u64)>;

/// Writes the rows of a batch, which is given as an array of structs; None leaves it to the other path.
///
/// # Safety
///
/// The array is one of this type, and sound: its buffers hold what the C data interface says of its length.
pub unsafe fn lines(batch: &FFI_ArrowArray, of: &DataType, head: &[u8], tail: &[u8], out: &mut Output) -> Option<Lost> {
    // SAFETY: as the caller promises.
    let whole = unsafe { Column::new(batch, of) }?;
    let Values::Struct(mut members, start) = whole.values else { return None };
    let [first, ..] = members.as_mut_slice() else { return None };
    first.key.prepend(head);
    let tail = Constant::new(&[b"}", tail].concat());
    let mut lost = vec![0; members.len()];
    for row in start..start + batch.len() {
        for (Member { key, column }, lost) in members.iter().zip(&mut lost) {
            out.constant(key);
            column.write(row, out);
            if out.lost > 0 {
                *lost += std::mem::take(&mut out.lost);
            }
        }
        if out.fault {
            return None;
        }
        out.constant(&tail);
    }
    Some(lost.into_iter().enumerate().filter(|(_, count)| *count > 0).collect())
}
