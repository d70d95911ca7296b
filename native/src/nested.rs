//! Lists and maps as they grow.

use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_schema::DataType;

use crate::column::{built, trimmed, Column, Share, Size, Validity, Varying};
use crate::cursor::{Cursor, Parsed};
use crate::json_text;
use crate::object::Object;

/// Lists, and maps, whose item is an entry.
pub struct Nested {
    ends: Vec<i32>,
    validity: Validity,
    pub item: Column,
    share: Share,
}

impl Nested {
    pub fn new(item: Column) -> Box<Self> {
        Box::new(Self { ends: vec![0], validity: Validity::default(), item, share: Share::default() })
    }

    fn end(&mut self) {
        self.ends.push(self.item.len() as i32);
    }

    pub fn null(&mut self) {
        self.validity.null(self.ends.len() - 1);
        self.end();
    }

    pub fn begin(&mut self, run: Size) -> Size {
        self.ends.reserve(run.rows);
        let items = Size { rows: self.share.expected(run), ..run };
        self.item.begin(items);
        items
    }

    pub fn clear(&mut self) {
        self.ends = vec![0];
        self.validity.clear();
        self.item.clear();
    }

    fn ends(&mut self, of: &DataType) -> ArrayDataBuilder {
        let len = self.ends.len() - 1;
        let nulls = self.validity.finish(len);
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        self.share.took(*ends.last().unwrap_or(&0) as usize);
        ArrayData::builder(of.clone()).len(len).null_bit_buffer(nulls).add_buffer(trimmed(ends))
    }

    pub fn read(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        if !cursor.take(b'[') {
            return cursor.bail("another type of value than an array");
        }
        cursor.space();
        if !cursor.take(b']') {
            loop {
                self.item.read_or_null(cursor)?;
                if !cursor.more(b']')? {
                    break;
                }
            }
        }
        self.end();
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    pub fn finish(&mut self, of: &DataType) -> ArrayData {
        let DataType::List(item) = of else { unreachable!("the plan was checked") };
        let items = self.item.finish(item.data_type());
        built(self.ends(of).add_child_data(items))
    }
}

/// Objects whose members are values of one type.
pub struct Map {
    keys: Varying,
    entries: Nested,
}

impl Map {
    pub fn new(item: Column) -> Box<Self> {
        Box::new(Self { keys: Varying::new(), entries: *Nested::new(item) })
    }

    pub fn read(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        if !cursor.take(b'{') {
            return cursor.bail("another type of value than an object");
        }
        let first = self.keys.len();
        cursor.space();
        if !cursor.take(b'}') {
            loop {
                cursor.text(&mut self.keys.bytes)?;
                self.keys.end();
                cursor.colon()?;
                self.entries.item.read_or_null(cursor)?;
                if !cursor.more(b'}')? {
                    break;
                }
            }
        }
        let ends = &self.keys.ends[first..];
        let mut keys: Vec<_> = ends.windows(2).map(|ends| (ends[0] as usize, ends[1] as usize)).collect();
        if json_text::any_twice(&self.keys.bytes, &mut keys) {
            return cursor.bail("a key that stands twice");
        }
        self.entries.end();
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn null(&mut self) {
        self.entries.null();
    }

    pub fn begin(&mut self, run: Size) {
        let entries = self.entries.begin(run);
        self.keys.begin(entries);
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    /// The objects among its values, for their unknown members.
    pub fn object(&mut self) -> Option<&mut Object> {
        self.entries.item.object()
    }

    pub fn holds_large(&self) -> bool {
        self.entries.item.holds_large()
    }

    pub fn finish(&mut self, of: &DataType) -> ArrayData {
        let (key, item) = of_entries(of);
        let keys = self.keys.finish(key);
        let items = self.entries.item.finish(item);
        let DataType::Map(entries, _) = of else { unreachable!("the plan was checked") };
        let entries = ArrayData::builder(entries.data_type().clone()).len(keys.len());
        let entries = built(entries.add_child_data(keys).add_child_data(items));
        built(self.entries.ends(of).add_child_data(entries))
    }
}

/// The types of a map's keys and items.
pub fn of_entries(map: &DataType) -> (&DataType, &DataType) {
    let DataType::Map(entries, _) = map else { unreachable!("the plan was checked") };
    let DataType::Struct(members) = entries.data_type() else { unreachable!("a map's entries are a struct") };
    (members[0].data_type(), members[1].data_type())
}
