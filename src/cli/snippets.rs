//! What a newcomer pastes: how to reach the server from the usual clients.

use serde_json::{Value, json};

/// The name that clients give this server.
const NAME: &str = "apixx";

/// How to call the server at `url` with `token`, from a shell and from four clients.
pub(super) fn snippets(url: &str, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "list_flows", "arguments": {} }
    });
    let cursor = json!({ "mcpServers": { NAME: { "url": url, "headers": { "Authorization": bearer } } } });
    let code = json!({ "servers": { NAME: { "type": "http", "url": url, "headers": { "Authorization": bearer } } } });
    format!(
        "curl
  curl -s {url} -H 'Authorization: {bearer}' -H 'Content-Type: application/json' \
         -H 'Accept: application/json, text/event-stream' -d '{call}'

Claude Code
  claude mcp add --transport http {NAME} {url} --header \"Authorization: {bearer}\"

Cursor, in ~/.cursor/mcp.json
{}

VS Code, in .vscode/mcp.json
{}

OpenAI Agents SDK
  import asyncio
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

  asyncio.run(main())
",
        indented(&cursor),
        indented(&code)
    )
}

fn indented(value: &Value) -> String {
    let text = format!("{value:#}");
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_gets_the_address_and_the_token() {
        let text = snippets("http://127.0.0.1:8080/mcp", "mcp_secret");
        assert_eq!(text.matches("http://127.0.0.1:8080/mcp").count(), 5);
        assert_eq!(text.matches("Bearer mcp_secret").count(), 5);
    }

    #[test]
    fn what_goes_into_files_is_json() {
        let text = snippets("http://127.0.0.1:8080/mcp", "mcp_secret");
        for key in ["mcpServers", "servers"] {
            let begin = text.find(&format!("  {{\n    \"{key}\"")).unwrap();
            let json = text[begin..].split("\n\n").next().unwrap();
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(value[key]["apixx"]["url"], "http://127.0.0.1:8080/mcp");
        }
    }
}
