//! Paths to one value of a record: singular queries (RFC 9535, section 2.3.5.1).

use serde_json::{Map, Value};

/// One step of a singular query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    Index(i64),
}

/// A singular query (RFC 9535, section 2.3.5.1): `$.a.b[0]['US Gross']`. A text that does not begin with `$` is
/// the name of one field, whatever it holds.
pub(super) fn parse_path(text: &str) -> Result<Vec<Step>, String> {
    let wrong = || format!("`{text}` is no path to one value; write a field's name, or `$.a.b[0]['a name']`");
    let Some(mut rest) = text.strip_prefix('$') else {
        return if text.is_empty() { Err(wrong()) } else { Ok(vec![Step::Name(text.to_owned())]) };
    };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('.') {
            Some(after) => {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                let first = name.chars().next().filter(|c| c.is_alphabetic() || *c == '_' || !c.is_ascii());
                let rest_fits = name.chars().all(|c| c.is_alphanumeric() || c == '_' || !c.is_ascii());
                if first.is_none() || !rest_fits {
                    return Err(wrong());
                }
                (Step::Name(name.to_owned()), after)
            }
            None => bracket(rest.strip_prefix('[').ok_or_else(wrong)?).ok_or_else(wrong)?,
        };
        steps.push(step);
        rest = after;
    }
    if steps.is_empty() || steps.len() > 32 { Err(wrong()) } else { Ok(steps) }
}

/// What stands behind an opening bracket, and what follows the closing one.
fn bracket(text: &str) -> Option<(Step, &str)> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        let (digits, after) = text.split_once(']')?;
        let canonical = digits.parse::<i64>().ok().filter(|index| index.to_string() == digits)?;
        return Some((Step::Index(canonical), after));
    };
    let mut name = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => name.push(
                characters.next().map(|(_, escaped)| escaped).filter(|c| matches!(c, '\\' | '\'' | '"'))?,
            ),
            c if c == quote => return Some((Step::Name(name), text[at + c.len_utf8()..].strip_prefix(']')?)),
            c => name.push(c),
        }
    }
    None
}

/// The value that a path leads to.
pub(super) fn follow<'a>(record: &'a Map<String, Value>, steps: &[Step]) -> Option<&'a Value> {
    let (first, rest) = steps.split_first()?;
    let start = match first {
        Step::Name(name) => record.get(name)?,
        Step::Index(_) => return None,
    };
    rest.iter().try_fold(start, |value, step| match step {
        Step::Name(name) => value.get(name),
        Step::Index(index) => {
            let items = value.as_array()?;
            let place = if *index < 0 { i64::try_from(items.len()).ok()? + index } else { *index };
            items.get(usize::try_from(place).ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_no_one_value_is_refused() {
        for path in
            ["", "$", "$.", "$..a", "$.a[*]", "$.a[0:1]", "$.a[?@.b]", "$.a['b", "$[01]", "$.1a", "$a"]
        {
            assert!(parse_path(path).is_err(), "{path}");
        }
    }
}
