/** What the demonstration looks like: colours on a terminal, plain text elsewhere. */
const colours =
  process.stdout.isTTY && process.env['NO_COLOR'] === undefined && process.env['TERM'] !== 'dumb';

const paint = (code: string) => (text: string) => (colours ? `\u001b[${code}m${text}\u001b[0m` : text);
export const bold = paint('1');
export const dim = paint('2');
export const green = paint('32');
export const red = paint('31');
export const cyan = paint('36');
const head = paint('1;36');

export function say(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** A short-lived line that the next output replaces; nothing without a terminal. */
export function busy(text: string): void {
  if (colours) process.stdout.write(`\r\u001b[K${dim(`${text} …`)}`);
}
export function idle(): void {
  if (colours) process.stdout.write('\r\u001b[K');
}

export function title(text: string): void {
  say();
  say(bold(text));
}

export function phase(number: string, name: string, remark = ''): void {
  say();
  say(`${head(` ${number} `)} ${bold(name)}${remark === '' ? '' : `  ${dim(remark)}`}`);
}

/** `→` from the client, `←` from the gateway. */
export function wire(direction: '→' | '←', what: string, meaning: string): void {
  const mark = direction === '→' ? cyan(direction) : green(direction);
  say(`     ${mark} ${what.padEnd(WHAT_WIDTH)}${what.length >= WHAT_WIDTH ? ' ' : ''}${dim(meaning)}`);
}

export function note(text: string): void {
  say(`       ${dim(text)}`);
}

export function check(good: boolean, text: string): boolean {
  say(`     ${good ? green('✔') : red('✘')} ${text}`);
  return good;
}

const WHAT_WIDTH = 25;
