//! Blocks of lines as Python sees them.

use std::ffi::c_int;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_data::ffi::FFI_ArrowArray;
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::DataType;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi::{PyBuffer_FillInfo, Py_buffer};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::encode::{lines, Lost, Output};

/// A buffer that is larger than this is not kept for the next block.
const KEPT: usize = 64 << 20;

/// Lines that an encoder wrote, by the buffer protocol. Once nobody looks at them, the encoder writes over them.
#[pyclass(frozen, module = "melisma_native")]
pub struct Block {
    bytes: Vec<u8>,
    len: usize,
    spare: Arc<Mutex<Vec<u8>>>,
}

#[pymethods]
impl Block {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut Py_buffer, flags: c_int) -> PyResult<()> {
        let block = slf.get();
        let len = isize::try_from(block.len).map_err(|_| PyBufferError::new_err("the block is too large"))?;
        // SAFETY: Python gives the view to fill. It keeps a reference to this object, which never moves its bytes and
        // never writes to them (read-only is asked for).
        match unsafe { PyBuffer_FillInfo(view, slf.as_ptr(), block.bytes.as_ptr().cast_mut().cast(), len, 1, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.bytes.len() <= KEPT {
            *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = take(&mut self.bytes);
        }
    }
}

/// Encodes record batches as lines.
#[pyclass(frozen, module = "melisma_native")]
#[derive(Default)]
pub struct Encoder {
    spare: Arc<Mutex<Vec<u8>>>,
}

#[pymethods]
impl Encoder {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The rows of a batch (an object with the Arrow PyCapsule interface), each a JSON object between `head` and `tail`.
    ///
    /// Returns them, and how many NaNs and infinities of which columns became null; None where this is left to the
    /// other path.
    fn encode(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, PyAny>,
        head: &[u8],
        tail: &[u8],
    ) -> PyResult<Option<(Block, Lost)>> {
        let (schema, array): (Bound<'_, PyCapsule>, Bound<'_, PyCapsule>) =
            batch.call_method0("__arrow_c_array__")?.extract()?;
        let schema = schema.pointer_checked(Some(c"arrow_schema"))?.cast::<FFI_ArrowSchema>();
        let array = array.pointer_checked(Some(c"arrow_array"))?.cast::<FFI_ArrowArray>();
        // SAFETY: capsules of these names hold such structures, which live as long as the capsules; both are only read.
        let (schema, array) = unsafe { (schema.as_ref(), array.as_ref()) };
        let Ok(of) = DataType::try_from(schema) else { return Ok(None) };
        let mut out = Output::new(take(&mut *self.spare.lock().unwrap_or_else(PoisonError::into_inner)));
        // SAFETY: whoever hands an array over says that it is sound and of the schema beside it.
        let lost = py.detach(|| unsafe { lines(array, &of, head, tail, &mut out) });
        let (bytes, len) = out.finish();
        let block = Block { bytes, len, spare: self.spare.clone() };
        Ok(lost.map(|lost| (block, lost)))
    }
}
