import { SaxesParser } from 'saxes';
import { encodeUtf8 } from './bytes.ts';
import { ProtocolError } from './errors.ts';

/** The only file on saxes: bounded trees in, escaped text out. */

/** One element; attributes of the same name are not well-formed, so there is one of each. */
export interface XmlElement {
  name: string;
  attributes: ReadonlyMap<string, string>;
  children: readonly XmlElement[];
  /** All text and CDATA directly inside, in order, not trimmed. */
  text: string;
  /** Of the end of its start tag, from 1. */
  line: number;
}

/** Not well-formed, or larger than we read. `line` counts from 1. */
export class XmlError extends ProtocolError {
  readonly line: number;

  constructor(message: string, line: number, status = 400) {
    super(message, status);
    this.name = 'XmlError';
    this.line = line;
  }
}

/**
 * Reads a document into a tree. DOCTYPE is refused, so no entity but the five of XML exists.
 * @param text at most `MAX_XML_LENGTH` characters, or more if `maxLength` says so.
 * @throws XmlError
 */
export function parseXml(text: string, options: { maxLength?: number; maxNodes?: number } = {}): XmlElement {
  const { maxLength = MAX_XML_LENGTH, maxNodes = MAX_XML_NODES } = options;
  if (text.length > maxLength) throw new XmlError('XML is too long', 1, 413);
  const parser = new SaxesParser<{ position: true; xmlns: false }>({ position: true, xmlns: false });
  const stack: Node[] = [];
  let root: Node | undefined;
  let nodes = 0;
  const refuse = (message: string): never => {
    throw new XmlError(message, parser.line);
  };

  parser.on('error', (error) => refuse(`XML is not well-formed: ${withoutPosition(error.message)}`));
  parser.on('doctype', () => refuse('XML has a DOCTYPE'));
  parser.on('opentag', (tag) => {
    const attributes = Object.entries(tag.attributes);
    nodes += 1 + attributes.length;
    if (nodes > maxNodes) refuse('XML has too many nodes');
    if (stack.length >= MAX_XML_DEPTH) refuse('XML is nested too deep');
    const node: Node = {
      name: tag.name,
      attributes: new Map<string, string>(attributes),
      children: [],
      text: '',
      line: parser.line,
    };
    stack.at(-1)?.children.push(node);
    root ??= node;
    stack.push(node);
  });
  const addText = (piece: string): void => {
    const open = stack.at(-1);
    if (open) open.text += piece;
  };
  parser.on('text', addText);
  parser.on('cdata', addText);
  parser.on('closetag', () => {
    stack.pop();
  });
  parser.write(text).close();
  return root ?? refuse('XML has no root element');
}

/**
 * Leading blanks, a byte order mark and the XML declaration taken off: clients send malformed ones, and the text is
 * decoded already, so nothing in it counts.
 */
export function withoutXmlDeclaration(text: string): string {
  const start = text.search(/[^\s\ufeff]/);
  if (start < 0) return '';
  if (!/^<\?xml\s/i.test(text.slice(start, start + 6))) return text.slice(start);
  const end = text.indexOf('>', start);
  return end < 0 || end - start > MAX_DECLARATION_LENGTH
    ? text.slice(start)
    : text.slice(end + 1).trimStart();
}

/** The first child of that name. */
export function childOf(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((child) => child.name === name);
}

/** For text and for attributes in double or single quotes; line breaks as references, what XML forbids left out. */
export function escapeXml(text: string): string {
  return text.replace(NOT_XML, '').replace(/[&<>"'\r\n\t]/g, (character) => ESCAPES[character] ?? '');
}

/** Cut after at most so many bytes of UTF-8, never inside a character. */
export function clipText(text: string, maxBytes: number): string {
  if (text.length * 3 <= maxBytes) return text;
  let bytes = 0;
  let end = 0;
  for (const character of text) {
    bytes += encodeUtf8(character).length;
    if (bytes > maxBytes) return text.slice(0, end);
    end += character.length;
  }
  return text;
}

interface Node extends XmlElement {
  attributes: Map<string, string>;
  children: Node[];
}

function withoutPosition(message: string): string {
  return message.replace(/^\d+:\d+: /, '').replace(/\.$/, '');
}

const ESCAPES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  '\r': '&#x0D;',
  '\n': '&#x0A;',
  '\t': '&#x09;',
};
// XML 1.0 §2.2, production 2: everything else is a Char.
const NOT_XML =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// docs/protocol.md §4.1
export const MAX_XML_LENGTH = 256 * 1024;
/** Elements and attributes. */
export const MAX_XML_NODES = 2048;
export const MAX_XML_DEPTH = 32;
const MAX_DECLARATION_LENGTH = 256;
