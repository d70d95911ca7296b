//! What to decode: the tree of nodes that Python hands over, joined with the stream's Arrow type.

use arrow_schema::DataType;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::column::{Booleans, Column, Fixed};
use crate::nested::{of_entries, Map, Nested};
use crate::object::{Member, Object, Unknown};

/// A node: its kind, the members of an object, the item of a list or a map, whether an object is closed.
type Node<'py> = (String, Vec<(String, bool, bool, Bound<'py, PyAny>)>, Option<Bound<'py, PyAny>>, bool);

/// What holds for all nodes.
pub struct Rules {
    /// Hold nulls and missing members to the schema.
    pub hold: bool,
    pub unknown: Unknown,
    /// Leave a record with an unknown member in a closed object to the row path.
    pub hold_closed: bool,
}

impl Rules {
    /// The columns of an object, from its node.
    ///
    /// `ignored` are members that are passed over in silence.
    pub fn object(&self, node: &Bound<'_, PyAny>, of: &DataType, ignored: Vec<String>) -> PyResult<Object> {
        let (kind, members, _, closed): Node<'_> = node.extract()?;
        let DataType::Struct(fields) = of else { return Err(unfit(&kind, of)) };
        if kind != "struct" || fields.len() != members.len() {
            return Err(unfit(&kind, of));
        }
        let unknown = if closed && self.hold_closed { Unknown::Bail } else { self.unknown };
        let mut made = Vec::with_capacity(members.len());
        for ((name, required, nullable, node), field) in members.into_iter().zip(fields) {
            let column = self.column(&node, field.data_type())?;
            made.push(Member::new(name, self.hold && required, !self.hold || nullable, column));
        }
        Ok(Object::new(made, ignored, unknown))
    }

    fn column(&self, node: &Bound<'_, PyAny>, of: &DataType) -> PyResult<Column> {
        let (kind, _, item, _): Node<'_> = node.extract()?;
        let item = |of: &DataType| match &item {
            Some(item) => self.column(item, of),
            None => Err(unfit(&kind, of)),
        };
        use arrow_schema::TimeUnit::Microsecond;
        Ok(match (kind.as_str(), of) {
            ("boolean", DataType::Boolean) => Column::Boolean(Booleans::default()),
            ("integer", DataType::Int64) => Column::Int64(Fixed::new()),
            ("integer", DataType::UInt64) => Column::UInt64(Fixed::new()),
            ("number", DataType::Float64) => Column::Float64(Fixed::new()),
            ("decimal", &DataType::Decimal128(precision, scale @ 0..)) => {
                Column::Decimal(Fixed::new(), precision, scale as u8)
            }
            ("string", DataType::Utf8) => Column::text(),
            ("timestamp", DataType::Timestamp(Microsecond, Some(zone))) if &**zone == "UTC" => {
                Column::Timestamp(Fixed::new())
            }
            ("date", DataType::Date32) => Column::Date(Fixed::new()),
            ("time", DataType::Time64(Microsecond)) => Column::Time(Fixed::new()),
            ("binary", DataType::Binary) => Column::binary(),
            ("json", DataType::Utf8) => Column::json(),
            ("struct", DataType::Struct(_)) => Column::Object(Box::new(self.object(node, of, Vec::new())?)),
            ("list", DataType::List(field)) => Column::List(Nested::new(item(field.data_type())?)),
            ("map", DataType::Map(..)) if *of_entries(of).0 == DataType::Utf8 => {
                Column::Map(Map::new(item(of_entries(of).1)?))
            }
            _ => return Err(unfit(&kind, of)),
        })
    }
}

fn unfit(kind: &str, of: &DataType) -> PyErr {
    PyValueError::new_err(format!("a column of the kind {kind} and the type {of} is not decoded natively"))
}
