//! What goes wrong with one record, and with a whole run.

use std::borrow::Cow;

use super::error_class::{ErrorClass, Stage};
use super::fingerprint::{MAX_MESSAGE_CHARS, template};
use super::redact;
use super::run::ReasonCode;

/// Why a record, or a run, did not go through. The message is one sentence without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of thing went wrong.
    pub class: ErrorClass,
    /// Stable code, ours or the other system's.
    pub code: Cow<'static, str>,
    /// At which step.
    pub stage: Stage,
    /// The destination field (or source column) concerned.
    pub field: Option<String>,
    /// One redacted sentence.
    pub message: String,
    /// Whether the message is another system's.
    pub foreign: bool,
}

impl Failure {
    /// A failure; what looks like a secret or an address in `message` is masked, its end cut.
    pub fn new(class: ErrorClass, code: impl Into<Cow<'static, str>>, stage: Stage, message: &str) -> Self {
        let masked = redact::text(message);
        let message = match masked.char_indices().nth(MAX_MESSAGE_CHARS) {
            Some((end, _)) => format!("{}…", &masked[..end]),
            None => masked,
        };
        let code = match code.into() {
            Cow::Owned(foreign) => Cow::Owned(redact::name(&foreign)),
            own => own,
        };
        Self { class, code, stage, field: None, message, foreign: false }
    }

    /// The same, about one field; a name that a source made up is cleaned and cut ([`redact::name`]).
    #[must_use]
    pub fn at_field(mut self, field: &str) -> Self {
        self.field = Some(redact::name(field));
        self
    }

    /// The same, whose message is another system's: it may repeat any part of a record, quoted or not.
    #[must_use]
    pub fn in_foreign_words(self) -> Self {
        Self { foreign: true, ..self }
    }

    /// The same in our words only, for a flow that has sensitive fields.
    #[must_use]
    pub fn in_our_words(self) -> Self {
        if !self.foreign {
            return self;
        }
        let message =
            "the other system refused it; its words are not kept, because they may repeat a sensitive field";
        Self { message: message.to_owned(), foreign: false, ..self }
    }

    /// The same as the failure of a run: where another system's words are about a record, without what they may repeat of
    /// it. Who may see runs may not see records.
    #[must_use]
    pub fn of_a_run(self) -> Self {
        match self.foreign && self.class.is_of_a_record() {
            true => Self { message: template(&self.message), ..self },
            false => self,
        }
    }

    /// A flow or connector that is configured wrongly.
    pub fn config(message: &str) -> Self {
        Self::new(ErrorClass::Config, "CONFIG_INVALID", Stage::Platform, message)
    }

    /// A fault of this server; its cause goes to the log.
    pub fn internal() -> Self {
        Self::new(
            ErrorClass::Internal,
            "INTERNAL",
            Stage::Platform,
            "this server had a fault; its log says more",
        )
    }

    /// Why a run that failed so ended.
    pub fn reason(&self) -> ReasonCode {
        match self.class {
            ErrorClass::Auth => ReasonCode::AuthExpired,
            ErrorClass::Connectivity => ReasonCode::ConnectorDown,
            ErrorClass::Config | ErrorClass::Schema => ReasonCode::ConfigInvalid,
            ErrorClass::Quota => ReasonCode::QuotaExhausted,
            ErrorClass::Internal => ReasonCode::Internal,
            _ if self.stage == Stage::Load => ReasonCode::DestinationError,
            _ => ReasonCode::SourceError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_masked_and_bounded() {
        let failure = Failure::new(
            ErrorClass::Type,
            "INVALID_DATE",
            Stage::Transform,
            &format!("ana@example.com {}", "x".repeat(900)),
        );
        assert!(failure.message.starts_with("a***@example.com x"));
        assert_eq!(failure.message.chars().count(), MAX_MESSAGE_CHARS + 1);
    }

    #[test]
    fn names_are_cleaned_and_bounded() {
        let failure = Failure::new(ErrorClass::Type, format!("E\0{}", "9".repeat(5_000)), Stage::Extract, "")
            .at_field(&format!("a\u{0}\nb{}", "ü".repeat(5_000)));
        let field = failure.field.unwrap_or_default();
        assert!(field.starts_with("abü") && field.chars().count() == redact::MAX_NAME_CHARS, "{field}");
        assert!(failure.code.starts_with("E9") && failure.code.len() == redact::MAX_NAME_CHARS);
    }

    #[test]
    fn foreign_words_give_way_to_ours() {
        let failure = |message| Failure::new(ErrorClass::Type, "22P02", Stage::Load, message);
        let said = failure("bad ssn 123-45-6789").in_foreign_words().in_our_words();
        assert!(!said.message.contains("123") && said.code == "22P02", "{said:?}");
        assert_eq!(failure("it takes too long").in_our_words().message, "it takes too long");
    }

    #[test]
    fn what_is_said_of_a_record_is_not_said_of_its_run() {
        let failure = |class| {
            Failure::new(class, "X", Stage::Extract, "no integer: \"Ana Example\"").in_foreign_words()
        };
        assert_eq!(failure(ErrorClass::Type).of_a_run().message, "no integer: <str>");
        assert_eq!(failure(ErrorClass::Schema).of_a_run().message, "no integer: \"Ana Example\"");
        let ours = Failure { foreign: false, ..failure(ErrorClass::Type) };
        assert_eq!(ours.of_a_run().message, "no integer: \"Ana Example\"");
    }

    #[test]
    fn the_class_says_why_a_run_ended() {
        let reason = |class, stage| Failure::new(class, "X", stage, "").reason();
        assert_eq!(reason(ErrorClass::Auth, Stage::Extract), ReasonCode::AuthExpired);
        assert_eq!(reason(ErrorClass::Permission, Stage::Load), ReasonCode::DestinationError);
        assert_eq!(reason(ErrorClass::Unavailable, Stage::Load), ReasonCode::DestinationError);
        assert_eq!(reason(ErrorClass::Unavailable, Stage::Extract), ReasonCode::SourceError);
        assert_eq!(reason(ErrorClass::Schema, Stage::Load), ReasonCode::ConfigInvalid);
    }
}
