//! Objects with members that the schema names: a record, or a struct within one.

use arrow_data::ArrayData;
use arrow_schema::DataType;
use hashbrown::HashMap;

use crate::column::{built, Column, Size, Validity};
use crate::cursor::{Cursor, Parsed, MAX_DEPTH};

/// What is done about a member that the schema does not name.
#[derive(Clone, Copy, PartialEq)]
pub enum Unknown {
    /// Passed over.
    Drop,
    /// Passed over, and counted if it is not null.
    Count,
    /// Left to the row path, which says whose fault it is.
    Bail,
}

pub struct Member {
    pub name: Box<str>,
    /// The name and the quote after it, as they stand in JSON; empty where the name must be escaped.
    key: Box<[u8]>,
    required: bool,
    nullable: bool,
    pub column: Column,
}

impl Member {
    /// `required` and `nullable` are what is held: pass false and true where nothing is.
    pub fn new(name: String, required: bool, nullable: bool, column: Column) -> Self {
        let escaped = name.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        let key = if escaped { Vec::new() } else { [name.as_bytes(), b"\""].concat() };
        Self { name: name.into(), key: key.into(), required, nullable, column }
    }
}

enum Known {
    Member(usize),
    Ignored,
}

/// How often an unknown member held a value, and the object that it was last met in.
struct Met {
    values: u64,
    object: u64,
}

pub struct Object {
    pub members: Vec<Member>,
    names: HashMap<Box<[u8]>, Known>,
    unknown: Unknown,
    met: HashMap<Box<[u8]>, Met>,
    /// Counts the objects read, null ones left out.
    objects: u64,
    len: usize,
    validity: Validity,
    scratch: Vec<u8>,
}

impl Object {
    pub fn new(members: Vec<Member>, ignored: Vec<String>, unknown: Unknown) -> Self {
        let mut names: HashMap<Box<[u8]>, Known> =
            ignored.into_iter().map(|name| (name.into_bytes().into(), Known::Ignored)).collect();
        for (at, member) in members.iter().enumerate() {
            names.insert(member.name.as_bytes().into(), Known::Member(at));
        }
        Self {
            members,
            names,
            unknown,
            met: HashMap::new(),
            objects: 0,
            len: 0,
            validity: Validity::default(),
            scratch: Vec::new(),
        }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn null(&mut self) {
        self.validity.null(self.len);
        self.len += 1;
        for member in &mut self.members {
            member.column.null();
        }
    }

    /// Makes room for a run.
    pub fn begin(&mut self, run: Size) {
        for member in &mut self.members {
            member.column.begin(run);
        }
    }

    pub fn clear(&mut self) {
        self.len = 0;
        self.validity.clear();
        self.met.clear();
        for member in &mut self.members {
            member.column.clear();
        }
    }

    pub fn finish(&mut self, of: &DataType) -> ArrayData {
        let DataType::Struct(fields) = of else { unreachable!("the plan was checked") };
        let len = std::mem::take(&mut self.len);
        let members = self.members.iter_mut().zip(fields).map(|(each, field)| each.column.finish(field.data_type()));
        let members = members.collect();
        let nulls = self.validity.finish(len);
        built(ArrayData::builder(of.clone()).len(len).null_bit_buffer(nulls).child_data(members))
    }

    /// Hands out the unknown members that held values, here and in what is nested, by dotted name.
    pub fn take_unknown(&mut self, path: &str, found: &mut Vec<(String, u64)>) {
        for (name, met) in self.met.drain() {
            if met.values > 0 {
                found.push((format!("{path}{}", String::from_utf8_lossy(&name)), met.values));
            }
        }
        for member in &mut self.members {
            if let Some(object) = member.column.object() {
                object.take_unknown(&format!("{path}{}.", member.name), found);
            }
        }
    }

    pub fn read(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        if !cursor.take(b'{') {
            return cursor.bail("another type of value than an object");
        }
        let row = self.len;
        self.objects += 1;
        let mut filled = 0;
        let mut expected = 0;
        cursor.space();
        if !cursor.take(b'}') {
            loop {
                let at = match self.members.get(expected) {
                    Some(member) if expects(cursor, &member.key) => {
                        cursor.at += member.key.len() + 1;
                        Some(expected)
                    }
                    _ => self.look_up(cursor)?,
                };
                if let Some(at) = at {
                    cursor.colon()?;
                    let member = &mut self.members[at];
                    if member.column.len() != row {
                        return cursor.bail("a key that stands twice");
                    }
                    if cursor.peek() != b'n' {
                        member.column.read(cursor)?;
                    } else {
                        cursor.word(b"null")?;
                        if !member.nullable {
                            return cursor.bail("null where the schema does not allow it");
                        }
                        member.column.null();
                    }
                    filled += 1;
                    expected = at + 1;
                }
                if !cursor.more(b'}')? {
                    break;
                }
            }
        }
        if filled < self.members.len() {
            for member in &mut self.members {
                if member.column.len() == row {
                    if member.required {
                        return cursor.bail("a member that the schema requires is missing");
                    }
                    member.column.null();
                }
            }
        }
        self.len += 1;
        Ok(())
    }

    /// The member that the key at the cursor names; None for one that the schema does not name, which is passed over.
    #[inline(never)]
    fn look_up(&mut self, cursor: &mut Cursor<'_>) -> Parsed<Option<usize>> {
        let name = cursor.key(&mut self.scratch)?;
        match self.names.get(name) {
            Some(Known::Member(at)) => return Ok(Some(*at)),
            Some(Known::Ignored) => {}
            None if self.unknown == Unknown::Drop => {}
            None if self.unknown == Unknown::Bail => {
                return cursor.bail("a member that the schema does not name, and may not be there");
            }
            None => {
                let met = match self.met.get_mut(name) {
                    Some(met) => met,
                    None => self.met.entry(name.into()).or_insert(Met { values: 0, object: 0 }),
                };
                if std::mem::replace(&mut met.object, self.objects) == self.objects {
                    return cursor.bail("a key that stands twice");
                }
                cursor.colon()?;
                met.values += u64::from(cursor.peek() != b'n');
                cursor.skip(MAX_DEPTH)?;
                return Ok(None);
            }
        }
        cursor.colon()?;
        cursor.skip(MAX_DEPTH)?;
        Ok(None)
    }
}

/// Whether a quote and then this key stand at the cursor.
#[inline(always)]
fn expects(cursor: &Cursor<'_>, key: &[u8]) -> bool {
    !key.is_empty() && cursor.rest().first() == Some(&b'"') && cursor.rest()[1..].starts_with(key)
}
