//! How each client is told of this server: the exact form that works with it today, filled in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// The name that clients give this server.
const NAME: &str = "apixx";

/// How one client is connected.
#[derive(Clone, Debug)]
pub struct Client {
    /// A short name for addresses.
    pub id: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// What works and what does not, in sentences.
    pub notes: Vec<String>,
    /// What is pasted, run or clicked.
    pub forms: Vec<Form>,
}

/// Something to be pasted, run or clicked.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its own name on a page.
    pub id: String,
    /// Where it goes.
    pub place: &'static str,
    /// What it is written in.
    pub kind: Kind,
    /// The text, or the address.
    pub text: String,
}

impl Form {
    /// Whether it is clicked.
    pub fn is_link(&self) -> bool {
        self.kind == Kind::Link
    }
}

/// What a form is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command of a shell.
    Shell,
    /// A file of JSON.
    Json,
    /// A file of TOML.
    Toml,
    /// A program in Python.
    Python,
    /// A program in JavaScript.
    JavaScript,
    /// An address to click.
    Link,
}

/// Every client, for the server at `url` and `token`.
pub fn clients(url: &str, token: &str) -> Vec<Client> {
    let local =
        ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|begin| url.starts_with(begin));
    let bearer = format!("Bearer {token}");
    let mut all = Vec::new();
    let mut add = |id, name, notes: &[&str], forms: Vec<(&'static str, Kind, String)>| {
        let forms = forms
            .into_iter()
            .enumerate()
            .map(|(place, (at, kind, text))| Form { id: format!("{id}-{place}"), place: at, kind, text })
            .collect();
        all.push(Client { id, name, notes: notes.iter().map(|note| (*note).to_owned()).collect(), forms });
    };
    let headers = json!({ "Authorization": bearer });
    let mut bridge = vec!["-y", "mcp-remote", url, "--header", "Authorization:${AUTH_HEADER}"];
    if url.starts_with("http://") && !local {
        bridge.push("--allow-http");
    }

    add(
        "claude",
        "Claude Desktop, claude.ai",
        &[
            "Settings, Connectors, Add custom connector: paste the address and, where the dialog offers request headers, \
             “Authorization” with the value below. The server must be reachable from the internet over https. Where the dialog \
             asks for OAuth alone, it cannot be connected so: this server has no OAuth yet.",
            "A url with headers in claude_desktop_config.json is ignored. For a server that only your machine reaches, Claude \
             Desktop starts the bridge mcp-remote from that file; there is no space after the colon, on purpose.",
        ],
        vec![
            ("Value of the request header", Kind::Shell, bearer.clone()),
            (
                "claude_desktop_config.json, with the bridge",
                Kind::Json,
                pretty(&json!({ "mcpServers": { NAME: {
                    "command": "npx",
                    "args": bridge,
                    "env": { "AUTH_HEADER": bearer },
                } } })),
            ),
        ],
    );
    add(
        "claude-code",
        "Claude Code",
        &[],
        vec![(
            "In a shell",
            Kind::Shell,
            format!("claude mcp add --transport http {NAME} {url} --header \"Authorization: {bearer}\""),
        )],
    );
    let cursor = json!({ "url": url, "headers": headers });
    let config = utf8_percent_encode(&STANDARD.encode(cursor.to_string()), NON_ALPHANUMERIC).to_string();
    add(
        "cursor",
        "Cursor",
        &["One click, or by hand. ${env:APIXX_TOKEN} works in place of the token."],
        vec![
            (
                "Add to Cursor",
                Kind::Link,
                format!("cursor://anysphere.cursor-deeplink/mcp/install?name={NAME}&config={config}"),
            ),
            ("~/.cursor/mcp.json", Kind::Json, pretty(&json!({ "mcpServers": { NAME: cursor } }))),
        ],
    );
    let code =
        json!({ "type": "http", "url": url, "headers": { "Authorization": "Bearer ${input:apixx_token}" } });
    let input = json!([{ "type": "promptString", "id": "apixx_token", "description": "APIXX MCP token", "password": true }]);
    let mut install = code.clone();
    install["name"] = NAME.into();
    install["inputs"] = input.clone();
    let install = utf8_percent_encode(&install.to_string(), NON_ALPHANUMERIC).to_string();
    add(
        "vscode",
        "VS Code",
        &["It asks for the token once and keeps it safe."],
        vec![
            ("Add to VS Code", Kind::Link, format!("vscode:mcp/install?{install}")),
            (".vscode/mcp.json", Kind::Json, pretty(&json!({ "servers": { NAME: code }, "inputs": input }))),
            ("The token, when it asks", Kind::Shell, token.to_owned()),
        ],
    );
    add(
        "chatgpt",
        "ChatGPT",
        &[
            "ChatGPT connects by OAuth or to servers without any sign-in; it cannot present a token. This server has no OAuth yet, \
           so ChatGPT cannot be connected. Codex, the Agents SDK and the Responses API can.",
        ],
        vec![],
    );
    add(
        "codex",
        "Codex",
        &["The token comes from the environment; `bearer_token` in the file itself is refused."],
        vec![
            ("In a shell", Kind::Shell, format!("export APIXX_TOKEN={token}")),
            (
                "~/.codex/config.toml",
                Kind::Toml,
                format!("[mcp_servers.{NAME}]\nurl = \"{url}\"\nbearer_token_env_var = \"APIXX_TOKEN\""),
            ),
        ],
    );
    add(
        "gemini",
        "Gemini CLI",
        &[],
        vec![
            (
                "In a shell",
                Kind::Shell,
                format!("gemini mcp add --transport http {NAME} {url} -H \"Authorization: {bearer}\""),
            ),
            (
                "~/.gemini/settings.json",
                Kind::Json,
                pretty(
                    &json!({ "mcpServers": { NAME: { "type": "http", "url": url, "headers": headers } } }),
                ),
            ),
        ],
    );
    add(
        "windsurf",
        "Windsurf",
        &[],
        vec![(
            "~/.codeium/windsurf/mcp_config.json",
            Kind::Json,
            pretty(&json!({ "mcpServers": { NAME: { "serverUrl": url, "headers": headers } } })),
        )],
    );
    add(
        "zed",
        "Zed",
        &["Without the header Zed tries OAuth, which this server does not have yet."],
        vec![(
            "settings.json",
            Kind::Json,
            pretty(&json!({ "context_servers": { NAME: { "url": url, "headers": headers } } })),
        )],
    );
    add(
        "agents-python",
        "OpenAI Agents SDK, Python",
        &[],
        vec![(
            "pip install openai-agents",
            Kind::Python,
            format!(
                "import asyncio
from agents import Agent, Runner
from agents.mcp import MCPServerStreamableHttp

async def main():
    async with MCPServerStreamableHttp(
        name=\"{NAME}\",
        params={{\"url\": \"{url}\", \"headers\": {{\"Authorization\": \"{bearer}\"}}, \"timeout\": 10}},
        client_session_timeout_seconds=60,
        cache_tools_list=True,
    ) as server:
        agent = Agent(name=\"Integrations\", mcp_servers=[server])
        print((await Runner.run(agent, \"Is every flow healthy?\")).final_output)

asyncio.run(main())"
            ),
        )],
    );
    add(
        "agents-js",
        "OpenAI Agents SDK, JavaScript",
        &[],
        vec![(
            "npm install @openai/agents",
            Kind::JavaScript,
            format!(
                "import {{ Agent, MCPServerStreamableHttp, run }} from '@openai/agents';

const server = new MCPServerStreamableHttp({{
  name: '{NAME}',
  url: '{url}',
  requestInit: {{ headers: {{ Authorization: '{bearer}' }} }},
}});
await server.connect();
const agent = new Agent({{ name: 'Integrations', mcpServers: [server] }});
console.log((await run(agent, 'Is every flow healthy?')).finalOutput);
await server.close();"
            ),
        )],
    );
    let reachable = "The server must be reachable from the internet.";
    add(
        "responses",
        "OpenAI Responses API",
        &[reachable],
        vec![(
            "One of the request's tools",
            Kind::Json,
            pretty(&json!({ "type": "mcp", "server_label": NAME, "server_url": url, "authorization": token,
                "require_approval": { "never": { "tool_names": ["list_flows", "list_runs", "get_run", "get_system_health"] } } })),
        )],
    );
    add(
        "messages",
        "Anthropic Messages API",
        &[reachable, "With the header anthropic-beta: mcp-client-2025-11-20."],
        vec![(
            "Two keys of the request",
            Kind::Json,
            pretty(&json!({
                "mcp_servers": [{ "type": "url", "url": url, "name": NAME, "authorization_token": token }],
                "tools": [{ "type": "mcp_toolset", "mcp_server_name": NAME }],
            })),
        )],
    );
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "list_flows", "arguments": {} } });
    add(
        "curl",
        "curl",
        &[],
        vec![(
            "In a shell",
            Kind::Shell,
            format!(
                "curl -s {url} -H 'Authorization: {bearer}' -H 'Content-Type: application/json' \
             -H 'Accept: application/json, text/event-stream' -d '{call}'"
            ),
        )],
    );
    if local {
        let note = "This address is of your own machine: no client elsewhere reaches it.";
        for client in &mut all {
            if matches!(client.id, "claude" | "responses" | "messages") {
                client.notes.insert(0, note.to_owned());
            }
        }
    }
    all
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_filled_in_and_is_what_it_says() {
        let (url, token) = ("https://mcp.example.com/mcp", "mcp_secret");
        for client in clients(url, token) {
            for form in &client.forms {
                match form.kind {
                    Kind::Json => drop(serde_json::from_str::<Value>(&form.text).unwrap()),
                    Kind::Toml => drop(form.text.parse::<toml::Table>().unwrap()),
                    _ => {}
                }
            }
            let all: String = client.forms.iter().map(|form| form.text.as_str()).collect();
            if client.id != "chatgpt" {
                assert!(all.contains(token), "{}", client.id);
                assert!(client.forms.len() > 1 || all.contains(url), "{}", client.id);
            }
        }
    }

    #[test]
    fn the_link_of_cursor_holds_what_its_file_does() {
        let all = clients("https://mcp.example.com/mcp", "mcp_secret");
        let cursor = all.iter().find(|client| client.id == "cursor").unwrap();
        let config = cursor.forms[0].text.split_once("config=").unwrap().1;
        let config = percent_encoding::percent_decode_str(config).decode_utf8().unwrap();
        let inner: Value = serde_json::from_slice(&STANDARD.decode(config.as_bytes()).unwrap()).unwrap();
        let file: Value = serde_json::from_str(&cursor.forms[1].text).unwrap();
        assert_eq!(inner, file["mcpServers"]["apixx"]);
    }
}
