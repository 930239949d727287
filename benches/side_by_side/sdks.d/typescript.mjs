// A server on the official TypeScript SDK: stateless, answering JSON, with the same statements and tools.
// Arguments: port, file of the answer to tools/list, file of the statements, directory of the packages.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const [port, listing, texts, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { Server } = require('@modelcontextprotocol/sdk/server/index.js');
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { CallToolRequestSchema, ListToolsRequestSchema } = require('@modelcontextprotocol/sdk/types.js');
const pg = require('pg');

const { tools } = JSON.parse(readFileSync(listing, 'utf8')).result;
const { get_run, list_runs } = JSON.parse(readFileSync(texts, 'utf8'));
const size = Number(process.env.POOL_SIZE);
const pool = new pg.Pool({ min: size, max: size });

async function answered(name, asked) {
  if (name === 'get_run') {
    const values = [asked.customer, asked.now, asked.run_id];
    return (await pool.query({ name, text: get_run, values })).rows[0];
  }
  const { customer, now, since, until, window_at, run_id } = asked;
  const values = [customer, now, since, until, 26, window_at, run_id];
  return { runs: (await pool.query({ name, text: list_runs, values })).rows.slice(0, 25) };
}

function server() {
  const server = new Server({ name: 'side-by-side', version: '1.0.0' }, { capabilities: { tools: {} } });
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }) => {
    const structuredContent = await answered(params.name, params.arguments);
    return { content: [{ type: 'text', text: JSON.stringify(structuredContent) }], structuredContent };
  });
  return server;
}

createServer(async (request, response) => {
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  const one = server();
  response.on('close', () => {
    transport.close();
    one.close();
  });
  await one.connect(transport);
  await transport.handleRequest(request, response);
}).listen(Number(port), '127.0.0.1');
