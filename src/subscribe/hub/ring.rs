//! The recent rows, bounded by bytes and by versions.

use std::collections::VecDeque;
use std::sync::Arc;

use super::chunk::Chunk;
use crate::subscribe::cursor::Place;
use crate::subscribe::options::HubOptions;

/// The chunks between two places, without a gap: every row between them is in one of the chunks.
#[derive(Debug)]
pub(super) struct Ring {
    chunks: VecDeque<Arc<Chunk>>,
    /// Where the first chunk begins, or before: nothing lies between.
    begin: Place,
    /// Up to where it was read.
    end: Place,
}

/// What lies behind a place.
#[derive(Debug)]
pub(super) enum Behind {
    /// Some of this chunk's rows.
    Chunk(Arc<Chunk>),
    /// Nothing yet. It is as good as this place.
    Nothing(Place),
    /// Rows that are no longer here, or never were.
    Elsewhere,
}

impl Ring {
    /// An empty ring that begins at a place.
    pub(super) fn at(place: Place) -> Self {
        Self { chunks: VecDeque::new(), begin: place, end: place }
    }

    /// Up to where it was read.
    pub(super) fn end(&self) -> Place {
        self.end
    }

    /// The bytes of all chunks.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes()).sum()
    }

    /// The number of chunks.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Adds a chunk, which begins where the ring ends. The oldest ones go, but never this one.
    pub(super) fn push(&mut self, chunk: Arc<Chunk>, options: &HubOptions) {
        self.end = chunk.end();
        self.chunks.push_back(chunk);
        let mut bytes = self.bytes();
        while self.chunks.len() > 1 && (bytes > options.ring_bytes || self.versions() > options.ring_versions) {
            if let Some(oldest) = self.chunks.pop_front() {
                bytes -= oldest.bytes().min(bytes);
                self.begin = oldest.end();
            }
        }
    }

    /// All rows of the version were read.
    pub(super) fn finish(&mut self, version: u64) {
        if self.end.version == version {
            self.end = self.end.next_version();
        }
    }

    /// The number of versions that have chunks.
    fn versions(&self) -> usize {
        // Chunks of a version stand together: a walk from version to version, of which there are few.
        let (mut count, mut at) = (0, 0);
        while let Some(chunk) = self.chunks.get(at) {
            count += 1;
            at = self.chunks.partition_point(|other| other.first.version <= chunk.first.version);
        }
        count
    }

    /// What lies behind a place.
    pub(super) fn behind(&self, place: Place) -> Behind {
        if place < self.begin {
            return Behind::Elsewhere;
        }
        let at = self.chunks.partition_point(|chunk| chunk.end() <= place);
        match self.chunks.get(at) {
            Some(chunk) => Behind::Chunk(chunk.clone()),
            None => Behind::Nothing(place.max(self.end)),
        }
    }
}
