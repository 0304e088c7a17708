/** `return-path: routed` with slices, and BIRD or FRR on the node as docs/return-path.md configures them. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  ALICE,
  BOB,
  documented,
  eventually,
  run,
  startBird,
  startFrr,
  World,
  type Lab,
  type Openconnect,
} from '../harness/index.ts';

/** Of alice, who is away from home with it. */
const AWAY = '10.77.0.200';
const [HOME4, HOME6] = ['10.77.0.0/25', 'fd00:77::/65'];
const [VIA4, VIA6] = ['198.51.100.1', '2001:db8:2::1'];

const DAEMONS = [
  { name: 'BIRD', start: (lab: Lab) => startBird(lab, lab.gateway, 'node', documented('bird node')) },
  { name: 'FRR', start: (lab: Lab) => startFrr(lab, lab.gateway, 'frr', documented('frr node')) },
];

for (const daemon of DAEMONS) {
  describe(`a node with a slice, and ${daemon.name}`, () => {
    let world: World;
    let lab: Lab;
    let socket: string;
    let alice: Openconnect;
    let bob: Openconnect;

    before(async () => {
      world = await World.open({
        ...{ clients: 2, lanRoute: false },
        settings: {
          'return-path': 'routed',
          node: { name: 'n1', number: 1, slices: 2 },
          users: { [ALICE.name]: { 'explicit-ipv4': AWAY } },
        },
      });
      ({ lab } = world);
      await daemon.start(lab);
      socket = await startBird(lab, lab.lan, 'router', documented('bird router'));
    });
    after(() => world?.close());

    test('the network has the slice before anybody is there, and nobody behind it is unreachable, not silent', async () => {
      await eventually(
        'the slice',
        async () => (await wayTo(HOME4)) === VIA4 && (await wayTo(HOME6)) === VIA6,
      );
      for (const address of ['10.77.0.99', 'fd00:77::99']) {
        const ping = ['ping', '-n', '-c', '1', '-W', '5', address];
        const { stdout } = await lab.exec(lab.lan, ping, { anyCode: true });
        assert.match(stdout, /Destination (Host Unreachable|unreachable: Address unreachable)/, address);
      }
    });

    test('a client at home is reached by the slice, one that is away by a route of its own', async () => {
      bob = await world.connected(BOB, { namespace: lab.client(1) });
      alice = await world.connected(ALICE);
      assert.equal(alice.tunnel?.ipv4, AWAY);
      assert.match(bob.tunnel?.ipv4 ?? '', /^10\.77\.0\.(\d\d?|1[01]\d|12[0-7])$/);
      await eventually('the route of alice', async () => (await wayTo(AWAY)) === VIA4);
      for (const address of [alice, bob].flatMap(({ tunnel }) => [tunnel?.ipv4 ?? '', tunnel?.ipv6 ?? '']))
        assert.equal(await lab.ping(address, { namespace: lab.lan }), 3, address);
      assert.equal(await lab.ping(lab.lanIpv4), 3);
      assert.equal(await lab.ping(lab.lanIpv6), 3);
    });

    test('BFD watches the node, and neither side keeps routes of one that is gone', async () => {
      await eventually('BFD over IPv4 and IPv6', async () => {
        const sessions = await birdc('show', 'bfd', 'sessions');
        return [VIA4, VIA6].every((address) => new RegExp(`^${address}\\s+\\S+\\s+Up`, 'm').test(sessions));
      });
      const protocols = await birdc('show', 'protocols', 'all', 'node4');
      assert.match(protocols, /Neighbor capabilities/);
      assert.doesNotMatch(protocols, /Graceful restart/i);
    });

    test('a device that is set down and up has all its routes again', async () => {
      // The kernel drops the routes with the first.
      for (const state of ['down', 'up'])
        await lab.exec(lab.gateway, ['ip', 'link', 'set', 'sallyport0', state]);
      const ours = async () => {
        const lists = ['-4', '-6'].map((family) =>
          run(['ip', '-n', lab.gateway, family, 'route', 'show', 'proto', '183']),
        );
        return (await Promise.all(lists)).map(({ stdout }) => stdout).join('');
      };
      await eventually('they are back', async () => {
        const routes = await ours();
        return [HOME4, HOME6, AWAY].every((prefix) => routes.includes(`${prefix} `));
      });
      await eventually('the network has them', async () => {
        return (await lab.ping(AWAY, { namespace: lab.lan })) === 3 && (await wayTo(HOME6)) === VIA6;
      });
    });

    test('who leaves takes the own route along and not the slice, and a process that dies takes all', async () => {
      await alice.stop();
      await eventually('the route of alice is gone', async () => (await wayTo(AWAY)) === '');
      assert.equal(await wayTo(HOME4), VIA4);
      await world.gateway.kill();
      await eventually(
        'nothing is left',
        async () => (await wayTo(HOME4)) === '' && (await wayTo(HOME6)) === '',
      );
    });

    /** @returns next hop on the router of exactly this prefix; '' = it has no route. */
    async function wayTo(prefix: string): Promise<string> {
      const family = prefix.includes(':') ? ['-6'] : ['-4'];
      const { stdout } = await run(['ip', '-n', lab.lan, ...family, 'route', 'show', 'exact', prefix]);
      return /via (\S+)/.exec(stdout)?.[1] ?? '';
    }

    async function birdc(...command: string[]): Promise<string> {
      return (await run(['birdc', '-s', socket, ...command])).stdout;
    }
  });
}
