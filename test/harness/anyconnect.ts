/**
 * A scripted AnyConnect: no Cisco client runs in tests, so this one walks the flow as PROTOCOL §1.1 and §2–§6 describe it.
 * Each step is a TLS connection of its own, because login window, downloader and agent are three programs.
 *
 *   1 init               POST, config-auth `init`
 *   2 chooseGroup        POST, `init` with <group-select>
 *   3 reply              POST, `auth-reply`; <opaque> comes back written differently
 *   4 download           GET per item that the success document announces; hashes compared
 *   5 connect            CONNECT with the headers of the platform; then the channel
 *   6 (DTLS)             not here
 *     logout             POST, config-auth `logout`
 */
import { createSign, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { sha1Hex, type KeyPair } from './certificates.ts';
import { CstpChannel } from './cstp.ts';
import { cookiesOf, header, TlsClient, type HttpAnswer, type Target } from './tls-client.ts';
import { escapeXml, find, findAll, parseXml, textOf, writeXml, type Element } from './xml.ts';

export type Platform = 'windows' | 'ios' | 'android';

export interface AnyConnectOptions extends Target {
  platform?: Platform;
  certificate?: KeyPair;
  version?: 'TLSv1.2' | 'TLSv1.3';
  serverName?: string;
  /** `/` unless told; `/NAME` is a group URL. */
  path?: string;
  /** Sends STRAP keys and signs CONNECT (PROTOCOL §3.14). */
  strap?: boolean;
  countRecords?: boolean;
}

/** What came back from one POST. */
export interface Step {
  answer: HttpAnswer;
  document: Element;
  /** `auth-request` or `complete`. */
  type: string;
  /** `id` of `<auth>`: `main`, `challenge`, `success` …; '' = none. */
  authId: string;
  fields: string[];
  /** Groups in the order of the list: value and label. */
  groups: { value: string; label: string; selected: boolean }[];
  message: string;
  error: string;
  banner: string;
}

export interface Downloaded {
  path: string;
  status: number;
  bytes: number;
  /** As announced; '' = nothing was announced for it. */
  announcedSha1: string;
  body: Buffer;
}

export interface Connected {
  answer: HttpAnswer;
  channel: CstpChannel;
  tls: TlsClient;
  /** The document in X-CSTP-Post-Auth-XML; undefined = the header is missing. */
  postAuth: Element | undefined;
}

export class AnyConnect {
  readonly #options: AnyConnectOptions;
  readonly cookies = new Map<string, string>();
  /** SHA-1 of the certificate of each TLS connection so far. */
  readonly certificateHashes: string[] = [];
  #opaque: Element | undefined;
  #action: string;
  #group = '';
  #success: Step | undefined;
  /** Newest last. */
  readonly strapKeys: { privateKey: KeyObject; spki: Buffer }[] = [];
  token = '';

  constructor(options: AnyConnectOptions) {
    this.#options = options;
    this.#action = options.path ?? '/';
    if (options.strap === true) this.#newStrapKey();
  }

  /** @param group what `<group-select>` says; undefined = the element is missing. */
  async init(group?: string): Promise<Step> {
    if (group !== undefined) this.#group = group;
    const access = `https://${this.#options.host ?? this.#options.lab.gatewayIpv4}${this.#action}`;
    const select = group === undefined ? '' : `<group-select>${escapeXml(group)}</group-select>`;
    return this.post(
      this.#document('init', `${select}<group-access>${escapeXml(access)}</group-access>${CAPABILITIES}`),
    );
  }

  async chooseGroup(group: string): Promise<Step> {
    return this.init(group);
  }

  /** @param values field name to value, in the order of the form. */
  async reply(values: Record<string, string>): Promise<Step> {
    return this.post(this.replyDocument(values));
  }

  /** The body of an `auth-reply`, `<opaque>` with other blanks, quotes and order of attributes than it came with. */
  replyDocument(values: Record<string, string>, group = this.#group): string {
    const opaque = this.#opaque === undefined ? '' : writeXml(this.#opaque, { altered: true });
    const fields = Object.entries(values).map(([name, value]) => `<${name}>${escapeXml(value)}</${name}>`);
    const select = group === '' ? '' : `<group-select>${escapeXml(group)}</group-select>`;
    const empty = '<session-token></session-token><session-id></session-id>';
    return this.#document('auth-reply', `${empty}${opaque}<auth>${fields.join('')}</auth>${select}`);
  }

  /** All of login: init, another group if one is named, reply. @returns the last step. */
  async login(user: string, password: string, group?: string): Promise<Step> {
    const first = await this.init();
    if (first.authId === 'success') return first;
    if (group !== undefined) await this.chooseGroup(group);
    return this.reply({ username: user, password });
  }

  /** Sends a body as this client would and takes in what comes back: cookies, opaque, action, token. */
  async post(body: string | Buffer, path = this.#action): Promise<Step> {
    const answer = await this.exchange('POST', path, body);
    const step = readStep(answer);
    const opaque = find(step.document, 'opaque');
    if (opaque?.attributes.get('is-for') === 'sg') this.#opaque = opaque;
    const action = find(step.document, 'auth/form')?.attributes.get('action');
    if (action !== undefined) this.#action = action;
    if (step.authId === 'success') {
      this.#success = step;
      this.token = textOf(find(step.document, 'session-token')) || (this.cookies.get('webvpn') ?? '');
    }
    return step;
  }

  /** One request on one TLS connection of its own. */
  async exchange(method: string, path: string, body?: string | Buffer): Promise<HttpAnswer> {
    const tls = await this.#open();
    try {
      const answer = await tls.request({
        method,
        path,
        headers: this.#requestHeaders(body),
        ...(body !== undefined && { body }),
      });
      for (const [name, value] of cookiesOf(answer)) {
        if (value === '') this.cookies.delete(name);
        else this.cookies.set(name, value);
      }
      return answer;
    } finally {
      tls.close();
    }
  }

  /**
   * Phase 4: fetches version, package manifest and everything announced.
   * @throws where a real client would give up: something announced is missing or has another hash, the manifest is not
   * XML, the certificate is another one than announced.
   */
  async download(): Promise<Downloaded[]> {
    const document = this.#success?.document;
    if (document === undefined) throw new Error('not logged in');
    const announcedHash = textOf(find(document, 'config/vpn-base-config/server-cert-hash'));
    const base = textOf(find(document, 'config/vpn-base-config/base-package-uri')) || '/1';
    const got: Downloaded[] = [];
    const get = async (path: string, announcedSha1 = ''): Promise<Buffer> => {
      const answer = await this.exchange('GET', path);
      got.push({ path, status: answer.status, bytes: answer.body.length, announcedSha1, body: answer.body });
      if (answer.status !== 200) throw new Error(`GET ${path}: ${answer.status}`);
      if (announcedSha1 !== '' && sha1Hex(answer.body) !== announcedSha1.toUpperCase()) {
        throw new Error(`GET ${path}: SHA-1 ${sha1Hex(answer.body)}, announced ${announcedSha1}`);
      }
      return answer.body;
    };
    const version = (await get(`${base}/binaries/update.txt`)).toString();
    if (!/^\d+,\d+,\d+\s*$/.test(version)) throw new Error(`update.txt: ${version}`);
    const manifest = parseXml((await get(`${base}/VPNManifest.xml`)).toString());
    const embedded = find(document, 'config/opaque/vpn-core-manifest/vpn');
    const packages = [
      ...findAll(manifest, 'file'),
      ...(embedded === undefined ? [] : findAll(embedded, 'file')),
    ];
    for (const uri of new Set(packages.map((file) => textOf(find(file, 'uri'))))) {
      await get(uri.startsWith('/') ? uri : `${base}/${uri}`);
    }
    for (const file of findAll(document, 'config/vpn-profile-manifest/vpn/file')) {
      await get(textOf(find(file, 'uri')), textOf(find(file, 'hash')));
    }
    parseXml((await get('/+CSCOT+/translation-table?textdomain=AnyConnect&type=manifest')).toString());
    const platform =
      this.#options.platform === 'windows' || this.#options.platform === undefined ? 'win' : 'mobile';
    parseXml(
      (await get(`/+CSCOT+/oem-customization?app=AnyConnect&type=manifest&platform=${platform}`)).toString(),
    );
    const cookieHash = /(?:^|&)sh:([0-9A-F]{40})(?:&|$)/.exec(this.cookies.get('webvpnc') ?? '')?.[1];
    for (const hash of [...this.certificateHashes, ...(cookieHash === undefined ? [] : [cookieHash])]) {
      if (hash !== announcedHash) throw new Error(`certificate ${hash}, announced ${announcedHash}`);
    }
    return got;
  }

  /** Phase 5. @param more replaces or adds headers. */
  async connect(more: readonly (readonly [string, string])[] = []): Promise<Connected> {
    const tls = await this.#open();
    const answer = await tls.request({
      method: 'CONNECT',
      path: '/CSCOSSLC/tunnel',
      headers: this.connectHeaders(tls, more),
    });
    const postAuth = header(answer, 'X-CSTP-Post-Auth-XML');
    if (answer.status !== 200) tls.close();
    return {
      answer,
      tls,
      channel: new CstpChannel(tls),
      postAuth: postAuth === undefined ? undefined : parseXml(postAuth),
    };
  }

  /** Headers of CONNECT as the platform sends them; with STRAP signed for this TLS connection, and the key rotated. */
  connectHeaders(
    tls: TlsClient,
    more: readonly (readonly [string, string])[] = [],
  ): (readonly [string, string])[] {
    const replaced = new Set(more.map(([name]) => name.toLowerCase()));
    const platform = this.#options.platform ?? 'windows';
    return [
      ['Host', 'vpn.example.test'] as const,
      ['User-Agent', LOOKS[platform].agent] as const,
      ['Cookie', this.#cookieHeader()] as const,
      ...CONNECT_HEADERS[platform],
      ...this.#strapHeaders(tls),
    ]
      .filter(([name]) => !replaced.has(name.toLowerCase()))
      .concat(more);
  }

  async logout(): Promise<HttpAnswer> {
    const body = this.#document('logout', `<session-token>${escapeXml(this.token)}</session-token>`);
    return this.exchange('POST', '/', body);
  }

  async #open(): Promise<TlsClient> {
    const { certificate, version, serverName, countRecords } = this.#options;
    const tls = await TlsClient.open(this.#options, { certificate, version, serverName, countRecords });
    this.certificateHashes.push(sha1Hex(tls.certificate.raw));
    return tls;
  }

  #document(type: string, inner: string): string {
    const look = LOOKS[this.#options.platform ?? 'windows'];
    const head = `<version who="vpn">${look.version}</version>${look.device}`;
    return `<?xml version="1.0" encoding="UTF-8"?>\n<config-auth client="vpn" type="${type}" aggregate-auth-version="2">\n${head}\n${inner}\n</config-auth>\n`;
  }

  /** In the order of the Windows client (PROTOCOL §9.2); others are not known to differ in anything that counts. */
  #requestHeaders(body: string | Buffer | undefined): [string, string][] {
    const newest = this.strapKeys.at(-1);
    const cookies = this.#cookieHeader();
    return [
      ['Cache-Control', 'no-cache'],
      ['Connection', 'close'],
      ['Pragma', 'no-cache'],
      ['User-Agent', LOOKS[this.#options.platform ?? 'windows'].agent],
      ['X-Transcend-Version', '1'],
      ...(newest === undefined
        ? []
        : [['X-AnyConnect-STRAP-Pubkey', newest.spki.toString('base64')] satisfies [string, string]]),
      ['X-Aggregate-Auth', '1'],
      ...(cookies === '' ? [] : [['Cookie', cookies] satisfies [string, string]]),
      ...(body === undefined
        ? []
        : [['Content-Length', String(Buffer.byteLength(body))] satisfies [string, string]]),
      ['Host', 'vpn.example.test'],
    ];
  }

  #cookieHeader(): string {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
  }

  #newStrapKey(): { privateKey: KeyObject; spki: Buffer } {
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const pair = { privateKey, spki: publicKey.export({ type: 'spki', format: 'der' }) };
    this.strapKeys.push(pair);
    return pair;
  }

  #strapHeaders(tls: TlsClient): (readonly [string, string])[] {
    const old = this.strapKeys.at(-1);
    if (old === undefined) return [];
    const next = this.#newStrapKey();
    const finished = tls.socket.getFinished();
    if (finished === undefined) throw new Error('no Finished message');
    const signature = createSign('sha256').update(finished).update(next.spki).sign(old.privateKey);
    return [
      ['X-AnyConnect-STRAP-Verify', signature.toString('base64')],
      ['X-AnyConnect-STRAP-Pubkey', next.spki.toString('base64')],
    ];
  }
}

