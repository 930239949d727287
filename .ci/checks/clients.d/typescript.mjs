// The TypeScript SDK 1.x. Arguments and report are those of walk.py.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [url, token, stepsFile, modules] = process.argv.slice(2);
const sdk = join(modules, '@modelcontextprotocol', 'sdk');
const load = (path) => import(pathToFileURL(join(sdk, 'dist', 'esm', path)));
const { Client } = await load('client/index.js');
const { StreamableHTTPClientTransport } = await load('client/streamableHttp.js');
const { version } = createRequire(import.meta.url)(join(sdk, 'package.json'));

async function connected(bearer) {
  const client = new Client({ name: 'checks', version: '1.0.0' });
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { Authorization: `Bearer ${bearer}` } },
  });
  await client.connect(transport);
  return { client, transport };
}

function told(result) {
  return {
    text: result.content.map((block) => block.text ?? '').join(''),
    structured: result.structuredContent ?? null,
    is_error: result.isError ?? false,
    code: result._meta?.['io.apixx/error']?.code ?? null,
  };
}

const { client, transport } = await connected(token);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const answers = [];
let run = null;
for (const step of JSON.parse(readFileSync(stepsFile, 'utf8')).steps) {
  const values = Object.entries(step.arguments).map(([name, value]) => [name, value === '{run}' ? run : value]);
  let answer;
  try {
    answer = told(await client.callTool({ name: step.tool, arguments: Object.fromEntries(values) }));
  } catch (error) {
    // The SDK puts its own words before the server's, and its own complaints in the same form.
    const message = error.message.replace(/^MCP error -?\d+: /, '');
    answer = typeof error.code === 'number' ? { rpc: { code: error.code, message } } : { not_taken: message };
  }
  run = answer.structured?.run_id ?? run;
  answers.push(answer);
}
const revision = transport.protocolVersion;
await client.close();

const stranger = await connected(`mcp_${'A'.repeat(49)}`).then(
  () => 'admitted',
  (error) => `${error.name} ${error.code ?? ''} ${error.message}`,
);
process.stdout.write(JSON.stringify({ version, revision, tools, answers, stranger }));
