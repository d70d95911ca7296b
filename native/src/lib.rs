//! Decodes Singer RECORD lines into Arrow, strictly: a run becomes exactly what melisma's row path makes of it, or
//! the decoder says why it is not certain and leaves the run to that path.

mod column;
mod cursor;
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
use pyo3::types::PyCapsule;

use crate::envelope::Lines;
use crate::object::Unknown;
use crate::plan::Rules;

/// Changes with the meaning of `Decoder`'s arguments and results; melisma uses the version that it knows.
const INTERFACE: u32 = 1;

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

type Decoded = (Array, Option<Array>, Option<Array>, Vec<(String, u64)>);

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
    /// Returns the record's array, those of `time_extracted` and `version` (None unless wanted) and how often unknown
    /// members held a value; or a text that says why this is left to the row path.
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
            )),
            Err(why) => Outcome::Why(why),
        }
    }
}

/// The lines of a block: how many there are, where those start that do not begin with `begin` (at most `most`), and
/// whether every other one ends with a brace.
#[pyfunction]
fn lines(py: Python<'_>, block: &[u8], begin: &[u8], most: usize) -> (usize, Vec<usize>, bool) {
    let found = py.detach(|| framing::lines(block, begin, most));
    (found.count, found.others, found.closed)
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
    module.add_function(wrap_pyfunction!(lines, module)?)?;
    module.add_class::<Decoder>()
}
