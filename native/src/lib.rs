//! Decodes Singer RECORD lines into Arrow, strictly: a run becomes exactly what melisma's row path makes of it, or
//! the decoder says why it is not certain and leaves the run to that path. Encodes record batches as such lines by the
//! same rule.

mod block;
mod column;
mod cursor;
mod encode;
mod envelope;
mod framing;
mod json_text;
mod moment;
mod nested;
mod number;
mod object;
mod plan;

use std::sync::Mutex;

use arrow_data::ffi::FFI_ArrowArray;
use arrow_data::ArrayData;
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{DataType, Field};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule};

use crate::block::{Block, Encoder};
use crate::envelope::Lines;
use crate::framing::{Framing, Group};
use crate::object::Unknown;
use crate::plan::Rules;

/// Changes with the meaning of the classes' arguments and results; melisma uses the version that it knows.
const INTERFACE: u32 = 3;

/// An array that is handed over by the Arrow C data interface, as often as it is asked for.
#[pyclass(frozen, module = "melisma_native")]
struct Array(ArrayData);

#[pymethods]
impl Array {
    /// The array as two PyCapsules; the requested schema is not looked at.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        let _ = requested_schema;
        let field = Field::new("", self.0.data_type().clone(), true);
        let schema = FFI_ArrowSchema::try_from(&field).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let array = FFI_ArrowArray::new(&self.0);
        Ok((
            PyCapsule::new_with_value(py, schema, c"arrow_schema")?,
            PyCapsule::new_with_value(py, array, c"arrow_array")?,
        ))
    }
}

type Decoded = (Array, Option<Array>, Option<Array>, Vec<(String, u64)>, Vec<String>);

#[derive(IntoPyObject)]
enum Outcome {
    Decoded(Decoded),
    Why(&'static str),
}

/// Decodes the runs of one stream.
///
/// Arguments: the stream's name; the record's node; its Arrow schema; the names of top-level members that are passed
/// over; what becomes of other unknown ones (`warn`, `fail`, `drop`); whether nulls and missing members are held to
/// the schema; whether `time_extracted` and `version` are wanted.
#[pyclass(frozen, module = "melisma_native")]
struct Decoder(Mutex<Lines>);

#[pymethods]
impl Decoder {
    #[new]
    fn new(
        stream: String,
        node: &Bound<'_, PyAny>,
        schema: &Bound<'_, PyAny>,
        ignored: Vec<String>,
        on_unknown_field: &str,
        hold: bool,
        envelope: bool,
    ) -> PyResult<Self> {
        let unknown = match on_unknown_field {
            "warn" => Unknown::Count,
            "fail" => Unknown::Bail,
            "drop" => Unknown::Drop,
            other => return Err(PyValueError::new_err(format!("no way to treat unknown fields: {other}"))),
        };
        let of = imported(schema)?;
        let rules = Rules { hold, unknown, hold_closed: hold && unknown != Unknown::Drop };
        let record = rules.object(node, &of, ignored)?;
        Ok(Self(Mutex::new(Lines::new(stream, record, of, envelope))))
    }

    /// Decodes lines, each ended by a newline.
    ///
    /// Returns the record's array, those of `time_extracted` and `version` (None unless wanted) how often unknown
    /// members held a value, and the columns that hold an integer beyond 2^53; or a text that says why this is left to the row path.
    fn decode(&self, py: Python<'_>, data: &[u8], count: usize) -> Outcome {
        // Poisoned means that a run panicked half-way: what it left behind is not to be built on.
        let decoded = py.detach(|| match self.0.lock() {
            Ok(mut lines) => lines.decode(data, count),
            Err(_) => Err("an earlier run broke the decoder"),
        });
        match decoded {
            Ok(batch) => Outcome::Decoded((
                Array(batch.record),
                batch.extracted.map(Array),
                batch.versions.map(Array),
                batch.unknown,
                batch.large,
            )),
            Err(why) => Outcome::Why(why),
        }
    }
}

/// Cuts blocks into the RECORD lines of each stream, which it knows by how they begin.
///
/// A block's lines are taken by `scan` and `add`, and handed out by `take`.
#[pyclass(module = "melisma_native")]
struct Framer(Box<Framing>);

// Python aligns its objects to 16 bytes at most. What holds vectors, as a searcher does, stands in a box of its own.
const _: () = assert!(align_of::<Framer>() <= 8 && align_of::<Decoder>() <= 8 && align_of::<Array>() <= 8);

/// The stream, its lines, the number of the first one, those of all unless they follow one another, whether all are
/// known to begin and end as an object does.
type Taken<'py> = (usize, Bound<'py, PyBytes>, u64, Option<Bound<'py, PyBytes>>, usize, bool);

#[pymethods]
impl Framer {
    #[new]
    fn new() -> Self {
        Self(Box::new(Framing::new()))
    }

