import { Controller, Inject } from '@nestjs/common';
import type { Log } from '@sallyport/chassis';
import {
  AUTH_SERVICE,
  CATALOG_SERVICE,
  LOGIN_PATHS,
  LOGOUT_PATHS,
  profileOfPath,
  resourcePath,
  type AuthService,
  type CatalogService,
  type ClientFacts,
  type InsideRequest,
  type InsideResponse,
  type LoginAnswer,
  type LoginForm,
  type LoginGranted,
} from '@sallyport/cluster';
import {
  clearCookie,
  formatContextCookie,
  formatHintsCookie,
  formatTokenCookie,
  identifyClient,
  looksLikeXml,
  parseConfigAuth,
  parseCookies,
  parseForm,
  ProtocolError,
  reasonText,
  renderCertificateRequest,
  renderComplete,
  renderForm,
  renderLoggedOut,
  renderRefusal,
  type AuthReplyMessage,
  type Client,
  type ClientMessage,
  type Cookies,
  type InitMessage,
} from '@sallyport/protocol';
import { html, LANDING_PAGE, methodNotAllowed, NOT_FOUND_PAGE, xml } from './answers.ts';

/** Token of the log. */
export const PORTAL_LOG = Symbol('PortalLog');

/**
 * Phases 2 and 3 in HTTP terms (docs/protocol.md §3 and §4). Stateless: what a login knows is kept by auth. One request:
 *
 *   1. resource   from the table of routes
 *   2. message    XML, url-encoded or none: init, auth-reply, logout
 *   3. auth       begin, reply or logout
 *   4. document   in the style of the client, with cookies
 */
@Controller()
export class PortalController {
  readonly #auth: AuthService;
  readonly #catalog: CatalogService;
  readonly #log: Log;
  readonly #strangers = new Set<string>();

  constructor(
    @Inject(AUTH_SERVICE) auth: AuthService,
    @Inject(CATALOG_SERVICE) catalog: CatalogService,
    @Inject(PORTAL_LOG) log: Log,
  ) {
    this.#auth = auth;
    this.#catalog = catalog;
    this.#log = log;
  }

  /** @throws ProtocolError for what the edge answers with its status; faults of auth pass through. */
  async handle(request: InsideRequest): Promise<InsideResponse> {
    const path = resourcePath(request.target);
    const urlProfile = path === undefined ? undefined : profileOfPath(path);
    if (path === undefined) return html(404, NOT_FOUND_PAGE);
    if (LOGOUT_PATHS.includes(path))
      return this.#logout(parseCookies(request.headers['cookie'] ?? '').webvpn);
    if (urlProfile === undefined && !LOGIN_PATHS.includes(path)) return html(404, NOT_FOUND_PAGE);

    const talk = this.#talk(request, urlProfile ?? '');
    switch (request.method) {
      case 'HEAD':
        return path === '/' ? html(200, '') : html(404, '');
      case 'GET':
        if (isBrowser(request)) return path === '/' ? html(200, LANDING_PAGE) : html(404, NOT_FOUND_PAGE);
        return this.#init({ ...talk, asked: 'form' }, NO_WISHES);
      case 'POST':
        return this.#post(request, talk);
      default:
        return methodNotAllowed();
    }
  }

  #post(request: InsideRequest, talk: Talk): Promise<InsideResponse> {
    const body = UTF8.decode(request.body);
    const isXml = looksLikeXml(body);
    const message: ClientMessage = isXml ? parseConfigAuth(body) : parseForm(body);
    const asked = isXml ? 'xml' : 'form';
    switch (message.type) {
      case 'init':
        return this.#init({ ...talk, asked }, message);
      case 'auth-reply':
        return this.#reply({ ...talk, asked }, message);
      case 'logout':
        return this.#logout(message.token || talk.cookies.webvpn);
      case 'unexpected':
        throw new ProtocolError(`config-auth of unexpected type "${message.given}"`);
    }
  }

  async #init(talk: Talk, message: InitMessage): Promise<InsideResponse> {
    const { asked, cookies, facts } = talk;
    const urlProfile = talk.urlProfile || (profileOfPath(resourcePath(message.groupAccess) ?? '') ?? '');
    const client = withDevice(facts, message);
    const begin = (certificateFailed: boolean) =>
      this.#auth.begin({
        profile: message.groupSelect,
        urlProfile,
        client,
        certificateFailed,
        loginId: cookies.webvpncontext,
      });
    let answer = await begin(message.certificateFailed);
    // Only XML has words for asking for a certificate (docs/protocol.md §4.7).
    if (answer.certificateRequest && asked !== 'xml') answer = await begin(true);
    return this.#answer({ ...talk, urlProfile, facts: client }, answer);
  }

  /** The login is found by `<opaque>` or by its cookie: some clients lose the one, some the other. */
  async #reply(talk: Talk, message: AuthReplyMessage): Promise<InsideResponse> {
    const client = withDevice(talk.facts, message);
    const byCookie = talk.cookies.webvpncontext;
    const reply = (loginId: string) =>
      this.#auth.reply({
        loginId,
        answers: message.answers,
        profile: message.groupSelect || (loginId === '' ? talk.urlProfile : ''),
        client,
      });
    let answer = await reply(message.loginId || byCookie);
    if (
      answer.refused?.reason === 'login-expired' &&
      message.loginId &&
      byCookie &&
      byCookie !== message.loginId
    )
      answer = await reply(byCookie);
    return this.#answer({ ...talk, facts: client }, answer);
  }

  async #logout(token: string): Promise<InsideResponse> {
    if (token !== '') await this.#auth.logout({ token });
    return xml(renderLoggedOut(), [
      clearCookie('webvpn'),
      clearCookie('webvpnc'),
      clearCookie('webvpncontext'),
    ]);
  }

  #answer(talk: Talk, answer: LoginAnswer): Promise<InsideResponse> | InsideResponse {
    if (answer.form) return formAnswer(talk, answer.form);
    if (answer.granted) return this.#complete(talk, answer.granted);
    if (answer.certificateRequest) {
      return talk.asked === 'xml'
        ? xml(renderCertificateRequest(answer.certificateRequest), [])
        : refusal(talk, reasonText('certificate-required'));
    }
    const { reason, text } = answer.refused ?? REFUSED;
    // Whoever guesses paths is told nothing that a path without a service would not tell.
    if (reason === 'profile-unknown' && talk.urlProfile !== '' && !talk.speaksVpn)
      return html(404, NOT_FOUND_PAGE);
    return refusal(talk, text);
  }

  async #complete(talk: Talk, granted: LoginGranted): Promise<InsideResponse> {
    const { profileFile, sessionId, token, banner } = granted;
    const announced = await this.#catalog.announce({ profileFile, platform: talk.facts.platform });
    const serverCertificateSha1 = talk.servedLeafSha1;
    const document = renderComplete(
      { sessionId, token, title: TITLE, banner, serverCertificateSha1, ...announced },
      styleOf(talk),
    );
    return xml(document, [
      clearCookie('webvpncontext'),
      formatTokenCookie(token),
      clearCookie('webvpnc'),
      formatHintsCookie({ serverCertificateSha1, ...announced }),
    ]);
  }

  #talk(request: InsideRequest, urlProfile: string): Talk {
    const { headers, facts } = request;
    const client = identifyClient(headers);
    this.#noteStranger(client, headers['user-agent'] ?? '');
    return {
      client,
      speaksVpn: client.family !== 'unknown' || headers['x-transcend-version'] !== undefined,
      cookies: parseCookies(headers['cookie'] ?? ''),
      asked: 'form',
      urlProfile,
      servedLeafSha1: facts.servedLeafSha1,
      facts: clientFacts(request, client),
    };
  }

  /** An agent that nobody knows is served like openconnect; the log names each once. */
  #noteStranger(client: Client, agent: string): void {
    const name = printable(agent, MAX_AGENT_IN_LOG);
    if (client.family !== 'unknown' || this.#strangers.size >= MAX_STRANGERS || this.#strangers.has(name))
      return;
    this.#strangers.add(name);
    this.#log.info({ agent: name }, 'unknown client');
  }
}

