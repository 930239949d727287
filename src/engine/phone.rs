//! Phone numbers in the form of ITU-T E.164, from what people write.

use super::convert::quoted;

/// Country calling codes (ITU-T E.164) by ISO 3166-1 code.
const CALLING_CODES: &[(&str, &str)] = &[
    ("AR", "54"),
    ("AT", "43"),
    ("AU", "61"),
    ("BE", "32"),
    ("BG", "359"),
    ("BR", "55"),
    ("CA", "1"),
    ("CH", "41"),
    ("CL", "56"),
    ("CN", "86"),
    ("CO", "57"),
    ("CY", "357"),
    ("CZ", "420"),
    ("DE", "49"),
    ("DK", "45"),
    ("EE", "372"),
    ("EG", "20"),
    ("ES", "34"),
    ("FI", "358"),
    ("FR", "33"),
    ("GB", "44"),
    ("GR", "30"),
    ("HR", "385"),
    ("HU", "36"),
    ("ID", "62"),
    ("IE", "353"),
    ("IL", "972"),
    ("IN", "91"),
    ("IS", "354"),
    ("IT", "39"),
    ("JP", "81"),
    ("KR", "82"),
    ("LT", "370"),
    ("LU", "352"),
    ("LV", "371"),
    ("MT", "356"),
    ("MX", "52"),
    ("NL", "31"),
    ("NO", "47"),
    ("NZ", "64"),
    ("PL", "48"),
    ("PT", "351"),
    ("RO", "40"),
    ("RS", "381"),
    ("RU", "7"),
    ("SE", "46"),
    ("SG", "65"),
    ("SI", "386"),
    ("SK", "421"),
    ("TR", "90"),
    ("UA", "380"),
    ("US", "1"),
    ("ZA", "27"),
];

/// What is dialled before a national number at home, by calling code, where that is not `0`, and how many digits follow
/// it at least: fewer are a number that begins so.
const TRUNK_PREFIXES: &[(&str, &str, usize)] =
    &[("1", "1", 10), ("36", "06", 8), ("370", "8", 8), ("7", "8", 10), ("7", "7", 10)];

/// A number that somebody in `country` (ISO 3166-1) wrote, as `+` and its digits.
///
/// # Errors
/// One sentence; it quotes the number.
pub(super) fn e164(text: &str, country: &str) -> Result<String, String> {
    let known = CALLING_CODES.iter().find(|(iso, _)| country.eq_ignore_ascii_case(iso));
    let (_, code) =
        known.ok_or_else(|| format!("{} is no country whose calling code is known", quoted(country)))?;
    let wrong = || format!("{} is no phone number", quoted(text));
    // Only what stands between its first digit and its last is the number.
    let (before, written) = text.split_at(text.find(char::is_numeric).unwrap_or(text.len()));
    let written = written.trim_end_matches(|c: char| !c.is_numeric());
    if written.contains(is_foreign) || has_choice(written) {
        return Err(wrong());
    }
    let all = digits(written);
    let marked = before.contains(['+', '＋']).then_some(all.as_str());
    let international = all.strip_prefix("00").or(marked);
    let number = match international {
        None => format!("{code}{}", without_trunk_prefix(code, &all)),
        // (no country's code begins so)
        Some(number) if number.starts_with('0') => return Err(wrong()),
        Some(number) => {
            let known = CALLING_CODES.iter().find_map(|(_, code)| Some((code, number.strip_prefix(code)?)));
            match known {
                Some((code, national)) => format!("{code}{}", without_trunk_prefix(code, national)),
                None => digits(&written.replace("(0)", "")).trim_start_matches('0').to_owned(),
            }
        }
    };
    if (8..=15).contains(&number.len()) { Ok(format!("+{number}")) } else { Err(wrong()) }
}

