//! Counts as people read them.

/// A count with separators: `1,203`.
pub fn count(number: i64) -> String {
    let mut text = String::with_capacity(26);
    put_count(&mut text, number);
    text
}

/// The same, behind what stands there.
pub fn put_count(text: &mut String, number: i64) {
    if number < 0 {
        text.push('-');
    }
    let number = number.unsigned_abs();
    let digits = number.checked_ilog10().unwrap_or(0);
    for place in (0..=digits).rev() {
        text.extend(char::from_digit((number / 10_u64.pow(place) % 10) as u32, 10));
        if place > 0 && place % 3 == 0 {
            text.push(',');
        }
    }
}

/// `3 flows`, `1 flow`.
pub fn counted(number: i64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `3 failed, 2 succeeded`: what there is any of, in the order given.
pub fn tally<'a>(counts: impl IntoIterator<Item = (i64, &'a str)>) -> String {
    let there = counts.into_iter().filter(|(number, _)| *number > 0);
    there.map(|(number, word)| format!("{} {word}", count(number))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_has_what_there_is_any_of() {
        assert_eq!(tally([(1_203, "failed"), (0, "partial"), (2, "succeeded")]), "1,203 failed, 2 succeeded");
        assert_eq!(tally([(0, "failed")]), "");
    }

    #[test]
    fn counts_read_as_people_write_them() {
        assert_eq!(count(1_203), "1,203");
        assert_eq!(count(-1_000_000), "-1,000,000");
        assert_eq!(count(12), "12");
        assert_eq!(count(0), "0");
        assert_eq!([counted(1, "flow", "flows"), counted(2_000, "flow", "flows")], ["1 flow", "2,000 flows"]);
    }
}
