import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { MAX_WAITING_BYTES } from './log-lines.ts';

/** A process that runs `code` with a log. */
function logging(code: string) {
  const source = `
    const { createLog, StartError, faultText } = await import(${JSON.stringify(new URL('./index.js', import.meta.url).href)});
    const log = createLog({ name: 't', level: 'info' });
    ${code}`;
  return spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['pipe', 'pipe', 'pipe'] });
}

const FLOOD = `for (let n = 0; n < 5000; n += 1) log.info({ n, text: 'x'.repeat(1000) }, 'flood');`;

test('a reader that is stuck stops nothing: lines are dropped, counted, and said when it reads again', async () => {
  const child = logging(`${FLOOD}
    console.log('goes on');
    process.stdin.on('data', () => log.info({}, 'after'));`);
  await once(child.stdout, 'data');
  child.stdin.write('go\n');
  let text = '';
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const told = () => {
    const lines = text
      .slice(0, text.lastIndexOf('\n'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { msg: string; lines?: number });
    const of = (wanted: string) => lines.filter(({ msg }) => msg === wanted).length;
    const dropped = lines.reduce((sum, line) => sum + (line.lines ?? 0), 0);
    return { dropped, all: of('flood') + of('after') + dropped };
  };
  while (told().all < 5001) await once(child.stderr, 'data');
  child.kill();
  await once(child, 'close');
  assert.ok(told().dropped > 0);
  assert.equal(told().all, 5001);
  assert.ok(text.length < MAX_WAITING_BYTES + 300_000, `${text.length} bytes were kept`);
});

test('a reader that is stuck does not keep a process that ends', { timeout: 120_000 }, async () => {
  const child = logging(`${FLOOD} process.exit(3);`);
  const [code] = (await once(child, 'exit')) as [number];
  assert.equal(code, 3);
  child.stderr.destroy();
});

test('the last lines before the end are there, and a start error, too', async () => {
  const child = logging(`
    log.error({}, 'last words');
    process.stderr.write(faultText(new StartError('Port 443 is taken.')) + '\\n');
    process.exit(1);`);
  let text = '';
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await once(child, 'close');
  assert.match(text, /"msg":"last words"\}\nPort 443 is taken\.\n$/);
});
