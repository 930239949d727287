//! What a tool is, and the catalog of all of them.

use std::future::Future;
use std::pin::Pin;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::arguments::{self, Reader};
use super::cx::ToolCx;
use super::error::{ToolError, sentence};
use super::schema;
use crate::domain::scope::{Scope, Scopes};
use crate::protocol::{Annotations, ToolDefinition};
use crate::view::text::Page;

/// An answer: text that is complete on its own, and the same as typed JSON.
pub(super) struct Answer<O> {
    /// What a model reads, but for its notes and what to do next.
    pub(super) page: Page,
    /// What a program reads.
    pub(super) output: O,
    /// What the text says in its notes, for whoever is shown nothing but the JSON.
    pub(super) notices: Vec<String>,
    /// Calls to make next, such as `get_run run_id=…`; who may not make one does not hear of it.
    pub(super) next: Vec<String>,
}

/// The JSON of an answer.
#[derive(Serialize, JsonSchema)]
struct Noted<O> {
    #[serde(flatten)]
    output: O,
    /// What to know of this answer: a name that was guessed, a window that was cut, what is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
}

/// A tool: one file, one question.
pub(super) trait Tool: 'static {
    /// Its name; renaming it breaks clients.
    const NAME: &'static str;
    /// What people call it.
    const TITLE: &'static str;
    /// What it returns, when to use it and which sibling to use instead, and its one trap.
    const DESCRIPTION: &'static str;
    /// The scope that a token needs; what it does to the world follows from it.
    const SCOPE: Scope;
    /// Its arguments; the comments on the fields are what models read.
    type Input: DeserializeOwned + JsonSchema + Send;
    /// Its typed answer.
    type Output: Serialize + JsonSchema + Send;

    /// Answers the question.
    fn call(
        cx: &ToolCx<'_>,
        input: Self::Input,
    ) -> impl Future<Output = Result<Answer<Self::Output>, ToolError>> + Send;
}

/// An answer whose type was left behind.
pub(super) struct Told {
    pub(super) text: String,
    pub(super) structured: Box<RawValue>,
}

type Called<'a> = Pin<Box<dyn Future<Output = Result<Told, ToolError>> + Send + 'a>>;

/// A call whose arguments were read: all that it still needs is its turn.
pub(super) type Ready = Box<dyn for<'a> FnOnce(&'a ToolCx<'a>) -> Called<'a> + Send>;

/// A tool in the catalog.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// The scope that a token needs.
    pub scope: Scope,
    title: &'static str,
    description: &'static str,
    input_schema: Value,
    output_schema: Value,
    reader: Reader,
    ready: fn(&Reader, Map<String, Value>) -> Result<Ready, ToolError>,
}

impl Entry {
    /// A call with these arguments, of which nothing is kept but what the tool takes.
    ///
    /// # Errors
    /// [`ToolError::Arguments`].
    pub(super) fn ready(&self, arguments: Map<String, Value>) -> Result<Ready, ToolError> {
        (self.ready)(&self.reader, arguments)
    }

    /// The arguments as the tool takes them: spelt as its schema says, admitted by it, and understood.
    ///
    /// # Errors
    /// What a caller is told of the mistakes, in one sentence.
    pub fn read(&self, given: Map<String, Value>) -> Result<Value, String> {
        let ready = self.ready(given.clone());
        ready.and_then(|_| self.reader.read(given)).map_err(|error| match error {
            ToolError::Arguments(errors) => sentence(&errors),
            other => format!("{other:?}"),
        })
    }

    /// The tool as it is listed.
    pub fn definition(&self) -> ToolDefinition {
        let read = self.scope != Scope::SyncTrigger;
        ToolDefinition {
            name: self.name.to_owned(),
            title: self.title.to_owned(),
            description: self.description.to_owned(),
            input_schema: self.input_schema.clone(),
            output_schema: Some(self.output_schema.clone()),
            annotations: Annotations {
                title: Some(self.title.to_owned()),
                read_only: read,
                destructive: false,
                idempotent: read,
                open_world: !read,
            },
        }
    }
}

/// Every tool there is. From it come the list, the dispatch, the README's table and the contract snapshots.
#[derive(Default)]
pub struct Catalog(Vec<Entry>);

impl Catalog {
    /// The catalog with one tool more.
    ///
    /// # Panics
    /// When two tools share a name, or a schema cannot be compiled: mistakes of ours, met at start-up.
    pub(super) fn with<T: Tool>(mut self) -> Self {
        assert!(self.find(T::NAME).is_none(), "two tools are called {}", T::NAME);
        let input_schema = schema::input::<T::Input>();
        self.0.push(Entry {
            name: T::NAME,
            scope: T::SCOPE,
            title: T::TITLE,
            description: T::DESCRIPTION,
            reader: Reader::new(T::NAME, &input_schema),
            input_schema,
            output_schema: schema::output::<Noted<T::Output>>(),
            ready: ready::<T>,
        });
        self
    }

    /// The tool of this name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.name == name)
    }

    /// Every tool, in the order in which they are listed.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// The tools that a token with `scopes` sees.
    pub fn visible_to(&self, scopes: Scopes) -> Vec<ToolDefinition> {
        self.0.iter().filter(|entry| scopes.has(entry.scope)).map(Entry::definition).collect()
    }
}

fn ready<T: Tool>(reader: &Reader, arguments: Map<String, Value>) -> Result<Ready, ToolError> {
    let input: T::Input = arguments::deserialize(reader.read(arguments)?)?;
    Ok(Box::new(move |cx| Box::pin(run::<T>(cx, input))))
}

async fn run<T: Tool>(cx: &ToolCx<'_>, input: T::Input) -> Result<Told, ToolError> {
    let Answer { page, output, notices, mut next } = T::call(cx, input).await?;
    next.retain(|call| cx.may_call(call));
    let text = page.end(&notices, &next);
    let structured = to_raw_value(&Noted { output, notices }).map_err(ToolError::Unserialisable)?;
    Ok(Told { text, structured })
}
