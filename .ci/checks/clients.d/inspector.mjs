// MCP Inspector's CLI: one process a call, in the era that is the fifth argument. Arguments and report are those
// of walk.py. It looks a tool up before it calls it, so what it says of an unknown tool are its own words.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [url, token, stepsFile, modules, era] = process.argv.slice(2);
const inspector = join(modules, '@modelcontextprotocol', 'inspector');
const launcher = join(inspector, 'clients', 'launcher', 'build', 'index.js');
const { version } = createRequire(import.meta.url)(join(inspector, 'package.json'));

function inspect(bearer, ...request) {
  const common = ['--transport', 'http', '--header', `Authorization: Bearer ${bearer}`, '--protocol-era', era];
  const quiet = ['--format', 'json', '--quiet', '--stored-auth-only'];
  return spawnSync(process.execPath, [launcher, '--cli', url, ...common, ...quiet, ...request], {
    encoding: 'utf8',
    timeout: 90_000,
    maxBuffer: 16 << 20,
  });
}

function answered({ stdout, stderr }) {
  if (!stdout.trim()) {
    const last = stderr.trim().split('\n').at(-1);
    const { code, message } = JSON.parse(last).error;
    return { rpc: { code, message } };
  }
  const said = JSON.parse(stdout);
  return said.result ?? said;
}

const { protocolVersion } = answered(inspect(token, '--method', 'initialize'));
const listed = answered(inspect(token, '--method', 'tools/list'));
const answers = [];
let run = null;
for (const step of JSON.parse(readFileSync(stepsFile, 'utf8')).steps) {
  const values = Object.entries(step.arguments).map(([name, value]) => [name, value === '{run}' ? run : value]);
  const request = ['--method', 'tools/call', '--tool-name', step.tool];
  const result = answered(inspect(token, ...request, '--tool-args-json', JSON.stringify(Object.fromEntries(values))));
  const answer = result.rpc ? result : {
    text: result.content.map((block) => block.text ?? '').join(''),
    structured: result.structuredContent ?? null,
    is_error: result.isError ?? false,
    code: result._meta?.['io.apixx/error']?.code ?? null,
  };
  run = answer.structured?.run_id ?? run;
  answers.push(answer);
}
const { stdout, stderr } = inspect(`mcp_${'A'.repeat(49)}`, '--method', 'tools/list');
process.stdout.write(JSON.stringify({
  version,
  revision: protocolVersion,
  tools: listed.tools.map((tool) => tool.name),
  answers,
  stranger: stdout.trim() ? 'admitted' : stderr.trim(),
}));
