//! Cutting a block into the RECORD lines of each stream.
//!
//! A line is known by its beginning, up to the key `"record"`, which Python has learned from an earlier line of the
//! stream, and by the brace that ends it. Any other line is left to Python, which says what it is.

use hashbrown::HashMap;
use memchr::memchr;
use memchr::memmem::Finder;

const RECORD_KEY: &[u8] = b"\"record\"";
/// How far into a line the key may stand.
const FAR: usize = 512;

/// Lines that follow one another in the block and in the input.
struct Span {
    start: usize,
    /// Before the newline of the last line.
    end: usize,
    first: u64,
    count: u64,
}

/// The lines of one stream, in order.
pub struct Group {
    pub stream: usize,
    spans: Vec<Span>,
    /// Bytes of all lines, each with a newline.
    pub size: usize,
    pub count: usize,
    /// Every line is known to begin and end as an object does.
    pub closed: bool,
}

impl Group {
    /// Where the group stands in the block with all its newlines, if that is one place.
    pub fn place(&self, block: &[u8]) -> Option<(usize, usize)> {
        match &self.spans[..] {
            [only] if block.get(only.end) == Some(&b'\n') => Some((only.start, only.end + 1)),
            _ => None,
        }
    }

    /// The number of the first line, if all lines follow one another.
    pub fn first(&self) -> Option<u64> {
        let first = self.spans[0].first;
        let last = &self.spans[self.spans.len() - 1];
        (last.first + last.count - first == self.count as u64).then_some(first)
    }

    /// Writes the lines, `size` bytes.
    pub fn write(&self, block: &[u8], mut into: &mut [u8]) {
        for span in &self.spans {
            let (lines, rest) = into.split_at_mut(span.end - span.start);
            lines.copy_from_slice(&block[span.start..span.end]);
            let (newline, rest) = rest.split_at_mut(1);
            newline[0] = b'\n';
            into = rest;
        }
    }

    /// Writes the lines' numbers, 8 bytes each in the machine's order.
    pub fn write_numbers(&self, into: &mut [u8]) {
        let numbers = self.spans.iter().flat_map(|span| span.first..span.first + span.count);
        for (number, place) in numbers.zip(into.chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
    }
}

pub struct Framing {
    beginnings: HashMap<Box<[u8]>, usize>,
    /// How the latest line began, and its stream.
    latest: (Vec<u8>, usize),
    key: Finder<'static>,
    groups: Vec<Group>,
    /// Where the group of a stream is.
    places: HashMap<usize, usize>,
}

impl Framing {
    pub fn new() -> Self {
        Self {
            beginnings: HashMap::new(),
            latest: (Vec::new(), 0),
            key: Finder::new(RECORD_KEY),
            groups: Vec::new(),
            places: HashMap::new(),
        }
    }

    pub fn learn(&mut self, beginning: &[u8], stream: usize) {
        self.beginnings.insert(beginning.into(), stream);
    }

    pub fn forget(&mut self) {
        self.beginnings.clear();
        self.latest.0.clear();
    }

    /// Takes known lines from a place in the block on; says where the first other line starts, and its number.
    ///
    /// The block must end with a newline.
    pub fn scan(&mut self, block: &[u8], mut at: usize, mut number: u64) -> (usize, u64) {
        while at < block.len() {
            let rest = &block[at..];
            if self.latest.0.is_empty() || !rest.starts_with(&self.latest.0) {
                let head = &rest[..rest.len().min(FAR)];
                let Some(key) = self.key.find(head) else { break };
                let beginning = &head[..key + RECORD_KEY.len()];
                let Some(&stream) = self.beginnings.get(beginning) else { break };
                self.latest.0.clear();
                self.latest.0.extend_from_slice(beginning);
                self.latest.1 = stream;
            }
            let begun = at + self.latest.0.len();
            let Some(length) = memchr(b'\n', &block[begun..]) else { break };
            let end = begun + length;
            if block[end - 1] != b'}' {
                break;
            }
            self.add(self.latest.1, at, end, number, true);
            at = end + 1;
            number += 1;
        }
        (at, number)
    }

    /// Takes a line, without its newline.
    pub fn add(&mut self, stream: usize, start: usize, end: usize, number: u64, closed: bool) {
        let place = match self.groups.last() {
            Some(group) if group.stream == stream => self.groups.len() - 1,
            _ => *self.places.entry(stream).or_insert_with(|| {
                self.groups.push(Group { stream, spans: Vec::new(), size: 0, count: 0, closed: true });
                self.groups.len() - 1
            }),
        };
        let group = &mut self.groups[place];
        group.size += end - start + 1;
        group.count += 1;
        group.closed &= closed;
        match group.spans.last_mut() {
            Some(last) if last.end + 1 == start && last.first + last.count == number => {
                last.end = end;
                last.count += 1;
            }
            _ => group.spans.push(Span { start, end, first: number, count: 1 }),
        }
    }

    /// Hands the groups out, in the order of their first lines.
    pub fn take(&mut self) -> Vec<Group> {
        self.places.clear();
        std::mem::take(&mut self.groups)
    }
}
