//! A part of a suite, so that it spreads over machines.

use std::str::FromStr;
use thiserror::Error;

/// Part `index` (from 1) of `count`. Cases are dealt out in turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    index: u64,
    count: u64,
}

/// Text that is no shard.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no shard; give I/N with 1 <= I <= N, such as 2/8")]
pub struct ShardError(String);

impl Shard {
    /// Everything.
    pub const ALL: Shard = Shard { index: 1, count: 1 };

    /// Whether case number `n`, from 0, belongs to this part.
    pub fn owns(self, n: u64) -> bool {
        n % self.count == self.index - 1
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Shard, ShardError> {
        let parse = || {
            let (index, count) = text.split_once('/')?;
            let shard = Shard { index: index.parse().ok()?, count: count.parse().ok()? };
            (shard.index >= 1 && shard.index <= shard.count).then_some(shard)
        };
        parse().ok_or_else(|| ShardError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_partition_the_cases() {
        let shards: Vec<Shard> =
            ["1/3", "2/3", "3/3"].iter().map(|s| s.parse().expect("valid")).collect();
        for n in 0..20 {
            assert_eq!(shards.iter().filter(|s| s.owns(n)).count(), 1);
        }
        for bad in ["0/3", "4/3", "1", "a/b", "1/0", ""] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
