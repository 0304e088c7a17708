import { StartError } from '@sallyport/chassis';

/** What a command reads from: `process.stdin`. */
export type Input = NodeJS.ReadStream;

/**
 * A new password: asked twice without echo on a terminal, else the first line of standard input. Never an argument,
 * which every process could read.
 */
export async function readNewPassword(
  name: string,
  input: Input,
  prompts: NodeJS.WriteStream,
): Promise<string> {
  if (!input.isTTY) return firstLine(input);
  const once = await askHidden(`New password for ${name}: `, input, prompts);
  const twice = await askHidden('The same again: ', input, prompts);
  if (once !== twice) throw new StartError('The two passwords differ; nothing was changed.');
  return once;
}

async function firstLine(input: AsyncIterable<unknown>): Promise<string> {
  let text = '';
  for await (const chunk of input) {
    text += String(chunk);
    if (text.includes('\n') || text.length > MAX_LINE_LENGTH) break;
  }
  const line = text.split(/\r?\n/)[0] ?? '';
  if (line === '')
    throw new StartError('No password came from standard input: give it there, or run this on a terminal.');
  if (line.length > MAX_LINE_LENGTH) throw new StartError('The password from standard input is too long.');
  return line;
}

function askHidden(question: string, input: Input, prompts: NodeJS.WriteStream): Promise<string> {
  prompts.write(question);
  input.setRawMode(true);
  input.setEncoding('utf8');
  input.resume();
  return new Promise((resolve, reject) => {
    let text = '';
    const finish = (end: () => void) => {
      input.off('data', take);
      input.setRawMode(false);
      input.pause();
      prompts.write('\n');
      end();
    };
    const take = (chunk: string) => {
      for (const key of chunk) {
        if (key === '\r' || key === '\n') return finish(() => resolve(text));
        if (key === CTRL_C || (key === CTRL_D && text === '')) {
          return finish(() => reject(new StartError('Given up; nothing was changed.')));
        }
        if (key === DELETE || key === BACKSPACE) text = [...text].slice(0, -1).join('');
        else if (key >= ' ') text += key;
      }
    };
    input.on('data', take);
  });
}

const MAX_LINE_LENGTH = 1024;
const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
const BACKSPACE = '\u0008';
const DELETE = '\u007f';
