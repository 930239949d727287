// What a person does with the pages, in a real browser. The one argument is JSON: where things are.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdirSync } from 'node:fs';
import axe from 'axe-core';
import { chromium } from 'playwright-core';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const told = JSON.parse(process.argv[2]);
const { base, shots } = told;
const PASSWORD = 'a sentence that nobody guesses';
const PAGES = ['', '/flows', '/flows/flow_shopify_orders', '/connectors', '/usage', '/audit', '/try',
  '/settings/mcp', '/settings/mcp/new', '/settings/connect'];

const browser = await chromium.launch({ executablePath: told.chromium, args: ['--no-sandbox'] });
const faults = [];

/** A browser of one person, which minds what it loads and what it complains of. */
async function person(options = {}) {
  const context = await browser.newContext({ baseURL: base, ...options });
  context.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol.startsWith('http') && origin !== base) faults.push(`${request.url()} is elsewhere`);
  });
  context.on('page', (page) => {
    page.on('console', (message) => {
      if (message.type() === 'error') faults.push(`${page.url()}: ${message.text()}`);
    });
    page.on('pageerror', (error) => faults.push(`${page.url()}: ${error}`));
  });
  return context;
}

/** What axe finds serious or critical. */
async function judged(page, name) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  for (const { id, impact, nodes } of violations) {
    if (impact === 'serious' || impact === 'critical') {
      faults.push(`${name}: ${id} (${impact}): ${nodes.map((node) => node.html).slice(0, 3).join(' ')}`);
    }
  }
}

async function photographed(page, name) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
}

/** Types into the field that the page gives the focus to: before it has it, keys would be lost. */
async function typed(page, field, text) {
  await page.locator(`${field}:focus`).waitFor();
  await page.keyboard.type(text);
}

