//! RECORD lines: `{"type": "RECORD", "stream": ..., "record": {...}, "time_extracted": ..., "version": ...}`.

use arrow_data::ArrayData;
use arrow_schema::{DataType, TimeUnit};

use crate::column::{Fixed, Size};
use crate::cursor::{Cursor, Parsed, MAX_DEPTH};
use crate::moment;
use crate::object::Object;

const TYPE: u8 = 1;
const STREAM: u8 = 2;
const RECORD: u8 = 4;
const EXTRACTED: u8 = 8;
const VERSION: u8 = 16;

/// The columns of a stream as they grow, a run at a time.
pub struct Lines {
    stream: Vec<u8>,
    record: Object,
    of: DataType,
    envelope: Option<Envelope>,
    /// How the latest line began, from its brace up to the record's, if that told its type and stream and no more.
    beginning: Vec<u8>,
    scratch: Vec<u8>,
}

/// What is kept of the envelopes, where that is wanted.
struct Envelope {
    extracted: Fixed<i64>,
    versions: Fixed<i64>,
}

/// What a run became.
pub struct Batch {
    pub record: ArrayData,
    pub extracted: Option<ArrayData>,
    pub versions: Option<ArrayData>,
    pub unknown: Vec<(String, u64)>,
    /// The record's members that hold an integer beyond 2^53.
    pub large: Vec<String>,
}

impl Lines {
    /// `of` is the record's type, a struct.
    pub fn new(stream: String, record: Object, of: DataType, envelope: bool) -> Self {
        let envelope = envelope.then(|| Envelope { extracted: Fixed::new(), versions: Fixed::new() });
        Self { stream: stream.into_bytes(), record, of, envelope, beginning: Vec::new(), scratch: Vec::new() }
    }

    /// Decodes so many lines, each ended by a newline, or says why that is left to the row path.
    pub fn decode(&mut self, data: &[u8], count: usize) -> Result<Batch, &'static str> {
        if data.len() > i32::MAX as usize {
            return Err("more than two gigabytes");
        }
        if std::str::from_utf8(data).is_err() {
            return Err("not UTF-8");
        }
        if count > data.len() {
            return Err("fewer lines than was said");
        }
        let size = Size { rows: count, bytes: data.len() };
        self.record.begin(size);
        if let Some(envelope) = &mut self.envelope {
            envelope.extracted.begin(size);
            envelope.versions.begin(size);
        }
        let mut cursor = Cursor::new(data);
        if self.lines(&mut cursor, count).is_err() {
            self.clear();
            return Err(cursor.why);
        }
        let mut unknown = Vec::new();
        self.record.take_unknown("", &mut unknown);
        let large = self.record.members.iter().filter(|each| each.column.holds_large());
        let large = large.map(|each| each.name.to_string()).collect();
        let (mut extracted, mut versions) = (None, None);
        if let Some(envelope) = &mut self.envelope {
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            extracted = Some(envelope.extracted.finish(&utc));
            versions = Some(envelope.versions.finish(&DataType::Int64));
        }
        Ok(Batch { record: self.record.finish(&self.of), extracted, versions, unknown, large })
    }

    fn clear(&mut self) {
        self.record.clear();
        if let Some(envelope) = &mut self.envelope {
            envelope.extracted.clear();
            envelope.versions.clear();
        }
    }

    fn lines(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Parsed<()> {
        let mut found = 0;
        while cursor.at < cursor.data.len() {
            self.line(cursor)?;
            cursor.space();
            // The cursor sees a newline behind the end, too; then the last line has none of its own.
            if cursor.at == cursor.data.len() {
                return cursor.bail("a line without a newline");
            }
            cursor.expect(b'\n')?;
            found += 1;
        }
        if found != count {
            return cursor.bail("another number of lines than was said");
        }
        Ok(())
    }

    fn line(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let mut met = 0;
        if !self.beginning.is_empty() && cursor.rest().starts_with(&self.beginning) {
            cursor.at += self.beginning.len();
            self.record.read(cursor)?;
            met = TYPE | STREAM | RECORD;
            if !cursor.more(b'}')? {
                return self.end(met, cursor);
            }
        } else {
            cursor.space();
            cursor.expect(b'{')?;
            cursor.space();
        }
        let start = cursor.at;
        loop {
            let key = match cursor.key(&mut self.scratch)? {
                b"type" => TYPE,
                b"stream" => STREAM,
                b"record" => RECORD,
                b"time_extracted" => EXTRACTED,
                b"version" => VERSION,
                _ => 0,
            };
            if met & key != 0 {
                return cursor.bail("a key that stands twice");
            }
            cursor.colon()?;
            match key {
                TYPE if cursor.plain_text()? == b"RECORD" => {}
                TYPE => return cursor.bail("not a RECORD"),
                STREAM => self.read_stream(cursor)?,
                RECORD => {
                    if met == TYPE | STREAM && cursor.data.get(start.wrapping_sub(1)) == Some(&b'{') {
                        self.beginning.clear();
                        self.beginning.extend_from_slice(&cursor.data[start - 1..cursor.at]);
                    }
                    self.record.read(cursor)?;
                }
                EXTRACTED => self.read_extracted(cursor)?,
                VERSION => self.read_version(cursor)?,
                _ => cursor.skip(MAX_DEPTH)?,
            }
            met |= key;
            if !cursor.more(b'}')? {
                return self.end(met, cursor);
            }
        }
    }

    fn read_stream(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        self.scratch.clear();
        cursor.text(&mut self.scratch)?;
        if self.scratch != self.stream {
            return cursor.bail("another stream");
        }
        Ok(())
    }

    /// What is no date-time is left out: it is not the user's data.
    fn read_extracted(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let Some(envelope) = &mut self.envelope else { return cursor.skip(MAX_DEPTH) };
        if cursor.peek() != b'"' {
            envelope.extracted.null();
            return cursor.skip(MAX_DEPTH);
        }
        match moment::timestamp(cursor.plain_text()?) {
            Some(moment) => envelope.extracted.values.push(moment),
            None => envelope.extracted.null(),
        }
        Ok(())
    }

    /// Likewise what is no integer, or is beyond 2^63 either way.
    fn read_version(&mut self, cursor: &mut Cursor<'_>) -> Parsed<()> {
        let Some(envelope) = &mut self.envelope else { return cursor.skip(MAX_DEPTH) };
        let start = cursor.at;
        cursor.skip(MAX_DEPTH)?;
        let version = std::str::from_utf8(&cursor.data[start..cursor.at]).ok().and_then(|text| text.parse().ok());
        match version.filter(|&version: &i64| version != i64::MIN) {
            Some(version) => envelope.versions.values.push(version),
            None => envelope.versions.null(),
        }
        Ok(())
    }

    #[inline(always)]
    fn end(&mut self, met: u8, cursor: &mut Cursor<'_>) -> Parsed<()> {
        if met & (TYPE | STREAM | RECORD) != TYPE | STREAM | RECORD {
            return cursor.bail("a line without type, stream or record");
        }
        if let Some(envelope) = &mut self.envelope {
            if met & EXTRACTED == 0 {
                envelope.extracted.null();
            }
            if met & VERSION == 0 {
                envelope.versions.null();
            }
        }
        Ok(())
    }
}