/** @throws when the answer is not a `config-auth` document. */
export function readStep(answer: HttpAnswer): Step {
  if (answer.status !== 200)
    throw new Error(`answer ${answer.status} ${answer.reason}: ${answer.body.toString()}`);
  const document = parseXml(answer.body.toString('utf8'));
  if (document.name !== 'config-auth') throw new Error(`not config-auth: ${answer.body.toString()}`);
  const auth = find(document, 'auth');
  return {
    answer,
    document,
    type: document.attributes.get('type') ?? '',
    authId: auth?.attributes.get('id') ?? '',
    fields: findAll(document, 'auth/form/input').map((input) => input.attributes.get('name') ?? ''),
    groups: findAll(document, 'auth/form/select/option').map((option) => ({
      value: option.attributes.get('value') ?? textOf(option),
      label: textOf(option),
      selected: option.attributes.get('selected') === 'true',
    })),
    message: textOf(find(document, 'auth/message')),
    error: shown(find(document, 'auth/error')),
    banner: textOf(find(document, 'auth/banner')),
  };
}

/** Text with `%s` replaced by param1 and param2, as clients show it. */
function shown(element: Element | undefined): string {
  const params = ['param1', 'param2'].map((name) => element?.attributes.get(name) ?? '');
  return textOf(element).replace(/%s/g, () => params.shift() ?? '');
}