async function client(token) {
  const requestInit = { headers: { Authorization: `Bearer ${token}` } };
  const client = new Client({ name: 'browser-check', version: '1.0' });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${base}/mcp`), { requestInit }));
  return client;
}

/** What is kept of a token lives a second at most. */
async function refusedSoon(client) {
  const calls = async () => {
    for (const since = Date.now(); Date.now() - since < 5_000;) await client.listTools();
  };
  await assert.rejects(calls(), /401|Unauthorized/);
}

// A link of one use, by a click.
const ana = await person();
const page = await ana.newPage();
await page.goto(told.acme);
await judged(page, 'door');
await photographed(page, 'door');
await page.getByRole('button', { name: 'Sign in' }).click();
await page.waitForURL('**/w/acme');

// Every page, on every kind of screen.
const state = await ana.storageState();
const kinds = {
  'desktop-light': { viewport: { width: 1280, height: 800 }, colorScheme: 'light' },
  'desktop-dark': { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' },
  'phone-light': { viewport: { width: 390, height: 844 }, colorScheme: 'light', isMobile: true, hasTouch: true },
  'phone-dark': { viewport: { width: 390, height: 844 }, colorScheme: 'dark', isMobile: true, hasTouch: true },
};
for (const [kind, options] of Object.entries(kinds)) {
  const context = await person({ ...options, storageState: state });
  const seen = await context.newPage();
  const run = await (async () => {
    await seen.goto('/w/acme/flows/flow_shopify_orders');
    return new URL(await seen.locator('a[href*="/runs/"]').first().getAttribute('href'), base).pathname;
  })();
  for (const path of [...PAGES.map((path) => `/w/acme${path}`), run, '/sign-in', '/w/nowhere']) {
    const answer = await seen.goto(path);
    if (path !== '/w/nowhere') assert.equal(answer.status(), 200, path);
    const name = `${kind}${path.replace(/run_.*/, 'run').replaceAll('/', '-')}`;
    await judged(seen, name);
    await photographed(seen, name);
    const wide = await seen.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wide > 0) faults.push(`${name} is ${wide} px wider than its screen`);
  }
  await context.close();
}
// A page that is not there is no fault of the page.
faults.splice(0, faults.length, ...faults.filter((fault) => !/\/w\/nowhere: .*404/.test(fault)));

// A token that only reads, used by a real client.
await page.goto('/w/acme/settings/mcp/new');
await page.getByLabel('Name').fill('Reader');
await page.getByLabel('Only read').check();
await page.getByText(/^10 tools, which cost/).waitFor();
await page.getByRole('button', { name: 'Make the token' }).click();
const reader = await page.locator('#secret').inputValue();
await judged(page, 'token made');
await page.getByText('Waiting for the first call').waitFor();
const reading = await client(reader);
const { tools } = await reading.listTools();
assert.equal(tools.length, 10);
assert.ok(!tools.some((tool) => tool.name === 'trigger_sync'));
const refused = await reading.callTool({ name: 'trigger_sync', arguments: { flow: 'x' } });
assert.ok(refused.isError && refused.content[0].text.startsWith('INSUFFICIENT_SCOPE'));
await page.getByText('Connected: browser-check 1.0, protocol 2025-11-25').waitFor({ timeout: 15_000 });

// Revoked, and the next call fails.
await page.goto('/w/acme/settings/mcp');
await page.getByRole('link', { name: 'Revoke Reader' }).click();
await judged(page, 'revoke');
await photographed(page, 'revoke');
await page.getByRole('button', { name: 'Revoke it' }).click();
await page.getByText('Ended tokens (1)').waitFor();
await refusedSoon(reading);

// A token whose time is over is refused, and told of as over.
await page.goto('/w/acme/settings/mcp/new');
await page.getByLabel('Name').fill('Of old');
await page.getByRole('button', { name: 'Make the token' }).click();
const old = await client(await page.locator('#secret').inputValue());
await old.listTools();
execFileSync('psql', [told.database, '-qc', "update tokens set expires_at = created_at where name = 'Of old'"]);
await refusedSoon(old);
await page.goto('/w/acme/settings/mcp');
await page.getByText('Ended tokens (2)').click();
await page.getByRole('row', { name: /Of old.*expired/ }).waitFor();

// What is another workspace's is not there.
assert.equal((await page.request.get('/w/globex')).status(), 404);

// A form of another site does nothing.
const evil = createServer((_, response) => {
  response.setHeader('content-type', 'text/html');
  response.end(`<form method="post" action="${base}/sign-out"><button>win</button></form>`);
});
await new Promise((ready) => evil.listen(0, '127.0.0.2', ready));
const lured = await browser.newContext({ storageState: state });
const bait = await lured.newPage();
await bait.goto(`http://127.0.0.2:${evil.address().port}/`);
const [answer] = await Promise.all([bait.waitForResponse('**/sign-out'), bait.getByText('win').click()]);
assert.equal(answer.status(), 403);
await lured.close();
evil.close();
assert.equal((await page.goto('/w/acme')).status(), 200);

// A reset ends what is open; a password, chosen by its link; a session that somebody planted is not gone on with.
const [reset, ...words] = told.reset;
const [, link] = execFileSync(reset, words, { encoding: 'utf8' }).match(/(\/password\/\S+)/);
await page.goto('/w/acme');
assert.match(page.url(), /sign-in/, 'a reset ends sessions of before');
const other = await person();
const fresh = await other.newPage();
await fresh.goto(told.globex);
await fresh.getByRole('button', { name: 'Sign in' }).click();
await fresh.waitForURL('**/w/globex');
const planted = (await other.cookies())[0].value;
await fresh.goto(link);
await judged(fresh, 'password');
await photographed(fresh, 'password');
await fresh.getByLabel('Password').fill(PASSWORD);
await fresh.getByLabel('The same again').fill(PASSWORD);
await fresh.getByRole('button', { name: 'Keep it and sign in' }).click();
await fresh.waitForURL('**/w/acme');
assert.notEqual((await other.cookies())[0].value, planted);

// By keyboard alone: sign in, skip to the content, make a token.
await fresh.goto('/w/acme');
await fresh.locator('summary').first().click();
await fresh.getByRole('button', { name: 'Sign out', exact: true }).click();
await fresh.waitForURL('**/sign-in');
await typed(fresh, '#email', told.email);
await fresh.keyboard.press('Tab');
await typed(fresh, '#password', 'not the password at all');
await fresh.keyboard.press('Enter');
await fresh.getByRole('alert').waitFor();
await typed(fresh, '#password', PASSWORD);
await fresh.keyboard.press('Enter');
await fresh.waitForURL('**/w/acme');
// Refused as it should be: no fault of the page.
faults.splice(0, faults.length, ...faults.filter((fault) => !/sign-in: .*401/.test(fault)));
await fresh.keyboard.press('Tab');
assert.equal(await fresh.evaluate(() => document.activeElement.textContent), 'Skip to the content');
await fresh.goto('/w/acme/settings/mcp/new');
await typed(fresh, '#name', 'By keyboard');
await fresh.keyboard.press('Enter');
await fresh.locator('#secret').waitFor();

// Without a script.
const plain = await person({ javaScriptEnabled: false, storageState: await other.storageState() });
const still = await plain.newPage();
await still.goto('/w/acme/settings/mcp/new');
await still.getByLabel('Name').fill('Without a script');
await still.getByRole('button', { name: 'Make the token' }).click();
const whole = await client(await still.locator('#secret').inputValue());
assert.equal((await whole.listTools()).tools.length, 11);
await whole.close();

await browser.close();
assert.deepEqual(faults, []);
const screens = Object.keys(kinds).length;
console.log(`${PAGES.length + 3} pages on ${screens} screens; nothing serious, nothing from elsewhere, no complaint`);
