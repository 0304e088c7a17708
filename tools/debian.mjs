// Debian packages that each part of the project needs, and how to see without apt whether they are there.
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Installs the Debian packages of the profiles that are missing; calls apt only when something is.
 * @param {string[]} profiles keys of NEEDS
 * @throws {Error} with one sentence that says what to install, when we cannot do it ourselves
 */
export function installMissingPackages(profiles) {
  const packages = missingPackages(profiles);
  if (packages.length === 0) return;
  const list = packages.join(' ');
  if (!findTool('apt-get')) {
    throw new Error(
      `This machine lacks what Debian packages as ${list}: install it with your system's package manager and start again.`,
    );
  }
  if (process.getuid?.() !== 0) {
    throw new Error(
      `Some Debian packages are missing and only root may install them: run "sudo apt-get install -y --no-install-recommends ${list}" and start again.`,
    );
  }
  console.error(`Installing Debian packages: ${list}`);
  apt(['update']);
  withoutServices(() => apt(['install', '-y', '--no-install-recommends', ...packages]));
  const still = missingPackages(profiles);
  if (still.length > 0) {
    throw new Error(
      `apt-get ended well, but what belongs to ${still.join(', ')} is still not there: look at "dpkg -L ${still[0]}".`,
    );
  }
}

/** @param {string[]} profiles */
export function missingPackages(profiles) {
  const needs = profiles.flatMap((profile) => NEEDS[profile] ?? []);
  return [...new Set(needs.filter((need) => !isThere(need)).map((need) => need.package))];
}

/** @param {string} name @returns {string | undefined} path of the program, also where root's programs lie */
export function findTool(name) {
  const folders = [
    ...(process.env.PATH ?? '').split(':'),
    '/usr/local/sbin',
    '/usr/sbin',
    '/sbin',
    '/usr/bin',
    '/bin',
  ];
  return folders
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

function isThere(need) {
  return need.file ? existsSync(need.file) : findTool(need.tool) !== undefined;
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function apt(args) {
  const result = spawnSync('apt-get', ['-q', '-o', 'DPkg::Lock::Timeout=300', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
  });
  if (result.status === 0) return;
  console.error((result.stdout ?? '') + (result.stderr ?? ''));
  throw new Error(`"apt-get ${args.join(' ')}" failed (its words are above): mend that and start again.`);
}

/**
 * Debian starts the daemon of a package when it is installed; we need the programs alone. The policy that forbids it holds
 * while this process lives and no longer, so one that a kill leaves behind forbids nothing; the next install takes it away.
 * A policy of somebody else stays as it is.
 * @param {() => void} install
 * @param {string} policy
 */
export function withoutServices(install, policy = '/usr/sbin/policy-rc.d') {
  const foreign = existsSync(policy) && !readFileSync(policy, 'utf8').includes(POLICY_MARK);
  if (foreign) return install();
  // Ctrl-C ends apt-get, and we go on to take the policy away.
  const wait = () => undefined;
  process.on('SIGINT', wait).on('SIGTERM', wait);
  try {
    rmSync(policy, { force: true });
    writeFileSync(
      policy,
      `#!/bin/sh\n# ${POLICY_MARK}\nkill -0 ${process.pid} 2>/dev/null && exit ${FORBIDDEN}\nexit 0\n`,
      { mode: 0o755 },
    );
    install();
  } finally {
    rmSync(policy, { force: true });
    process.off('SIGINT', wait).off('SIGTERM', wait);
  }
}

const POLICY_MARK = 'of sallyport: starts no service while it installs packages';
/** "Action forbidden by policy", of invoke-rc.d. */
const FORBIDDEN = 101;

const NEEDS = {
  // The TUN package is compiled when it is installed; nft and ip are what the gateway calls.
  run: [
    { tool: 'python3', package: 'python3' },
    { tool: 'make', package: 'make' },
    { tool: 'g++', package: 'g++' },
    { tool: 'nft', package: 'nftables' },
    { tool: 'ip', package: 'iproute2' },
  ],
  demo: [
    { tool: 'openconnect', package: 'openconnect' },
    { tool: 'ping', package: 'iputils-ping' },
    { tool: 'curl', package: 'curl' },
    { tool: 'tcpdump', package: 'tcpdump' },
    { tool: 'openssl', package: 'openssl' },
  ],
  test: [
    { tool: 'openconnect', package: 'openconnect' },
    { tool: 'ping', package: 'iputils-ping' },
    { tool: 'curl', package: 'curl' },
    { tool: 'tcpdump', package: 'tcpdump' },
    { tool: 'openssl', package: 'openssl' },
    { tool: 'gnutls-cli', package: 'gnutls-bin' },
    { tool: 'git', package: 'git' },
    { tool: 'perl', package: 'perl' },
    { tool: 'sysctl', package: 'procps' },
    { tool: 'haproxy', package: 'haproxy' },
    // The Kafka broker (tools/kafka.mjs).
    { tool: 'java', package: 'default-jre-headless' },
    { tool: 'mvn', package: 'maven' },
    { tool: 'redis-server', package: 'redis-server' },
    { tool: 'redis-cli', package: 'redis-tools' },
    { tool: 'bird', package: 'bird2' },
    { file: '/usr/lib/frr/bgpd', package: 'frr' },
    { tool: 'conntrack', package: 'conntrack' },
  ],
  // The local cluster.
  cluster: [
    { tool: 'openconnect', package: 'openconnect' },
    { tool: 'ping', package: 'iputils-ping' },
    { tool: 'curl', package: 'curl' },
    { tool: 'openssl', package: 'openssl' },
    { tool: 'sysctl', package: 'procps' },
    { tool: 'haproxy', package: 'haproxy' },
    // The Kafka broker (tools/kafka.mjs).
    { tool: 'java', package: 'default-jre-headless' },
    { tool: 'mvn', package: 'maven' },
    { tool: 'redis-server', package: 'redis-server' },
  ],
  bench: [
    { tool: 'python3', package: 'python3' },
    { tool: 'ocserv', package: 'ocserv' },
    { tool: 'openconnect', package: 'openconnect' },
    { tool: 'certtool', package: 'gnutls-bin' },
    { tool: 'iperf3', package: 'iperf3' },
    { tool: 'ip', package: 'iproute2' },
    { tool: 'nft', package: 'nftables' },
    { tool: 'ping', package: 'iputils-ping' },
    { tool: 'ethtool', package: 'ethtool' },
    { tool: 'sysctl', package: 'procps' },
    { tool: 'perl', package: 'perl' },
    { tool: 'gcc', package: 'gcc' },
    { file: '/usr/include/gnutls/gnutls.h', package: 'libgnutls28-dev' },
    { file: '/usr/include/openssl/ssl.h', package: 'libssl-dev' },
    { file: '/usr/include/liburing.h', package: 'liburing-dev' },
    // The local cluster.
    { tool: 'openssl', package: 'openssl' },
    { tool: 'haproxy', package: 'haproxy' },
    { tool: 'java', package: 'default-jre-headless' },
    { tool: 'mvn', package: 'maven' },
    { tool: 'redis-server', package: 'redis-server' },
  ],
};