/** One request as far as its answer depends on it. */
interface Talk {
  client: Client;
  /** Says that it is a VPN client, so it gets documents and not pages. */
  speaksVpn: boolean;
  cookies: Cookies;
  /** In which of the two dialects. */
  asked: 'xml' | 'form';
  /** From the path, or from `<group-access>`; '' = none. */
  urlProfile: string;
  servedLeafSha1: string;
  facts: ClientFacts;
}

function formAnswer(talk: Talk, form: LoginForm): InsideResponse {
  // Without it the client would lose the profile that its URL named (docs/protocol.md §4.3).
  const action = talk.urlProfile === '' ? LOGIN_ACTION : `/${encodeURIComponent(talk.urlProfile)}`;
  return xml(renderForm({ ...form, action }, styleOf(talk)), [formatContextCookie(form.loginId)]);
}

function refusal(talk: Talk, text: string): InsideResponse {
  return xml(renderRefusal(text, styleOf(talk)), [clearCookie('webvpncontext')]);
}

function styleOf(talk: Talk): 'bare' | 'config-auth' {
  return talk.client.quirks.bareAuth ? 'bare' : 'config-auth';
}

function clientFacts({ headers, facts }: InsideRequest, client: Client): ClientFacts {
  const strapKey = headers['x-anyconnect-strap-pubkey'] ?? '';
  return {
    address: facts.clientAddress,
    userAgent: printable(headers['user-agent'] ?? '', MAX_AGENT_LENGTH),
    platform: client.platform,
    strapKey: STRAP_KEY.test(strapKey) ? strapKey : '',
    serverName: facts.serverName,
    ...(facts.certificate && { certificate: facts.certificate }),
  };
}

function withDevice(facts: ClientFacts, { device }: InitMessage | AuthReplyMessage): ClientFacts {
  return { ...facts, platform: facts.platform || printable(device.platform, MAX_PLATFORM_LENGTH) };
}

function isBrowser({ headers }: InsideRequest): boolean {
  if (headers['x-transcend-version'] !== undefined || headers['x-aggregate-auth'] !== undefined) return false;
  return /^mozilla\//i.test(headers['user-agent'] ?? '') || /\btext\/html\b/i.test(headers['accept'] ?? '');
}

function printable(text: string, length: number): string {
  return text.slice(0, length).replace(/[^\x20-\x7e]/g, '?');
}

const NO_WISHES: InitMessage = {
  type: 'init',
  groupSelect: '',
  groupAccess: '',
  device: { platform: '', version: '', computerName: '' },
  capabilities: [],
  certificateFailed: false,
};
/** Fail closed: an answer of auth that holds nothing is a no. */
const REFUSED = { reason: 'login-failed', text: 'Login failed.' } as const;
const TITLE = 'VPN';
const LOGIN_ACTION = '/auth';
const UTF8 = new TextDecoder('utf-8', { ignoreBOM: true });
/** base64 of an SPKI; one of P-256 has 124 characters. */
const STRAP_KEY = /^[A-Za-z0-9+/]{64,512}={0,2}$/;

export const MAX_AGENT_LENGTH = 256;
export const MAX_STRANGERS = 256;
const MAX_AGENT_IN_LOG = 80;
const MAX_PLATFORM_LENGTH = 64;
