/**
 * `npm run demo`: one login and one tunnel, phase by phase, with the real openconnect.
 *
 *   client ──── TLS ──── gateway ──── office host      each in a network namespace of its own
 *
 * Everything shown is read from what happened: openconnect's record of the HTTP traffic, the tunnel itself, and the
 * gateway's answer to `show users`. Nothing outside the namespaces is touched; everything is removed at the end.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  AnyConnect,
  Authority,
  basicSettings,
  eventually,
  Gateway,
  header,
  Lab,
  Openconnect,
  parseXml,
  pinOf,
  readStep,
  run,
  sha1Of,
  textOf,
  find,
  findAll,
  userLine,
  type Element,
  type Step,
} from '../harness/index.ts';
import { bold, busy, check, cyan, dim, green, idle, note, phase, red, say, title, wire } from './screen.ts';
import { exchangesOf, headersOf, tlsOf, type Exchange } from './wire.ts';

interface Options {
  keep: boolean;
  anyconnect: boolean;
}

interface Scene {
  lab: Lab;
  gateway: Gateway;
  pin: string;
  certSha1: string;
  password: string;
}

async function main(argv: readonly string[]): Promise<boolean> {
  const options = parseArguments(argv);
  if (options === undefined) return argv.includes('--help');
  await requireTools();
  const lab = await Lab.open({ lanRoute: false });
  try {
    const scene = await prepare(lab);
    drawScene(scene);
    const client = await logIn(scene);
    let good = await tellStory(scene, client);
    if (options.anyconnect) good = (await tellAnyConnect(scene)) && good;
    if (options.keep && good) await keepUp(scene);
    if (scene.gateway.running) good = (await endStory(scene, client)) && good;
    else {
      note('The gateway is gone already, so the end of the session is not shown.');
      // Only in `keepUp` it may have been told to go.
      return options.keep && good;
    }
    if (good) say(green('     Everything worked.'));
    return good;
  } finally {
    idle();
    await lab.close();
    say(dim('     All namespaces, processes and files of this demonstration are removed.'));
  }
}

function parseArguments(argv: readonly string[]): Options | undefined {
  const unknown = argv.filter((word) => !['--keep', '--anyconnect'].includes(word));
  if (unknown.length > 0) {
    say('npm run demo [-- [--keep] [--anyconnect]]');
    say('  --keep        stay up afterwards; Ctrl-C removes everything');
    say("  --anyconnect  also show a scripted AnyConnect for Windows, Cisco's client as documented");
    return undefined;
  }
  return { keep: argv.includes('--keep'), anyconnect: argv.includes('--anyconnect') };
}

/** @throws one sentence that says what to do. */
async function requireTools(): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new Error('the demonstration makes network namespaces: run it as root.');
  if (!existsSync('/dev/net/tun'))
    throw new Error('/dev/net/tun is missing: load the kernel module "tun" (modprobe tun).');
  for (const [program, debian] of TOOLS) {
    const { code } = await run(['sh', '-c', `command -v ${program}`], { anyCode: true });
    if (code !== 0) throw new Error(`${program} is missing: apt-get install ${debian}`);
  }
}

async function prepare(lab: Lab): Promise<Scene> {
  busy('making client, gateway and office, each in a namespace of its own');
  const password = randomBytes(9).toString('base64url');
  const server = await (
    await Authority.create(join(lab.folder, 'pki'), 'Demo CA')
  ).server('ecdsa', 'vpn.example.test', [lab.gatewayIpv4]);
  writeFileSync(join(lab.folder, 'users'), await userLine(USER, password, ['staff']), { mode: 0o600 });
  writeFileSync(join(lab.folder, 'profile.xml'), CLIENT_PROFILE);
  const page = lab.spawn(lab.lan, [process.execPath, '-e', PAGE_SERVER, lab.lanIpv4]);
  busy('starting the gateway');
  const gateway = await Gateway.start(lab, {
    ...basicSettings(server, join(lab.folder, 'users')),
    'return-path': 'nat',
    banner: 'Welcome. Authorised use only.',
    'profile-file': join(lab.folder, 'profile.xml'),
  });
  await eventually('the office host serves its page', () => page.output().includes('ready'));
  return { lab, gateway, pin: pinOf(server.cert), certSha1: sha1Of(server.cert), password };
}

