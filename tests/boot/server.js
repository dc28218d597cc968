// An MCP server over stdio in plain JavaScript, as `npx` would start one: its lines are read and
// answered, and it says what it can see of its surroundings.
'use strict';
const fs = require('node:fs');
const os = require('node:os');
const readline = require('node:readline');

// Warm code is compiled: that is what memory that is never executable would kill.
let warm = 0;
for (let n = 0; n < 2e6; n += 1) warm = (warm + n * n) % 1000003;

const reads = (path) => {
  try {
    fs.closeSync(fs.openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
};
const connects = (path) =>
  new Promise((resolve) => {
    const socket = require('node:net').connect(path);
    socket.on('connect', () => { socket.destroy(); resolve(true); });
    socket.on('error', () => resolve(false));
  });
const tools = {
  echo: async ({ message }) => String(message),
  surroundings: async () =>
    JSON.stringify({
      pid: process.pid, uid: process.getuid(), groups: process.getgroups(), cpus: os.cpus().length, warm,
      cgroup: fs.readFileSync('/proc/self/cgroup', 'utf8').trim(), env: process.env,
      engine: await connects('/run/docker.sock'), control: await connects('/run/mcp-orchestrator/control.sock'),
      state: reads('/var/lib/mcp-orchestrator/state.db'), config: reads('/etc/mcp-orchestrator/mcp.config.json'),
      credentials: ['mcp-orchestrator.service', 'mcp-orchestrator-runner.service'].some((unit) =>
        reads(`/run/credentials/${unit}/dashboard-password`)),
    }),
};
const list = Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } }));

async function answer({ method, params = {} }) {
  if (method === 'initialize') {
    return { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: 'node', version: '1' } };
  }
  if (method === 'tools/list') return { tools: list };
  if (method === 'tools/call' && tools[params.name]) {
    return { content: [{ type: 'text', text: await tools[params.name](params.arguments || {}) }] };
  }
  if (method === 'ping') return {};
  throw new Error('unknown');
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const message = JSON.parse(line);
  if (message.id === undefined) return;
  const reply = { jsonrpc: '2.0', id: message.id };
  try {
    reply.result = await answer(message);
  } catch {
    reply.error = { code: -32601, message: `no ${message.method}` };
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`);
});
