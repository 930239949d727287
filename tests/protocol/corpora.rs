//! The committed corpora, entry by entry and mutated, held to what must hold of every input.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use proptest::prelude::*;

/// The entries of one subject: small files, named after what they are.
fn corpus(subject: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(subject);
    let mut entries: Vec<_> = fs::read_dir(&directory)
        .expect("a corpus")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("an entry"))
        })
        .collect();
    entries.sort();
    entries
}

/// An entry of a corpus after a few changes: bytes altered, put in, taken out, pieces of another entry spliced in.
fn mutated(subject: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let entries: Vec<Vec<u8>> = corpus(subject).into_iter().map(|(_, bytes)| bytes).collect();
    let change = (any::<prop::sample::Index>(), 0..4_u8, any::<u8>(), any::<prop::sample::Selector>());
    (any::<prop::sample::Selector>(), prop::collection::vec(change, 0..6)).prop_map(
        move |(entry, changes)| {
            let mut bytes: Vec<u8> = entry.select(&entries).clone();
            for (place, kind, byte, other) in changes {
                let at = place.index(bytes.len() + 1);
                let other: &Vec<u8> = other.select(&entries);
                match (kind, bytes.get_mut(at)) {
                    (0, Some(old)) => *old = byte,
                    (1, _) => bytes.insert(at, byte),
                    (2, Some(_)) => drop(bytes.remove(at)),
                    (_, _) => {
                        let from = place.index(other.len() + 1);
                        bytes.splice(at..at, other[from..].iter().copied().take(usize::from(byte)));
                    }
                }
            }
            bytes
        },
    )
}

fn replay(subject: &str, hold: fn(&[u8])) {
    let entries = corpus(subject);
    assert!(entries.len() >= 15, "{subject} has {} entries", entries.len());
    for (name, bytes) in entries {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hold(&bytes))) {
            eprintln!("with {name}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// For each subject its corpus as it is, and mutations of it.
macro_rules! subjects {
    ($($subject:ident),+) => {
        $(mod $subject {
            use super::*;

            #[test]
            fn every_entry_of_the_corpus_holds() {
                replay(stringify!($subject), crate::held::$subject::hold);
            }

            proptest! {
                #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn mutations_of_the_corpus_hold(input in mutated(stringify!($subject))) {
                    crate::held::$subject::hold(&input);
                }
            }
        })+
    };
}

subjects!(arguments, expression, message, records, words);