function drawScene({ lab }: Scene): void {
  idle();
  title('Sallyport: one login and one tunnel, phase by phase');
  say();
  say(`   ${bold('client')}                     ${bold('gateway')}                        ${bold('office')}`);
  say(
    `   ${lab.clientIpv4}  ${cyan('════ TLS ════')}  ${lab.gatewayIpv4}  198.51.100.1  ${green('────')}  ${lab.lanIpv4}`,
  );
  say(dim('   real openconnect           port 443                       a page that only the'));
  say(dim('                              NAT into the office            office network reaches'));
}

async function logIn({ lab, pin, password }: Scene): Promise<Openconnect> {
  busy('openconnect logs in');
  writeFileSync(join(lab.folder, 'copy.xml'), '<AnyConnectProfile/>\n');
  const client = Openconnect.start({
    lab,
    pin,
    user: USER,
    // As a person answers the prompts: group, then password.
    answers: [GROUP, password],
    more: ['--dump-http-traffic', '--xmlconfig', join(lab.folder, 'copy.xml')],
  });
  await client.whenUp();
  idle();
  return client;
}

async function tellStory(scene: Scene, client: Openconnect): Promise<boolean> {
  const exchanges = exchangesOf(client.output);
  const connect = exchanges.find(({ method }) => method === 'CONNECT');
  const posts = exchanges.filter(({ method }) => method === 'POST');
  const gets = exchanges.filter(({ method }) => method === 'GET');
  tellHandshake(scene, client.output);
  tellPosts(posts);
  tellDownloads(gets);
  if (connect !== undefined) tellConnect(connect);
  phase('6', 'DTLS', 'not offered yet, the tunnel stays on TLS');
  return provePassage(scene, client);
}

function tellHandshake(scene: Scene, output: string): void {
  phase('1', 'TLS handshake');
  wire('→', 'ClientHello', `to ${scene.lab.gatewayIpv4}, port 443`);
  wire('←', tlsOf(output), 'agreed; the gateway shows its certificate');
  note(`a test certificate; the client was told its pin ${scene.pin.slice(11, 27)}…`);
}

function tellPosts(posts: readonly Exchange[]): void {
  let login = false;
  phase('2', 'Group selection', 'POST, XML in both directions');
  for (const post of posts) {
    const request = documentOf(post.requestBody);
    if (request?.attributes.get('type') === 'auth-reply' && !login) {
      login = true;
      phase('3', 'User authentication', 'POST, XML in both directions');
    }
    wire('→', `POST ${post.path}`, request === undefined ? 'a form' : meaningOfRequest(request));
    wire('←', `${post.status}`, meaningOfAnswer(post));
  }
}

function meaningOfRequest(request: Element): string {
  const group = textOf(find(request, 'group-select'));
  if (request.attributes.get('type') === 'auth-reply') {
    const fields = findAll(request, 'auth').flatMap(({ children }) =>
      children.filter((child) => typeof child !== 'string'),
    );
    const shown = fields.map(
      (field) => `${field.name} ${field.name.includes('password') ? MASK : textOf(field)}`,
    );
    return `auth-reply: ${shown.join(', ')}`;
  }
  const device = textOf(find(request, 'device-id'));
  return group === '' ? `init from ${device}: which groups are there?` : `init: group ${group}, please`;
}

function meaningOfAnswer(post: Exchange): string {
  const document = documentOf(post.body);
  if (document === undefined) return 'no document';
  if (document.attributes.get('type') === 'complete') {
    const token = textOf(find(document, 'session-token'));
    const id = textOf(find(document, 'session-id'));
    return `complete: session ${id.slice(0, 8)}…, a token ${MASK} (${token.length})`;
  }
  const groups = findAll(document, 'auth/form/select/option').map(textOf);
  const fields = findAll(document, 'auth/form/input').map((input) => input.attributes.get('name') ?? '');
  return `form: ${fields.join(', ')}${groups.length === 0 ? '' : `; groups ${groups.join(', ')}`}`;
}

function tellDownloads(gets: readonly Exchange[]): void {
  phase('4', 'Downloader', 'what the success document announced, by hash');
  for (const get of gets) {
    wire(
      '→',
      `GET …/${get.path.split(/\/|%2F/i).at(-1) ?? ''}`,
      'the client profile: its copy has another SHA-1',
    );
    wire(
      '←',
      `${get.status}`,
      `${headersOf(get.headers, 'content-length')[0] ?? '?'} bytes, hash as announced`,
    );
  }
  if (gets.length === 0) note('nothing was announced that openconnect lacks');
}