/// A national number without what is dialled before it at home, which some also write behind the calling code.
fn without_trunk_prefix<'a>(code: &str, number: &'a str) -> &'a str {
    let bare = |(of, prefix, least): &(&str, &str, usize)| {
        number.strip_prefix(prefix).filter(|bare| *of == code && bare.len() >= *least)
    };
    match TRUNK_PREFIXES.iter().find_map(bare) {
        Some(bare) => bare,
        // Italy keeps the leading zero of national numbers.
        None if code == "39" => number,
        None => number.strip_prefix('0').unwrap_or(number),
    }
}

/// Whether a character between digits says that there is more than one number: an extension, or another number.
fn is_foreign(character: char) -> bool {
    let digit = character.is_ascii_digit();
    let separates = matches!(character, '-' | '.' | '/' | '(' | ')' | '[' | ']');
    (character.is_alphanumeric() && !digit) || (character.is_ascii_punctuation() && !separates)
}

/// Whether a few digits stand behind a `/`: an extension, or another end of the number. Behind the code of an area there
/// are more, and where every group has its `/` as many as before.
fn has_choice(written: &str) -> bool {
    let mut groups = written.rsplit('/').map(|group| digits(group).len());
    match (groups.next(), groups.next(), groups.next()) {
        (Some(last), Some(before), Some(_)) => last < before,
        (Some(last), Some(_), None) => last < 4,
        _ => false,
    }
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_loses_the_prefix_that_is_dialled_at_home() {
        for (country, number, expected) in [
            ("US", "1-212-555-0123", "+12125550123"),
            ("US", "(212) 555-0123", "+12125550123"),
            ("CA", "+1 (416) 555-0123", "+14165550123"),
            ("RU", "8 (495) 123-45-67", "+74951234567"),
            ("RU", "7 495 123-45-67", "+74951234567"),
            ("RU", "800 555 35 35", "+78005553535"),
            ("RU", "+7 800 555 35 35", "+78005553535"),
            ("HU", "06 1 234 5678", "+3612345678"),
            ("LT", "8 5 123 4567", "+37051234567"),
            ("LT", "800 12345", "+37080012345"),
            ("DE", "030 1234567", "+49301234567"),
            ("DE", "+49 (0)30 1234567", "+49301234567"),
            ("DE", "0049 (030) 1234567", "+49301234567"),
            ("US", "+44 (0)20 7946 0958", "+442079460958"),
            ("DE", "+971 (0)4 123 4567", "+97141234567"),
            ("IT", "06 1234567", "+39061234567"),
            ("DE", "+39 06 1234567", "+39061234567"),
            ("IT", "+39 (0)6 1234567", "+39061234567"),
        ] {
            assert_eq!(e164(number, country).as_deref(), Ok(expected), "{country} {number}");
        }
    }

    #[test]
    fn a_plus_before_the_digits_is_one_wherever_it_stands() {
        for number in [
            "(+49) 30 1234567",
            "Tel. +49 30 1234567",
            "tel:+49-30-1234567",
            "\u{202a}+49 30 1234567\u{202c}",
            "＋49 30 1234567",
            "(0049) 30/1234567",
            "+0049 30 1234567",
            "030/1234567",
            "Tel.: 030 / 123 45-67",
            "[030] 123\u{2013}4567",
            "030 1234567 (privat)",
            "+49 30 1234567 mobil",
            "030 1234567;",
            "<+49 30 1234567>",
            "030 1234567/",
            "03/01/23/45/67",
        ] {
            assert_eq!(e164(number, "DE").as_deref(), Ok("+49301234567"), "{number}");
        }
    }

    #[test]
    fn what_may_be_more_than_one_number_is_none() {
        for number in [
            "030 1234567 ext. 12",
            "030 1234567x12",
            "030 1234567;ext=12",
            "030 1234567#12",
            "030 1234567/12",
            "030/1234567/8",
            "030 1234567, 12",
            "+49 (0)30 1234567 Durchwahl 7",
            "030 1234567 + 030 1234568",
            "1: +49 30 1234567",
            "A+B: 030 1234567",
            "٠30 1234567",
            "Tel.",
            "",
        ] {
            assert_eq!(e164(number, "DE"), Err(format!("'{number}' is no phone number")));
        }
    }
}
