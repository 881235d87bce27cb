//! The decoder allocates for columns and never for records, as a counting allocator sees it.
#![allow(unsafe_code, reason = "an allocator is unsafe by its nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use flumen::decode::{Decoder, Selection};
use flumen::schema::{Descriptors, columns};

use crate::ads::impressions;
use crate::binary::repository;

/// The system's allocator, which counts for each thread how often it is asked.
pub struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has no counter any more.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How often decoding `records` allocates, from the first record to the finished batch.
fn allocations(decoder: &mut Decoder, records: &[Vec<u8>]) -> u64 {
    let before = COUNT.get();
    for record in records {
        decoder.push(record).unwrap();
    }
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.num_rows(), records.len());
    COUNT.get() - before
}

#[test]
fn no_record_costs_an_allocation() {
    let proto = repository().join("proto/ads/v1/ads.proto");
    let message = Descriptors::compile(&[proto], &[repository().join("proto")]).unwrap();
    let message = message.message("ads.v1.AdImpression").unwrap();
    let fields = columns(&message).unwrap();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let mut decoder = Decoder::new(&message, &names, &Selection::All).unwrap();
    // Strings, a timestamp, a nested message that is absent in a third of the records, lists.
    let few = allocations(&mut decoder, &impressions(0..1_000));
    let many = allocations(&mut decoder, &impressions(0..64_000));
    // Growing a buffer is an allocation too: 64 times the records are six more doublings of each.
    assert!(many < few + 8 * 20, "{few} for 1,000 records, {many} for 64,000");
    assert!(many < 500, "{many} allocations for 64,000 records");
}