    /// Lines that begin so, up to the key `"record"`, are RECORDs of this stream.
    fn learn(&mut self, beginning: &[u8], stream: usize) {
        self.0.learn(beginning, stream);
    }

    /// Knows no beginning any more.
    fn forget(&mut self) {
        self.0.forget();
    }

    /// Gives up the lines taken so far.
    fn clear(&mut self) {
        self.0.take();
    }

    /// Takes known lines from a place in the block on; where the first other line starts (or the end), and its number.
    fn scan(&mut self, block: &[u8], at: usize, number: u64) -> PyResult<(usize, u64)> {
        if !block.ends_with(b"\n") {
            return Err(PyValueError::new_err("a block ends with a newline"));
        }
        Ok(self.0.scan(block, at, number))
    }

    /// Takes a line of a stream that was not known, from `start` to before `end`.
    fn add(&mut self, stream: usize, start: usize, end: usize, number: u64, closed: bool) {
        self.0.add(stream, start, end, number, closed);
    }

    /// The lines taken so far by stream, in the order of their first lines.
    fn take<'py>(&mut self, py: Python<'py>, block: Bound<'py, PyBytes>) -> PyResult<Vec<Taken<'py>>> {
        self.0.take().into_iter().map(|group| taken(py, &group, &block)).collect()
    }
}

fn taken<'py>(py: Python<'py>, group: &Group, block: &Bound<'py, PyBytes>) -> PyResult<Taken<'py>> {
    let bytes = block.as_bytes();
    let data = match group.place(bytes) {
        Some((0, end)) if end == bytes.len() => block.clone(),
        Some((start, end)) => PyBytes::new(py, &bytes[start..end]),
        None => PyBytes::new_with(py, group.size, |into| {
            group.write(bytes, into);
            Ok(())
        })?,
    };
    let (first, numbers) = match group.first() {
        Some(first) => (first, None),
        None => {
            let numbers = PyBytes::new_with(py, group.count * 8, |into| {
                group.write_numbers(into);
                Ok(())
            })?;
            (0, Some(numbers))
        }
    };
    Ok((group.stream, data, first, numbers, group.count, group.closed))
}

/// Whether a text stands anywhere in a block.
#[pyfunction]
fn contains(py: Python<'_>, block: &[u8], text: &[u8]) -> bool {
    py.detach(|| memchr::memmem::find(block, text).is_some())
}

/// How often a byte stands in a block.
#[pyfunction]
fn count(py: Python<'_>, block: &[u8], byte: u8) -> usize {
    py.detach(|| memchr::memchr_iter(byte, block).count())
}

/// The type of an object with the Arrow PyCapsule interface for schemas.
fn imported(schema: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let capsule = schema.call_method0("__arrow_c_schema__")?.cast_into::<PyCapsule>()?;
    let pointer = capsule.pointer_checked(Some(c"arrow_schema"))?.cast::<FFI_ArrowSchema>();
    // SAFETY: a capsule of this name holds such a structure, which lives as long as the capsule; it is only read.
    let schema = unsafe { pointer.as_ref() };
    DataType::try_from(schema).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymodule(gil_used = false)]
fn melisma_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(contains, module)?)?;
    module.add_function(wrap_pyfunction!(count, module)?)?;
    module.add_class::<Framer>()?;
    module.add_class::<Block>()?;
    module.add_class::<Encoder>()?;
    module.add_class::<Decoder>()
}
