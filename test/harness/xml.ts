/** Just enough XML to read what a gateway writes, to check that it is well-formed, and to write it differently. */

export interface Element {
  name: string;
  attributes: Map<string, string>;
  children: (Element | string)[];
}

/** @throws when the text is not one well-formed element, or holds a DOCTYPE. */
export function parseXml(text: string): Element {
  const source = text.replace(/^\s*<\?xml[^>]*\?>/, '').trim();
  const root: Element = { name: '', attributes: new Map(), children: [] };
  const stack: Element[] = [root];
  const token =
    /<!\[CDATA\[([\s\S]*?)\]\]>|<!--[\s\S]*?-->|<(\/?)([\w:.-]+)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>|([^<]+)/y;
  while (token.lastIndex < source.length) {
    const at = token.lastIndex;
    const found = token.exec(source);
    if (found === null) throw new Error(`not well-formed at ${at}: ${source.slice(at, at + 40)}`);
    const [whole, cdata, slash, name, attributes, empty, characters] = found;
    const open = stack.at(-1) ?? root;
    if (cdata !== undefined) open.children.push(cdata);
    else if (characters !== undefined) open.children.push(decode(characters));
    else if (name === undefined) continue;
    else if (slash === '/') {
      if (stack.pop()?.name !== name || stack.length === 0) throw new Error(`unexpected ${whole}`);
    } else {
      const element: Element = { name, attributes: readAttributes(attributes ?? ''), children: [] };
      open.children.push(element);
      if (empty !== '/') stack.push(element);
    }
  }
  const elements = root.children.filter((child): child is Element => typeof child !== 'string');
  const [only] = elements;
  if (stack.length !== 1 || only === undefined || elements.length !== 1)
    throw new Error('not exactly one element');
  return only;
}

/** The first element at a path of names below `element`, `auth/form`; undefined = none. */
export function find(element: Element, path: string): Element | undefined {
  return findAll(element, path)[0];
}

export function findAll(element: Element, path: string): Element[] {
  let found = [element];
  for (const name of path.split('/')) {
    found = found.flatMap((parent) =>
      parent.children.filter((child): child is Element => typeof child !== 'string' && child.name === name),
    );
  }
  return found;
}

/** All text below an element. */
export function textOf(element: Element | undefined): string {
  if (element === undefined) return '';
  return element.children.map((child) => (typeof child === 'string' ? child : textOf(child))).join('');
}

export interface WriteStyle {
  /** Attributes in reverse order, single quotes, blanks and line breaks between elements. */
  altered?: boolean;
}

export function writeXml(element: Element, style: WriteStyle = {}): string {
  const altered = style.altered === true;
  const attributes = [...element.attributes];
  if (altered) attributes.reverse();
  const quote = altered ? "'" : '"';
  const head = attributes.map(
    ([name, value]) => ` ${altered ? ' ' : ''}${name}=${quote}${escapeXml(value)}${quote}`,
  );
  const onlyElements = element.children.every((child) => typeof child !== 'string' || child.trim() === '');
  const gap = altered && onlyElements && element.children.length > 0 ? '\r\n  ' : '';
  const inner = element.children.map((child) =>
    typeof child === 'string'
      ? altered && onlyElements
        ? ''
        : escapeXml(child)
      : writeXml(child, style) + gap,
  );
  return `<${element.name}${head.join('')}${altered ? ' ' : ''}>${gap}${inner.join('')}</${element.name}>`;
}

export function escapeXml(text: string): string {
  return text.replace(/[&<>"'\r\n]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function readAttributes(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name = '', value = ''] of text.matchAll(/([\w:.-]+)\s*=\s*("[^"]*"|'[^']*')/g)) {
    if (found.has(name)) throw new Error(`attribute ${name} twice`);
    found.set(name, decode(value.slice(1, -1)));
  }
  return found;
}

function decode(text: string): string {
  return text.replace(/&([^;]*);?/g, (whole, name: string) => {
    const known = ENTITIES[name];
    if (known !== undefined && whole.endsWith(';')) return known;
    const code = /^#(?:x([0-9a-fA-F]+)|(\d+))$/.exec(name);
    if (code === null || !whole.endsWith(';')) throw new Error(`unknown entity ${whole}`);
    return String.fromCodePoint(code[1] === undefined ? Number(code[2]) : Number.parseInt(code[1], 16));
  });
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
