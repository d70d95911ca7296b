//! The lines as they grow.

/// Room that is there after every piece, so that pieces can be copied in steps of this size.
const STEP: usize = 16;

/// A piece of text that stands in many lines, in whole steps.
pub struct Constant {
    steps: Vec<[u8; STEP]>,
    len: usize,
}

impl Constant {
    pub fn new(text: &[u8]) -> Self {
        let steps = text.chunks(STEP).map(|part| {
            let mut step = [0; STEP];
            step[..part.len()].copy_from_slice(part);
            step
        });
        Self { steps: steps.collect(), len: text.len() }
    }

    pub fn prepend(&mut self, text: &[u8]) {
        *self = Self::new(&[text, &self.steps.as_flattened()[..self.len]].concat());
    }
}

/// A buffer that is written from the front; it may be one that was used before.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    at: usize,
    /// NaNs and infinities since this was last looked at.
    pub lost: u64,
    /// A value was met that is left to the other path.
    pub fault: bool,
}

impl Output {
    /// What the buffer holds does not matter.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0, lost: 0, fault: false }
    }

    /// The buffer, and how much of it was written.
    pub fn finish(self) -> (Vec<u8>, usize) {
        (self.bytes, self.at)
    }

    /// The next bytes, at least so many; `advance` says how many of them were written.
    #[inline(always)]
    pub fn next(&mut self, room: usize) -> &mut [u8] {
        if self.bytes.len() - self.at < room {
            self.grow(room);
        }
        &mut self.bytes[self.at..]
    }

    /// The next bytes, `N` of them.
    #[inline(always)]
    pub fn next_chunk<const N: usize>(&mut self) -> &mut [u8; N] {
        match self.next(N).first_chunk_mut() {
            Some(chunk) => chunk,
            None => unreachable!("so much room was made"),
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, room: usize) {
        self.bytes.resize((self.at + room).max(self.bytes.len() * 2).max(1 << 16), 0);
    }

    #[inline(always)]
    pub fn advance(&mut self, count: usize) {
        self.at += count;
    }

    /// A few bytes.
    #[inline(always)]
    pub fn short<const N: usize>(&mut self, text: &[u8; N]) {
        *self.next_chunk() = *text;
        self.advance(N);
    }

    #[inline(always)]
    pub fn constant(&mut self, text: &Constant) {
        let into = self.next(text.len + STEP);
        for (step, into) in text.steps.iter().zip(into.chunks_exact_mut(STEP)) {
            into.copy_from_slice(step);
        }
        self.advance(text.len);
    }

    /// A JSON text.
    #[inline(always)]
    pub fn text(&mut self, text: &[u8]) {
        self.next(text.len() + 2 + STEP)[0] = b'"';
        self.advance(1);
        let mut rest = text;
        while let Some((step, after)) = rest.split_first_chunk::<STEP>() {
            if !clean(step) {
                return self.escaped(rest);
            }
            *self.next_chunk() = *step;
            self.advance(STEP);
            rest = after;
        }
        // The rest: at once where it ends a step that fits, or as two halves that overlap.
        let len = rest.len();
        if let (Some(step), true) = (text.last_chunk::<STEP>(), len > 0) {
            if !clean(step) {
                return self.escaped(rest);
            }
            self.at -= STEP - len;
            *self.next_chunk() = *step;
            self.advance(STEP);
        } else if let (Some(first), Some(last)) = (rest.first_chunk::<8>(), rest.last_chunk::<8>()) {
            if !clean(first) || !clean(last) {
                return self.escaped(rest);
            }
            let into = self.next_chunk::<STEP>();
            into[..8].copy_from_slice(first);
            into[len - 8..len].copy_from_slice(last);
            self.advance(len);
        } else {
            let into = self.next_chunk::<8>();
            let mut special = false;
            for (into, &byte) in into.iter_mut().zip(rest) {
                *into = byte;
                special |= ESCAPES[usize::from(byte)] != 0;
            }
            if special {
                return self.escaped(rest);
            }
            self.advance(len);
        }
        *self.next_chunk() = *b"\"";
        self.advance(1);
    }

    /// What is left of a text, and its last quote.
    #[inline(never)]
    fn escaped(&mut self, text: &[u8]) {
        for (number, part) in text.chunks(STEP).enumerate() {
            let left = text.len() - number * STEP;
            self.next(left + 6 * STEP + 1);
            if let Some(step) = part.first_chunk::<STEP>().filter(|step| clean(step)) {
                *self.next_chunk() = *step;
                self.advance(STEP);
                continue;
            }
            for &byte in part {
                match ESCAPES[usize::from(byte)] {
                    0 => self.short(&[byte]),
                    b'u' => {
                        let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
                        self.short(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
                    }
                    letter => self.short(&[b'\\', letter]),
                }
            }
        }
        self.short(b"\"");
    }
}

/// What follows the backslash of a byte that cannot stand in a text as it is; 0 for others.
static ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[0x08] = b'b';
    escapes[0x09] = b't';
    escapes[0x0a] = b'n';
    escapes[0x0c] = b'f';
    escapes[0x0d] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

/// Whether all these bytes stand in a JSON text as they are. The compiler looks at them all at once.
#[inline(always)]
fn clean<const N: usize>(bytes: &[u8; N]) -> bool {
    let mut special = 0;
    for &byte in bytes {
        special |= u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    }
    special == 0
}
