// The official TypeScript SDK's client against server-everything: `typescript.mjs http|sse URL`.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { check, ensure, same, textOf } from './checks.mjs';

const [kind, url] = process.argv.slice(2);
const INFO = { name: 'interop', version: '0' };
const ASKABLE = { sampling: {}, elicitation: {}, roots: {} };
const STEPS = 4;
const LONG = { name: 'trigger-long-running-operation', arguments: { duration: 1, steps: STEPS } };

const transport = (options) =>
  kind === 'sse'
    ? new SSEClientTransport(new URL(`${url}/sse`), options)
    : new StreamableHTTPClientTransport(new URL(url), options);

/** A client that answers whatever the server may ask. */
function askable() {
  const client = new Client(INFO, { capabilities: ASKABLE });
  client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => ({
    model: 'interop-model',
    role: 'assistant',
    content: { type: 'text', text: `sampled ${params.messages[0].content.text}` },
  }));
  client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    ensure('name' in params.requestedSchema.properties, 'the form came without its fields');
    return { action: 'accept', content: { name: 'Ada', check: true } };
  });
  client.setRequestHandler(ListRootsRequestSchema, () => ({
    roots: [{ uri: 'file:///interop', name: 'interop root' }],
  }));
  return client;
}

/** A fetch that cuts the stream of the first tool call after its first progress. */
function cutting(seen) {
  return async (input, init = {}) => {
    const resumed = new Headers(init.headers).get('last-event-id');
    if (init.method === 'GET' && resumed) seen.resumed.push(resumed);
    const response = await fetch(input, init);
    if (seen.cut || !String(init.body).includes('"tools/call"')) return response;
    seen.cut = true;
    const [reader, decoder] = [response.body.getReader(), new TextDecoder()];
    let text = '';
    const body = new ReadableStream({
      async pull(controller) {
        const { value, done } = await reader.read();
        if (done) return controller.close();
        controller.enqueue(value);
        text += decoder.decode(value, { stream: true });
        if (!/notifications\/progress.*\n\n/s.test(text)) return;
        await reader.cancel();
        controller.error(new Error('cut'));
      },
    });
    return new Response(body, { status: response.status, headers: response.headers });
  };
}

async function resume() {
  const seen = { cut: false, resumed: [] };
  const client = new Client(INFO);
  await client.connect(transport({ fetch: cutting(seen) }));
  const progress = [];
  const result = await client.callTool(LONG, undefined, { onprogress: (at) => progress.push(at.progress) });
  ensure(textOf(result).includes('completed'), 'another answer');
  ensure(seen.cut && seen.resumed.length > 0, 'nothing was resumed');
  same('progress', progress, [1, 2, 3, 4]);
  await client.close();
}

async function end() {
  const [client, over] = [new Client(INFO), transport()];
  await client.connect(over);
  const session = over.sessionId;
  await over.terminateSession();
  const headers = {
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'mcp-session-id': session,
  };
  const ping = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
  const after = await fetch(url, { method: 'POST', headers, body: ping });
  same('status after the end', after.status, 404);
  await client.close();
}

/** A client that can be asked nothing: it shares the server's connection. */
async function plain() {
  const client = new Client(INFO);
  await client.connect(transport());
  const names = (await client.listTools()).tools.map((tool) => tool.name);
  ensure(names.includes('echo') && !names.includes('trigger-sampling-request'), `tools: ${names}`);
  const calls = [1, 2, 3, 4].map((n) => client.callTool({ name: 'get-sum', arguments: { a: n, b: n } }));
  const sums = (await Promise.all(calls)).map(textOf);
  [2, 4, 6, 8].forEach((sum, at) => ensure(sums[at].includes(` ${sum}.`), `sums: ${sums}`));
  await client.close();
}

/** What comes over the wire: the client itself drops progress whose answer is in the same read. */
async function progressOf(client, over) {
  const [told, wire, { onmessage }] = [[], [], over];
  over.onmessage = (message, extra) => {
    if (message.method === 'notifications/progress') wire.push(message.params.progress);
    if (message.result) wire.push('answer');
    onmessage(message, extra);
  };
  await client.callTool(LONG, undefined, { onprogress: (at) => told.push(at.progress) });
  over.onmessage = onmessage;
  same('on the wire', wire, [1, 2, 3, 4, 'answer']);
  same('progress', told.slice(0, STEPS - 1), [1, 2, 3]);
}

async function main() {
  const [client, over] = [askable(), transport()];
  await check('initialize', async () => {
    await client.connect(over);
    ensure(client.getServerVersion().name.includes('everything'), 'another server');
    if (kind === 'http') ensure(over.sessionId?.length >= 32, `session id ${over.sessionId}`);
  });
  await check('list', async () => {
    const names = (await client.listTools()).tools.map((tool) => tool.name);
    ['echo', 'trigger-sampling-request', 'trigger-elicitation-request', 'get-roots-list'].forEach((name) =>
      ensure(names.includes(name), `no ${name} among ${names}`));
  });
  await check('call', async () => {
    const message = 'a \u200d b \u2028 "c" \\ \u{1f9ea}';
    same('echo', textOf(await client.callTool({ name: 'echo', arguments: { message } })), `Echo: ${message}`);
  });
  await check('resources', async () => {
    const { resources } = await client.listResources();
    const { contents } = await client.readResource({ uri: resources[0].uri });
    same('uri', contents[0].uri, resources[0].uri);
  });
  await check('prompts', async () => {
    const { prompts } = await client.listPrompts();
    ensure((await client.getPrompt({ name: prompts[0].name })).messages.length > 0, 'an empty prompt');
  });
  await check('progress', () => progressOf(client, over));
  await check('sampling', async () => {
    const result = await client.callTool({ name: 'trigger-sampling-request', arguments: { prompt: 'p', maxTokens: 5 } });
    ensure(textOf(result).includes('interop-model'), textOf(result));
  });
  await check('elicitation', async () => {
    const result = await client.callTool({ name: 'trigger-elicitation-request', arguments: {} });
    ensure(textOf(result).includes('Ada'), textOf(result));
  });
  await check('roots', async () => {
    const result = await client.callTool({ name: 'get-roots-list', arguments: {} });
    ensure(textOf(result).includes('interop root'), textOf(result));
  });
  await client.close().catch(() => {});
  await check('plain', plain);
  if (kind === 'http') {
    await check('resume', resume);
    await check('end', end);
  }
  process.exit(0);
}

await main();
