import 'reflect-metadata';
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { NestFactory } from '@nestjs/core';
import { Transport, type MicroserviceOptions } from '@nestjs/microservices';
import {
  AUTH_WIRE,
  authClient,
  type AuthService,
  type BeginRequest,
  type LoginAnswer,
  type ReplyRequest,
} from '@sallyport/cluster';
import { begin, client, fakeAuth, formOf, line, PASSWORD, reply } from './auth.fake.ts';
import { AuthModule } from './auth.module.ts';
import { fakeProfile } from './settings.fake.ts';

/*
 * The contract: what a client sees over gRPC is what a call in the same process gives. Random parts (handles, tokens,
 * session ids) are masked; each question is asked both ways.
 */

let close: () => Promise<void>;
let inProcess: AuthService;
let overGrpc: AuthService;
let seen: (BeginRequest | ReplyRequest)[];

before(async () => {
  const fake = await fakeAuth({
    users: (await line('alice', 'staff')) + (await line('__proto__', '*')),
    settings: {
      preLoginBanner: 'Fußgänger & <Co>',
      profiles: {
        staff: fakeProfile('staff', { label: 'Staff', policy: { banner: 'hello', profileFile: '/p.xml' } }),
        ops: fakeProfile('ops', { allowGroups: ['ops'] }),
        cert: fakeProfile('cert', { methods: ['certificate'] }),
      },
    },
  });
  inProcess = fake.auth;
  seen = [];
  const { flow } = fake.parts;
  const [begin, reply] = [flow.begin.bind(flow), flow.reply.bind(flow)];
  flow.begin = (request) => (seen.push(request), begin(request));
  flow.reply = (request) => (seen.push(request), reply(request));

  const dir = await mkdtemp(join(tmpdir(), 'sallyport-grpc-'));
  const url = `unix:${join(dir, 'auth.sock')}`;
  const { package: name, protoPath, loader } = AUTH_WIRE;
  const app = await NestFactory.createMicroservice<MicroserviceOptions>(AuthModule.with(fake.parts), {
    transport: Transport.GRPC,
    options: { url, package: name, protoPath, loader },
    logger: false,
  });
  await app.listen();
  const wired = await authClient({ addresses: [url] });
  overGrpc = wired;
  close = async () => {
    wired.close();
    await app.close();
    await fake.close();
    await rm(dir, { recursive: true });
  };
});

after(() => close());

test('forms, refusals, requests for a certificate and grants are the same both ways', async () => {
  const certificate = { verified: false, problem: 'expired', der: new Uint8Array([0, 1, 2, 255]) };
  const questions: [string, (auth: AuthService) => Promise<LoginAnswer>][] = [
    ['form', (auth) => auth.begin(begin())],
    ['form', (auth) => auth.begin(begin({ profile: 'OPS' }))],
    ['form', (auth) => auth.begin(begin({ urlProfile: 'staff' }))],
    ['refused', (auth) => auth.begin(begin({ urlProfile: 'nix' }))],
    ['certificateRequest', (auth) => auth.begin(begin({ profile: 'cert' }))],
    ['refused', (auth) => auth.begin(begin({ profile: 'cert', certificateFailed: true }))],
    ['refused', (auth) => auth.begin(begin({ profile: 'cert', client: client({ certificate }) }))],
    ['form', (auth) => loggedIn(auth, { username: 'alice', password: 'wrong' })],
    ['form', (auth) => loggedIn(auth, { username: 'alice' })],
    ['granted', (auth) => loggedIn(auth, { username: 'alice', password: PASSWORD })],
    ['granted', (auth) => loggedIn(auth, { username: '__proto__', password: PASSWORD })],
    ['refused', (auth) => loggedIn(auth, { username: 'alice', password: PASSWORD }, 'ops')],
    ['refused', (auth) => auth.reply({ loginId: 'x', answers: {}, profile: '', client: client() })],
  ];
  for (const [kind, ask] of questions) {
    const direct = await ask(inProcess);
    const wired = await ask(overGrpc);
    assert.deepEqual(Object.keys(wired), [kind], 'exactly one is set');
    assert.deepEqual(masked(wired), masked(direct));
  }
});

test('logout and lookup are the same both ways', async () => {
  const token = async (auth: AuthService) =>
    (await loggedIn(auth, { username: 'alice', password: PASSWORD })).granted?.token ?? '';
  for (const auth of [inProcess, overGrpc]) {
    const mine = await token(auth);
    const live = await auth.lookup({ token: mine });
    assert.deepEqual(masked(live), {
      live: true,
      sessionId: '',
      profile: 'staff',
      group: 'staff',
      profileFile: '/p.xml',
    });
    assert.deepEqual(await auth.logout({ token: mine }), { ended: true });
    assert.deepEqual(await auth.logout({ token: mine }), { ended: false });
    const ended = { live: false, sessionId: '', profile: '', group: '', profileFile: '' };
    assert.deepEqual(await auth.lookup({ token: mine }), ended);
  }
});

test('a request arrives as it was sent: maps, bytes, empty texts, and an absent certificate is absent', async () => {
  const certificate = { verified: true, problem: '', der: new Uint8Array([0, 1, 2, 255]) };
  const answers = { username: '', password: 'ü\u0001"', __proto__x: 'y', ['__proto__']: 'z' };
  for (const facts of [client(), client({ certificate, strapKey: 'k' })]) {
    seen.length = 0;
    const sent = { loginId: 'gone', answers, profile: '', client: facts };
    await overGrpc.reply(sent);
    const [arrived] = seen;
    assert.deepEqual(plain(arrived), plain(sent));
    assert.equal(Object.hasOwn(arrived?.client ?? {}, 'certificate'), facts.certificate !== undefined);
  }
});

async function loggedIn(
  auth: AuthService,
  answers: Record<string, string>,
  profile = '',
): Promise<LoginAnswer> {
  return auth.reply(reply(formOf(await auth.begin(begin({ profile }))), answers));
}

/** Random parts must be there, and nothing more is asked of them. */
function masked(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (key, member: unknown) => {
      if (!['loginId', 'token', 'sessionId'].includes(key)) return member;
      assert.equal(typeof member, 'string', key);
      return '';
    }),
  );
}

/** Bytes as lists, so that a Buffer equals a Uint8Array. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (typeof value !== 'object' || value === null) return value;
  return Object.entries(value)
    .map(([key, member]) => [key, plain(member)])
    .sort();
}