const CAPABILITIES =
  '<capabilities><auth-method>multiple-cert</auth-method><auth-method>single-sign-on</auth-method><auth-method>single-sign-on-v2</auth-method></capabilities>';

const LOOKS: Record<Platform, { agent: string; version: string; device: string }> = {
  windows: {
    agent: 'AnyConnect Windows 4.10.07061',
    version: '4.10.07061',
    device: `<device-id computer-name="PC-17" device-type="ExampleBook 9" platform-version="10.0.19045 " unique-id="${'5a'.repeat(32)}" unique-id-global="${'c3'.repeat(20)}">win</device-id><mac-address-list><mac-address public-interface="true">02-00-5e-00-53-01</mac-address></mac-address-list>`,
  },
  ios: {
    agent: 'Cisco AnyConnect VPN Agent for Apple iPhone 4.10.05095',
    version: '4.10.05095',
    device: `<device-id device-type="iPhone12,1" platform-version="15.4" unique-id="${'6b'.repeat(20)}">apple-ios</device-id>`,
  },
  android: {
    agent: 'AnyConnect Android 4.10.05096',
    version: '4.10.05096',
    device: `<device-id device-type="Example Phone" platform-version="12" unique-id="${'7c'.repeat(20)}">android</device-id>`,
  },
};