function tellConnect(connect: Exchange): void {
  phase('5', 'CSTP CONNECT', 'the connection becomes the tunnel');
  wire('→', 'CONNECT /CSCOSSLC/tunnel', `with the token: Cookie: webvpn=${MASK}`);
  wire('←', `${connect.status}`, 'and what the client may use:');
  for (const name of SHOWN_HEADERS) {
    for (const value of headersOf(connect.headers, name)) note(`${`${name}:`.padEnd(25)} ${value}`);
  }
  note('from here on each IP packet is one TLS record: 8 bytes of header, then the packet');
}

async function provePassage({ lab, gateway }: Scene, client: Openconnect): Promise<boolean> {
  title('Through the tunnel');
  const tunnel = client.tunnel;
  const pings = await lab.ping(lab.lanIpv4, { count: 4 });
  let good = check(pings === 4, `ping ${lab.lanIpv4}: ${pings} of 4 answers`);
  const ipv6 = await lab.ping(lab.lanIpv6, { count: 4 });
  good = check(ipv6 === 4, `ping ${lab.lanIpv6}: ${ipv6} of 4 answers`) && good;
  const { stdout } = await lab.exec(lab.client(), [process.execPath, '-e', FETCH, `http://${lab.lanIpv4}/`], {
    anyCode: true,
  });
  good = check(stdout.includes('office'), `GET http://${lab.lanIpv4}/: "${stdout.trim()}"`) && good;
  const shown = (await gateway.users()).find((user) => user['Username'] === USER);
  good = check(shown?.['IPv4'] === tunnel?.ipv4, `sallyport show users: ${describeUser(shown)}`) && good;
  return good;
}

function describeUser(user: Record<string, unknown> | undefined): string {
  if (user === undefined) return 'nobody';
  const shown = ['Username', 'IPv4', 'IPv6'].map((key) => {
    const value = user[key];
    return `${key} ${typeof value === 'string' || typeof value === 'number' ? value : '-'}`;
  });
  return shown.join(', ');
}

async function endStory({ lab, gateway }: Scene, client: Openconnect): Promise<boolean> {
  title('The end');
  let good = check((await client.stop()) === 0, 'openconnect says goodbye (BYE 0xb0): its session is over');
  good =
    check((await eventsOf(gateway)).endsWith('ended'), `sallyport show events: ${await eventsOf(gateway)}`) &&
    good;
  good = check((await gateway.stop()) === 0, 'the gateway stops in the planned way') && good;
  const { stdout: rules } = await lab.exec(lab.gateway, ['nft', 'list', 'ruleset']);
  const { stdout: links } = await lab.exec(lab.gateway, ['ip', '-br', 'link', 'show', 'type', 'tun']);
  good = check(rules.trim() === '' && links.trim() === '', 'its NAT rules and its device are gone') && good;
  return good;
}

/** Types of the events of the demonstration's user, in order. */
async function eventsOf(gateway: Gateway): Promise<string> {
  const { stdout } = await gateway.cli(['show', 'events', '--once', '-j']);
  const types = stdout
    .split('\n')
    .flatMap((line) => /"type":"([^"]+)"/.exec(line.includes(`"${USER}"`) ? line : '')?.[1] ?? []);
  return types.join(', ');
}

async function tellAnyConnect({ lab, certSha1, password }: Scene): Promise<boolean> {
  title('Beside it: a scripted AnyConnect 4.10 for Windows');
  note("Cisco's client is not here; this one follows its documented flow,");
  note('each request on a TLS connection of its own.');
  const client = new AnyConnect({ lab, platform: 'windows', strap: true });
  phase('1+2', 'TLS and group selection');
  describeStep('init', await client.init());
  describeStep('init, another group: Guests', await client.chooseGroup('Guests'));
  phase('3', 'User authentication');
  const granted = await client.reply({ username: USER, password });
  describeStep('auth-reply, <opaque> written differently than it came', granted);
  phase('4', 'Downloader', 'a program of its own, on new TLS connections');
  for (const item of await client.download()) {
    const name = item.path.split('?')[0]?.split('/').at(-1) ?? '';
    const hash = item.announcedSha1 === '' ? '' : ', SHA-1 as announced';
    wire('→', `GET …/${name}`, `${item.status}, ${item.bytes} bytes${hash}`);
  }
  let good = check(
    client.certificateHashes.every((hash) => hash === certSha1),
    `all ${client.certificateHashes.length} connections showed the announced certificate`,
  );
  phase('5', 'CSTP CONNECT', 'the agent, one more program; signed with STRAP');
  const { answer, channel, postAuth } = await client.connect();
  wire('→', 'CONNECT /CSCOSSLC/tunnel', `with the token ${MASK}`);
  wire(
    '←',
    `${answer.status}`,
    `${header(answer, 'X-CSTP-Address') ?? '-'}, MTU ${header(answer, 'X-CSTP-MTU') ?? '-'}`,
  );
  good = check(postAuth?.name === 'config-auth', 'X-CSTP-Post-Auth-XML reads back as config-auth') && good;
  channel.send(3, Buffer.from('alive?'));
  const echo = (await channel.next(4)).payload.toString();
  good = check(echo === 'alive?', 'dead peer detection: the gateway answers with the same bytes') && good;
  phase('6', 'DTLS', 'not offered yet');
  channel.bye(0xb0);
  await channel.whenClosed();
  good = check((await client.logout()).status === 200, 'BYE, then the logout document') && good;
  return good;
}

