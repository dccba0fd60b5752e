// A stdio MCP server whose tool `flood` answers with as many bytes as it is asked for, whose tool
// `die` ends the process without an answer, and which has a child of its own (tool `child`: its pid).
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' });
let calls = 0;
const any = { type: 'object' };
const say = (id, result) => process.stdout.write(JSON.stringify({ result, jsonrpc: '2.0', id }) + '\n');
const text = (value) => ({ content: [{ type: 'text', text: value }] });

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === 'initialize') {
    say(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: 'flood', version: '1' } });
  } else if (method === 'tools/list') {
    say(id, { tools: ['flood', 'die', 'child', 'env', 'meta'].map((name) => ({ name, inputSchema: any })) });
  } else if (method === 'tools/call') {
    calls += 1;
    const { name, arguments: args } = params;
    if (name === 'flood') say(id, text('x'.repeat(args.bytes)));
    if (name === 'die') process.exit(1);
    if (name === 'child') say(id, { structuredContent: { pid: child.pid, calls }, content: [] });
    if (name === 'env') say(id, { structuredContent: process.env, content: [] });
    if (name === 'meta') say(id, { structuredContent: params._meta, content: [] });
  }
});