const LEGACY_SUITES = 'DHE-RSA-AES256-SHA:DHE-RSA-AES128-SHA:AES256-SHA:AES128-SHA';
const MODERN_SUITES = `ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-GCM-SHA256:${LEGACY_SUITES}`;

const COMMON_CONNECT: readonly (readonly [string, string])[] = [
  ['X-CSTP-Version', '1'],
  ['X-CSTP-Address-Type', 'IPv6,IPv4'],
  ['X-CSTP-Full-IPv6-Capability', 'true'],
  ['X-CSTP-Base-MTU', '1500'],
  ['X-CSTP-Local-Address-IP4', '192.0.2.2'],
  ['X-CSTP-Remote-Address-IP4', '192.0.2.1'],
  ['X-CSTP-Accept-Encoding', 'lzs,deflate'],
  ['X-CSTP-Protocol', 'Copyright (c) 2004 Cisco Systems, Inc.'],
  ['X-DTLS-Master-Secret', 'A5'.repeat(48)],
  ['X-DTLS-CipherSuite', LEGACY_SUITES],
  ['X-DTLS12-CipherSuite', MODERN_SUITES],
  ['X-DTLS-Accept-Encoding', 'lzs'],
  ['X-DTLS-Header-Pad-Length', '0'],
];

function mobile(platform: string, version: string, device: string): (readonly [string, string])[] {
  return [
    ...COMMON_CONNECT,
    ['X-CSTP-Hostname', 'phone17'],
    ['X-CSTP-MTU', '1280'],
    ['X-CSTP-License', 'mobile'],
    ['X-AnyConnect-Identifier-ClientVersion', version],
    ['X-AnyConnect-Identifier-Platform', platform],
    ['X-AnyConnect-Identifier-PlatformVersion', '15.4'],
    ['X-AnyConnect-Identifier-DeviceType', device],
    ['X-AnyConnect-Identifier-Device-UniqueID', '6b'.repeat(20)],
  ];
}

const CONNECT_HEADERS: Record<Platform, readonly (readonly [string, string])[]> = {
  windows: [
    ...COMMON_CONNECT,
    ['X-CSTP-Hostname', 'PC-17'],
    ['X-CSTP-MTU', '1399'],
    ['X-CSTP-TCP-Keepalive', 'false'],
    ['X-CSTP-FIPS-Mode', 'disabled'],
  ],
  ios: mobile('apple-ios', '4.10.05095', 'iPhone12,1'),
  android: mobile('android', '4.10.05096', 'Example Phone'),
};
