// The one file (or, where roles need it, few) that may import each third-party library. Globs from the root.
const NEST = [
  'apps/*/src/**/*.module.ts',
  'apps/*/src/**/*.controller.ts',
  'apps/gateway/src/{main,services}.ts',
  'apps/gateway/src/admin/serve-admin.ts',
  'apps/gateway/src/roles/serve-rpc.ts',
];
const GRPC = ['libs/cluster/src/rpc-{client,server,health}.ts', 'apps/gateway/src/cli/admin-client.ts'];

export const LIBRARY_OWNERS = {
  '@grpc/grpc-js': GRPC,
  '@grpc/proto-loader': GRPC,
  '@nestjs/common': NEST,
  '@nestjs/core': NEST,
  '@nestjs/microservices': NEST,
  '@node-rs/argon2': ['apps/auth/src/passwords.ts'],
  '@peculiar/x509': ['apps/gateway/src/first-run.ts', 'libs/cluster/src/pki.ts'],
  commander: ['apps/gateway/src/cli/verbs.ts'],
  ioredis: ['libs/cluster/src/redis.ts'],
  'ipaddr.js': ['libs/protocol/src/ip.ts'],
  kafkajs: ['libs/cluster/src/kafka.ts'],
  pino: ['libs/chassis/src/log.ts'],
  'prom-client': ['libs/chassis/src/metrics.ts'],
  'reflect-metadata': [...NEST, 'apps/gateway/src/first-run.ts', 'libs/cluster/src/pki.ts'],
  rxjs: NEST,
  saxes: ['libs/protocol/src/xml.ts'],
  tuntap2: ['libs/engine/src/device.tuntap.ts'],
  unixcrypt: ['apps/auth/src/crypt.worker.ts'],
  yaml: ['libs/chassis/src/config.ts'],
  zod: ['libs/chassis/src/config-values.ts'],
};