function describeStep(what: string, step: Step): void {
  wire('→', 'POST', what);
  const groups = step.groups.map(({ label, selected }) => (selected ? `[${label}]` : label));
  const answer =
    step.authId === 'success'
      ? 'complete: a token and what to download'
      : `form: ${step.fields.join(', ')}; groups ${groups.join(', ')}`;
  wire('←', `${readStep(step.answer).answer.status}`, answer);
}

async function keepUp({ lab, gateway, pin, password }: Scene): Promise<void> {
  title('Everything stays up. Try:');
  const lines: [string, string][] = [
    [`ip netns exec ${lab.client()} bash`, 'you are the client; there:'],
    [`  ping ${lab.lanIpv4}`, 'the office host'],
    [`  curl http://${lab.lanIpv4}/`, 'its page'],
    ['  ip route; ip addr show tun0', 'what the gateway handed out'],
    [`bin/sallyport show users -s ${gateway.socket}`, 'who is there'],
    [`bin/sallyport show events -s ${gateway.socket}`, 'what happened'],
    [`kill -9 ${gateway.pid}`, 'the gateway dies; Ctrl-C then cleans up'],
  ];
  for (const [command, meaning] of lines) say(`   ${command}   ${dim(`# ${meaning}`)}`);
  say();
  say(`   Another client: ${dim(`user ${USER}, password ${password}`)}`);
  say(
    `   ip netns exec ${lab.client()} openconnect https://${lab.gatewayIpv4} --servercert ${pin} --user ${USER}`,
  );
  say();
  say(bold('   Ctrl-C removes everything.'));
  const timer = setInterval(() => {}, 1 << 30);
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve());
  });
  clearInterval(timer);
}

function documentOf(text: string): Element | undefined {
  try {
    return parseXml(text);
  } catch {
    return undefined;
  }
}

const USER = 'demo';
const GROUP = 'Guests';
const MASK = '••••••';
const TOOLS = [
  ['ip', 'iproute2'],
  ['openconnect', 'openconnect'],
  ['openssl', 'openssl'],
  ['ping', 'iputils-ping'],
  ['nft', 'nftables'],
] as const;
const SHOWN_HEADERS = [
  'X-CSTP-Address',
  'X-CSTP-Address-IP6',
  'X-CSTP-DNS',
  'X-CSTP-Split-Include',
  'X-CSTP-Split-Include-IP6',
  'X-CSTP-MTU',
  'X-CSTP-DPD',
  'X-CSTP-Rekey-Method',
];
const CLIENT_PROFILE = `<?xml version="1.0" encoding="UTF-8"?>
<AnyConnectProfile xmlns="http://schemas.xmlsoap.org/encoding/">
 <ServerList><HostEntry><HostName>Demo</HostName><HostAddress>vpn.example.test</HostAddress></HostEntry></ServerList>
</AnyConnectProfile>
`;
const PAGE_SERVER =
  "require('http').createServer((q, r) => r.end('Hello from the office host.\\n')).listen(80, process.argv[1], () => console.log('ready'))";
const FETCH =
  "require('http').get(process.argv[1], { timeout: 5000 }, (r) => r.pipe(process.stdout)).on('error', (e) => { console.log(e.message); process.exit(1) })";

main(process.argv.slice(2)).then(
  (good) => {
    process.exitCode = good ? 0 : 1;
  },
  (error: unknown) => {
    idle();
    say(red(`demo: ${error instanceof Error ? error.message : String(error)}`));
    process.exitCode = 1;
  },
);
