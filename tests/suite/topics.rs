//! Topics of the test broker for tests that are not async.

use std::future::Future;

use crate::broker::{Broker, NewRecord};

/// Runs to the end on a thread of its own, so that async tests may call it too.
fn finish<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        scope.spawn(run).join().unwrap()
    })
}

/// A new topic; its name begins with `name`.
pub fn new_topic(broker: &Broker, name: &str, partitions: i32) -> String {
    finish(broker.new_topic(name, partitions))
}

/// Makes a topic whose partitions have these replicas, the preferred leader first.
pub fn create_replicated(broker: &Broker, name: &str, replicas: &[&[i32]], settings: &[(&str, &str)]) {
    finish(broker.create_replicated(name, replicas, settings));
}

/// Deletes the topic and makes one of the same name.
pub fn make_again(broker: &Broker, topic: &str, partitions: i32) {
    finish(async {
        broker.delete_topic(topic).await;
        broker.create_topic(topic, partitions).await;
    });
}

/// Deletes the records of a partition before `offset`.
pub fn delete_records(broker: &Broker, topic: &str, partition: i32, offset: i64) {
    finish(broker.delete_records(topic, partition, offset));
}

/// Appends values to a partition.
pub fn produce(broker: &Broker, topic: &str, partition: i32, values: &[Vec<u8>]) {
    broker.produce(topic, &records(partition, values));
}

/// Values as records of a partition.
pub fn records(partition: i32, values: &[Vec<u8>]) -> Vec<NewRecord> {
    let record = |value: &Vec<u8>| NewRecord {
        partition,
        value: Some(value.clone()),
        timestamp: 1_795_132_800_000,
        ..NewRecord::default()
    };
    values.iter().map(record).collect()
}
